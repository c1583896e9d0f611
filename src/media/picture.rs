//! Decoding untrusted images, and encoding small ones.
//!
//! The format is what the bytes are, never what the uploader says, and one of four. Before anything is allocated, the image's
//! dimensions are held against the limit on pixels; the decoders have a limit on memory besides. A decoder that panics
//! is a broken image, not a broken server.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
    imageops::FilterType,
    metadata::Orientation,
};

use crate::{
    Error, Result, Wanted, animation,
    size::Plan,
    thumbnail::{Pixels, Turn},
};

/// The largest file that is thumbnailed, in bytes: a JPEG's decoder holds all of it.
const FILE_MAX: u64 = 64 << 20;
/// Bytes that a decoder may allocate for each pixel that is allowed.
const BYTES_PER_PIXEL: u64 = 4;
/// The least that a decoder may allocate: metadata, tables.
const ALLOCATION_MIN: u64 = 16 << 20;
/// The quality of JPEG thumbnails, of 100.
const JPEG_QUALITY: u8 = 82;
/// The longest colour profile that is passed on, in bytes.
const PROFILE_MAX: usize = 16 << 10;
/// Chunks of a WebP file that are looked through for frames.
const CHUNKS_MAX: usize = 20_000;

/// A thumbnail that is to be made.
pub struct Job {
    file: File,
    size: u64,
    wanted: Wanted,
    turn: Turn,
}

/// A thumbnail that was made.
pub struct Rendered {
    pub(crate) picture: Picture,
    /// Held until the thumbnail is kept.
    pub(crate) turn: Turn,
}

pub(crate) enum Picture {
    /// The image is small enough as it is.
    Original(ImageFormat),
    /// The thumbnail's bytes.
    New(ImageFormat, Vec<u8>),
}

impl Job {
    pub(crate) fn new(file: File, size: u64, wanted: Wanted, turn: Turn) -> Self {
        Self { file, size, wanted, turn }
    }

    /// Makes the thumbnail. Takes up to seconds of processor time and blocks, so call it on a thread for that.
    ///
    /// # Errors
    /// [`Error::NotAnImage`], [`Error::ImageTooLarge`].
    pub fn run(self) -> Result<Rendered> {
        if self.size > FILE_MAX {
            return Err(Error::ImageTooLarge);
        }
        let Self { file, size, wanted, turn } = self;
        let made = catch_unwind(AssertUnwindSafe(|| render(file, size, wanted, &turn.pixels)));
        let picture = made.unwrap_or_else(|_| Err(Error::NotAnImage("its decoder failed".into())))?;
        Ok(Rendered { picture, turn })
    }
}

/// The content type of a format that thumbnails have.
pub(crate) fn content_type(format: ImageFormat) -> &'static str {
    format.to_mime_type()
}

fn render(mut file: File, size: u64, wanted: Wanted, pixels: &Pixels) -> Result<Picture> {
    let format = sniff(&mut file)?;
    if format == ImageFormat::WebP {
        refuse_large_frames(&mut file, size, pixels.limit)?;
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(pixels.limit.saturating_mul(BYTES_PER_PIXEL).max(ALLOCATION_MIN));
    let mut source = Source { file, format, limits };
    let mut decoder = source.decoder()?;
    let (width, height) = decoder.dimensions();
    let area = u64::from(width) * u64::from(height);
    if area == 0 {
        return Err(Error::NotAnImage("it has no pixels".into()));
    }
    if area > pixels.limit {
        return Err(Error::ImageTooLarge);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    drop(decoder);
    let plan = wanted.plan(turned((width, height), orientation));
    let _taken = pixels.take(area);
    match plan {
        // Small enough, and does not move where it should not.
        None if wanted.animated || !animation::moves(&mut source)? => return Ok(Picture::Original(format)),
        Some(plan) if wanted.animated && animation::moves(&mut source)? => {
            if let Some(gif) = animation::shrink(&mut source, plan, (width, height))? {
                return Ok(Picture::New(ImageFormat::Gif, gif));
            }
        }
        _ => {}
    }
    still(&mut source, plan, orientation)
}

/// An image file that may be read more than once.
pub(crate) struct Source {
    file: File,
    pub(crate) format: ImageFormat,
    pub(crate) limits: Limits,
}

impl Source {
    /// The file from its beginning.
    pub(crate) fn reader(&mut self) -> Result<BufReader<&mut File>> {
        self.file.rewind().map_err(unreadable)?;
        Ok(BufReader::new(&mut self.file))
    }

    fn decoder(&mut self) -> Result<impl ImageDecoder + '_> {
        let (format, limits) = (self.format, self.limits.clone());
        let mut reader = ImageReader::with_format(self.reader()?, format);
        reader.limits(limits);
        reader.into_decoder().map_err(broken)
    }
}

fn sniff(file: &mut File) -> Result<ImageFormat> {
    let mut start = Vec::with_capacity(16);
    file.take(16).read_to_end(&mut start).map_err(unreadable)?;
    match image::guess_format(&start) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP)) => Ok(format),
        _ => Err(Error::NotAnImage("it is no PNG, JPEG, GIF or WebP".into())),
    }
}

