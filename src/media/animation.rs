//! Thumbnails that move.
//!
//! One frame is decoded, made smaller and encoded at a time. Where an animation is longer or larger than what is worth a server's time,
//! or breaks off, its thumbnail does not move.

use std::io::{self, Write};

use image::{
    AnimationDecoder, DynamicImage, Frame, Frames, ImageDecoder, ImageFormat, ImageResult,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        png::PngDecoder,
        webp::WebPDecoder,
    },
    metadata::LoopCount,
};

use crate::{
    Result,
    picture::{Source, broken, shrink as shrink_picture},
    size::Plan,
};

/// The most frames that are encoded.
const FRAMES_MAX: u64 = 300;
/// The most pixels that are decoded, in all frames together.
const DECODED_MAX: u64 = 150_000_000;
/// The most pixels that are encoded, in all frames together.
const ENCODED_MAX: u64 = 15_000_000;
/// The largest moving thumbnail, in bytes.
const BYTES_MAX: usize = 8 << 20;
/// How fast colours are chosen, of 30.
const SPEED: i32 = 15;

/// Whether the image has more than one frame.
pub(crate) fn moves(source: &mut Source) -> Result<bool> {
    let (format, limits) = (source.format, source.limits.clone());
    let reader = source.reader()?;
    match format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(reader).map_err(broken)?;
            decoder.set_limits(limits).map_err(broken)?;
            // A second frame that is broken or too large to decode here still is one.
            Ok(decoder.into_frames().take(2).count() > 1)
        }
        ImageFormat::WebP => Ok(WebPDecoder::new(reader).map_err(broken)?.has_animation()),
        ImageFormat::Png => PngDecoder::with_limits(reader, limits).and_then(|decoder| decoder.is_apng()).map_err(broken),
        _ => Ok(false),
    }
}

/// A GIF of the frames made smaller; `None` where the thumbnail should not move. `canvas`: the size of the frames.
pub(crate) fn shrink(source: &mut Source, plan: Plan, canvas: (u32, u32)) -> Result<Option<Vec<u8>>> {
    let (format, limits) = (source.format, source.limits.clone());
    let reader = source.reader()?;
    let (frames, loops) = match format {
        ImageFormat::Gif => GifDecoder::new(reader).and_then(|mut decoder| {
            decoder.set_limits(limits)?;
            Ok(opened(decoder))
        }),
        ImageFormat::WebP => WebPDecoder::new(reader).map(opened),
        ImageFormat::Png => PngDecoder::with_limits(reader, limits).and_then(PngDecoder::apng).map(opened),
        _ => return Ok(None),
    }
    .map_err(broken)?;
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let frames_max = (DECODED_MAX / area(canvas).max(1)).min(ENCODED_MAX / area(plan.size).max(1)).min(FRAMES_MAX);
    Ok(encode(frames, loops, plan, frames_max).ok().flatten())
}

fn opened<'a>(decoder: impl AnimationDecoder<'a>) -> (Frames<'a>, LoopCount) {
    let loops = decoder.loop_count();
    (decoder.into_frames(), loops)
}

fn encode(frames: Frames<'_>, loops: LoopCount, plan: Plan, frames_max: u64) -> ImageResult<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(Capped { out: &mut bytes }, SPEED);
    encoder.set_repeat(match loops {
        LoopCount::Infinite => Repeat::Infinite,
        LoopCount::Finite(times) => Repeat::Finite(u16::try_from(times.get()).unwrap_or(u16::MAX)),
    })?;
    for (number, frame) in (0..).zip(frames) {
        if number >= frames_max {
            return Ok(None);
        }
        let frame = frame?;
        let delay = frame.delay();
        let small = shrink_picture(&DynamicImage::ImageRgba8(frame.into_buffer()), plan).into_rgba8();
        encoder.encode_frame(Frame::from_parts(small, 0, 0, delay))?;
    }
    drop(encoder);
    Ok(Some(bytes))
}

/// A buffer that refuses to grow beyond [`BYTES_MAX`].
struct Capped<'a> {
    out: &'a mut Vec<u8>,
}

impl Write for Capped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