/// The first picture of a file, made smaller.
fn still(source: &mut Source, plan: Option<Plan>, orientation: Orientation) -> Result<Picture> {
    let max_alloc = source.limits.max_alloc;
    let mut decoder = source.decoder()?;
    if max_alloc.is_some_and(|max| decoder.total_bytes() > max) {
        return Err(Error::ImageTooLarge);
    }
    let profile = match decoder.original_color_type() {
        ExtendedColorType::Rgb8 | ExtendedColorType::Rgba8 => decoder.icc_profile().ok().flatten(),
        _ => None,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if let Some(plan) = plan {
        // Turning a small image is cheaper than turning a large one.
        image = shrink(&image, turned_plan(plan, orientation));
    }
    image.apply_orientation(orientation);
    encode(&image, source.format, profile.filter(|profile| profile.len() <= PROFILE_MAX))
}

/// The middle of an image at another size.
pub(crate) fn shrink(image: &DynamicImage, Plan { cut, size }: Plan) -> DynamicImage {
    let (x, y) = (image.width().saturating_sub(cut.0) / 2, image.height().saturating_sub(cut.1) / 2);
    let whole = (x, y) == (0, 0) && cut == (image.width(), image.height());
    let part = if whole { None } else { Some(image.crop_imm(x, y, cut.0, cut.1)) };
    let part = part.as_ref().unwrap_or(image);
    // Averaging is fast, and a filter at the end makes it sharp.
    let double = (size.0.saturating_mul(2), size.1.saturating_mul(2));
    if cut.0 > double.0 && cut.1 > double.1 {
        part.thumbnail_exact(double.0, double.1).resize_exact(size.0, size.1, FilterType::CatmullRom)
    } else {
        part.resize_exact(size.0, size.1, FilterType::CatmullRom)
    }
}

/// A PNG of a PNG, which may be a drawing or a text, and where anything shines through; else a JPEG.
fn encode(image: &DynamicImage, original: ImageFormat, profile: Option<Vec<u8>>) -> Result<Picture> {
    let translucent = image.has_alpha().then(|| image.to_rgba8());
    let translucent = translucent.filter(|pixels| pixels.pixels().any(|pixel| pixel.0[3] < u8::MAX));
    let mut bytes = Vec::new();
    if translucent.is_some() || original == ImageFormat::Png {
        let pixels = translucent.map_or_else(|| image.to_rgb8().into(), DynamicImage::from);
        let mut encoder = PngEncoder::new(&mut bytes);
        with_profile(&mut encoder, profile);
        pixels.write_with_encoder(encoder).map_err(broken)?;
        return Ok(Picture::New(ImageFormat::Png, bytes));
    }
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    with_profile(&mut encoder, profile);
    DynamicImage::from(image.to_rgb8()).write_with_encoder(encoder).map_err(broken)?;
    Ok(Picture::New(ImageFormat::Jpeg, bytes))
}

/// Keeps the colours that a wide-gamut camera meant. A profile that cannot be kept does not cost the thumbnail.
fn with_profile(encoder: &mut impl ImageEncoder, profile: Option<Vec<u8>>) {
    if let Some(profile) = profile {
        let _ = encoder.set_icc_profile(profile);
    }
}

fn is_sideways(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn turned((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    if is_sideways(orientation) { (height, width) } else { (width, height) }
}

fn turned_plan(plan: Plan, orientation: Orientation) -> Plan {
    Plan { cut: turned(plan.cut, orientation), size: turned(plan.size, orientation) }
}

/// Refuses a WebP file with a lossy frame of more pixels than this. Its decoder allocates what the frame says and only then compares
/// that with what the file says. The same for chunks longer than the file.
fn refuse_large_frames(file: &mut File, file_size: u64, pixels_max: u64) -> Result<()> {
    file.seek(SeekFrom::Start(12)).map_err(unreadable)?;
    let mut reader = BufReader::new(file);
    for _ in 0..CHUNKS_MAX {
        let Some(header) = read::<8>(&mut reader)? else { return Ok(()) };
        let [a, b, c, d, size @ ..] = header;
        let size = u64::from(u32::from_le_bytes(size));
        if size > file_size {
            return Err(Error::NotAnImage("it is cut off".into()));
        }
        let mut skip = size + size % 2;
        match &[a, b, c, d] {
            // The frame's own chunks follow its header.
            b"ANMF" => skip = 16,
            b"VP8 " => {
                let Some([_, _, _, _, _, _, w0, w1, h0, h1]) = read::<10>(&mut reader)? else { return Ok(()) };
                let side = |bytes: [u8; 2]| u64::from(u16::from_le_bytes(bytes) & 0x3fff);
                if side([w0, w1]) * side([h0, h1]) > pixels_max {
                    return Err(Error::ImageTooLarge);
                }
                skip = skip.saturating_sub(10);
            }
            _ => {}
        }
        reader.seek_relative(i64::try_from(skip).unwrap_or(i64::MAX)).map_err(unreadable)?;
    }
    Err(Error::ImageTooLarge)
}

/// The next bytes; `None` where the file ends before.
fn read<const N: usize>(reader: &mut impl BufRead) -> Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Unreadable(error.to_string())
}

pub(crate) fn broken(error: ImageError) -> Error {
    match error {
        ImageError::Limits(_) => Error::ImageTooLarge,
        error => Error::NotAnImage(error.to_string()),
    }
}
