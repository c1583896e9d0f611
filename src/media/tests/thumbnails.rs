//! Thumbnails, also of hostile images.

use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::Engine as _;
use image::{
    AnimationDecoder, Delay, DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::gif::{GifDecoder, GifEncoder, Repeat},
};
use rand::RngExt;

use super::*;

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Red on the left, blue on the right.
fn halves(width: u32, height: u32) -> DynamicImage {
    let pixel = |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) };
    RgbImage::from_fn(width, height, pixel).into()
}

fn animated_gif(width: u32, height: u32, frames: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    encoder.set_repeat(Repeat::Infinite).unwrap();
    for n in 0..frames {
        let image = RgbaImage::from_pixel(width, height, Rgba([(n * 40 % 256) as u8, 100, 200, 255]));
        encoder.encode_frame(Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(50, 1))).unwrap();
    }
    drop(encoder);
    bytes
}

fn crop(side: u32) -> Wanted {
    Wanted::new(side, side, Method::Crop, false).unwrap()
}

fn scale(width: u32, height: u32) -> Wanted {
    Wanted::new(width, height, Method::Scale, false).unwrap()
}

fn moving(side: u32) -> Wanted {
    Wanted::new(side, side, Method::Crop, true).unwrap()
}

fn size(bytes: &[u8]) -> (u32, u32) {
    let image = image::load_from_memory(bytes).unwrap();
    (image.width(), image.height())
}

#[tokio::test]
async fn images_are_scaled_and_cropped() {
    let mut world = World::new();
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif] {
        let id = world.upload(&encoded(&halves(1000, 500), format), "application/whatever").await;
        let (content_type, thumbnail) = world.thumbnail(&id, crop(96)).await.unwrap();
        // A drawing in a PNG stays as sharp as it is.
        let expected = if format == ImageFormat::Png { "image/png" } else { "image/jpeg" };
        assert_eq!((content_type, size(&thumbnail)), (expected, (96, 96)), "{format:?}");
        let (_, thumbnail) = world.thumbnail(&id, scale(300, 200)).await.unwrap();
        assert_eq!(size(&thumbnail), (320, 160), "{format:?}");
        let image = image::load_from_memory(&thumbnail).unwrap().into_rgb8();
        let (left, right) = (image.get_pixel(20, 80).0, image.get_pixel(300, 80).0);
        assert!(left[0] > 200 && left[2] < 50 && right[0] < 50 && right[2] > 200, "{left:?} {right:?}");
    }
}

#[tokio::test]
async fn what_shines_through_stays_so() {
    let mut world = World::new();
    let glass = RgbaImage::from_pixel(400, 400, Rgba([10, 20, 30, 128]));
    let id = world.upload(&encoded(&glass.into(), ImageFormat::Png), "image/png").await;
    let (content_type, thumbnail) = world.thumbnail(&id, crop(32)).await.unwrap();
    assert_eq!(content_type, "image/png");
    assert_eq!(image::load_from_memory(&thumbnail).unwrap().into_rgba8().get_pixel(5, 5).0[3], 128);
}

#[tokio::test]
async fn a_small_image_is_served_as_it_is() {
    let mut world = World::new();
    let original = encoded(&halves(80, 60), ImageFormat::Png);
    let id = world.upload(&original, "image/svg+xml").await;
    for wanted in [crop(96), scale(96, 96), scale(5000, 5000), moving(96)] {
        assert_eq!(world.thumbnail(&id, wanted).await.unwrap(), ("image/png", original.clone()));
    }
    assert_eq!(size(&world.thumbnail(&id, crop(32)).await.unwrap().1), (32, 32));
}

#[tokio::test]
async fn a_photo_is_turned_as_its_camera_was() {
    let mut world = World::new();
    let mut jpeg = encoded(&halves(600, 300), ImageFormat::Jpeg);
    // An Exif segment that says orientation 6: turn by 90 degrees clockwise to show.
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    jpeg.splice(2..2, exif.iter().copied());
    let id = world.upload(&jpeg, "image/jpeg").await;
    let (_, thumbnail) = world.thumbnail(&id, scale(320, 240)).await.unwrap();
    assert_eq!(size(&thumbnail), (120, 240));
    let image = image::load_from_memory(&thumbnail).unwrap().into_rgb8();
    assert!(image.get_pixel(60, 20).0[0] > 200 && image.get_pixel(60, 220).0[2] > 200, "red is at the top");
    assert!(!thumbnail.windows(4).any(|window| window == b"Exif"), "where it was taken is not passed on");
}

#[tokio::test]
async fn an_animation_moves_only_where_it_may() {
    let mut world = World::new();
    let gif = animated_gif(400, 300, 5);
    let id = world.upload(&gif, "image/gif").await;
    let (content_type, thumbnail) = world.thumbnail(&id, moving(96)).await.unwrap();
    assert_eq!(content_type, "image/gif");
    let frames = GifDecoder::new(Cursor::new(&thumbnail)).unwrap().into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 5);
    assert!(frames.iter().all(|frame| frame.buffer().dimensions() == (96, 96) && frame.delay().numer_denom_ms() == (50, 1)));
    assert!(frames[0].buffer().get_pixel(9, 9) != frames[3].buffer().get_pixel(9, 9));
    assert_eq!(world.thumbnail(&id, crop(96)).await.unwrap().0, "image/jpeg");
    let (content_type, still) = world.thumbnail(&id, scale(640, 480)).await.unwrap();
    assert_eq!((content_type, size(&still)), ("image/jpeg", (400, 300)), "small enough, but it must not move");
    let large = Wanted::new(640, 480, Method::Scale, true).unwrap();
    assert_eq!(world.thumbnail(&id, large).await.unwrap(), ("image/gif", gif));
}

/// Three frames of 48 by 48 pixels, red, green and blue, 100 ms each, as another encoder makes them.
const WEBP: &str = "UklGRrQAAABXRUJQVlA4WAoAAAACAAAALwAALwAAQU5JTQYAAAAAAAAAAABBTk1GKAAAAAAAAAAAAC8AAC8AAGQAAAJWUDhMDwAAAC8vwAsABxD9j/4HIqL/AQBBTk1\
    GKAAAAAAAAAAAAC8AAC8AAGQAAABWUDhMDwAAAC8vwAsAB9D/iP4HIqL/AQBBTk1GKAAAAAAAAAAAAC8AAC8AAGQAAABWUDhMDwAAAC8vwAsABxDR//4HIqL/AQA=";
const APNG: &str = "iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAIAAADYYG7QAAAACGFjVEwAAAADAAAAAM7tusAAAAAaZmNUTAAAAAAAAAAwAAAAMAAAAAAAAAAAAAEACgAAzQeHrwAAAEVJREFUeJ\
    ztzrEBABAAwDD8/zO7JSNDc0HmHn9ZrwO3QlJICkkhKSSFpJAUkkJSSApJISkkhaSQFJJCUkgKSSEpJIWkkBxJ4QFftHkaXwAAABpmY1RMAAAAAQAAADAAAAAwAAAAAAAAAAAAAQAKAABWdG17AAAAS\
    mZkQVQAAAACeJztzrEBABAAwDD8/zO7pSNDckHm2OMr63XgJlSEilARKkJFqAgVoSJUhIpQESpCRagIFaEiVISKUBEqQkWoCJUDSOIBX6lO6l8AAAAaZmNUTAAAAAMAAAAwAAAAMAAAAAAAAAAAAAEAC\
    gAAu+K+kgAAAExmZEFUAAAABHic7c6hAcAgEACxh/13bj0mEsRlgqyZb16ybwdOhaSQFJJCUkgKSSEpJIWkkBSSQlJICkkhKSSFpJAUkkJSSApJIfkBR+MBXzhGevYAAAAASUVORK5CYII=";

#[tokio::test]
async fn animations_of_every_format_move() {
    let mut world = World::new();
    for (content_type, file) in [("image/webp", WEBP), ("image/png", APNG)] {
        let file = base64::engine::general_purpose::STANDARD.decode(file).unwrap();
        let id = world.upload(&file, content_type).await;
        let (content_type, thumbnail) = world.thumbnail(&id, moving(32)).await.unwrap();
        assert_eq!(content_type, "image/gif");
        let frames = GifDecoder::new(Cursor::new(&thumbnail)).unwrap().into_frames().collect_frames().unwrap();
        let brightest = |frame: &Frame| frame.buffer().get_pixel(16, 16).0[..3].iter().position(|channel| *channel > 250);
        assert_eq!(frames.iter().map(brightest).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)], "red, green, blue");
        assert!(frames.iter().all(|frame| frame.delay().numer_denom_ms() == (100, 1)));
    }
}

#[tokio::test]
async fn an_animation_that_is_too_long_does_not_move() {
    let mut world = World::new();
    let id = world.upload(&animated_gif(40, 40, 301), "image/gif").await;
    assert_eq!(world.thumbnail(&id, moving(32)).await.unwrap().0, "image/jpeg");
    let mut cut_off = animated_gif(300, 300, 20);
    cut_off.truncate(cut_off.len() / 2);
    let id = world.upload(&cut_off, "image/gif").await;
    assert_eq!(world.thumbnail(&id, moving(32)).await.unwrap().0, "image/jpeg");
}

#[tokio::test]
async fn t37_what_is_no_image_has_no_thumbnail() {
    let mut world = World::new();
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    for bytes in [
        b"".as_slice(),
        b"text",
        svg,
        b"BM\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff",
    ] {
        let id = world.upload(bytes, "image/png").await;
        let error = world.thumbnail(&id, crop(96)).await.unwrap_err();
        assert!(matches!(error, Error::NotAnImage(_)), "{bytes:?}: {error}");
    }
}

/// A PNG that says it has this size, and no data.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 6, 0, 0, 0]);
    let checksum = header.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    });
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0d".as_slice(), &header, &(!checksum).to_be_bytes(), b"\0\0\0\0IDAT\x35\xaf\x06\x1e"].concat()
}

#[tokio::test]
async fn t37_bombs_are_refused_before_they_are_decoded() {
    let mut world = World::new();
    let mut gif = animated_gif(2, 2, 1);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let mut webp =
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x1f\0\0\x1f\0\0VP8 \x14\0\0\0\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f".to_vec();
    webp.extend([0; 10]);
    webp[4] = (webp.len() - 8) as u8;
    for (name, bomb) in [("png", png_claiming(60_000, 60_000)), ("gif", gif), ("webp", webp)] {
        let id = world.upload(&bomb, "image/png").await;
        let error = world.thumbnail(&id, crop(96)).await.unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge), "{name}: {error}");
    }
    let mut small = World::with(Config { max_thumbnail_pixels: 9_999, ..Config::default() });
    let id = small.upload(&encoded(&halves(100, 100), ImageFormat::Png), "image/png").await;
    assert!(matches!(small.thumbnail(&id, crop(32)).await, Err(Error::ImageTooLarge)));
}

#[tokio::test]
async fn damaged_images_harm_nothing() {
    let mut world = World::new();
    let mut rng = StdRng::seed_from_u64(11);
    let images = [
        encoded(&halves(60, 60), ImageFormat::Png),
        encoded(&halves(60, 60), ImageFormat::Jpeg),
        encoded(&halves(60, 60), ImageFormat::WebP),
        animated_gif(60, 60, 3),
    ];
    for image in &images {
        for _ in 0..25 {
            let mut image = image.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(8..image.len());
                image[at] = rng.random();
            }
            let id = world.upload(&image, "image/png").await;
            for wanted in [crop(32), moving(32)] {
                let made = world.thumbnail(&id, wanted).await;
                let fine = matches!(made, Ok(_) | Err(Error::NotAnImage(_) | Error::ImageTooLarge));
                assert!(fine, "{made:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_thumbnail_is_made_once_however_many_ask() {
    let mut world = World::new();
    let id = world.upload(&encoded(&halves(500, 500), ImageFormat::Png), "image/png").await;
    let content = world.content(&id).await.unwrap();
    let world = Arc::new(world);
    let made = Arc::new(AtomicUsize::new(0));
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (world, made, content) = (Arc::clone(&world), Arc::clone(&made), content.clone());
            tokio::spawn(async move {
                let run = |job: Job| async move {
                    made.fetch_add(1, Ordering::Relaxed);
                    tokio::task::spawn_blocking(move || job.run()).await.unwrap()
                };
                bytes(world.media.thumbnail(&content, crop(96), run).await.unwrap().body).await
            })
        })
        .collect();
    let mut thumbnails = Vec::new();
    for answer in asking {
        thumbnails.push(answer.await.unwrap());
    }
    assert_eq!(made.load(Ordering::Relaxed), 1);
    assert!(thumbnails.iter().all(|thumbnail| *thumbnail == thumbnails[0] && size(thumbnail) == (96, 96)));
}

#[tokio::test]
async fn an_image_has_few_thumbnails_and_takes_them_with_it() {
    let mut world = World::new();
    let id = world.upload(&encoded(&halves(500, 500), ImageFormat::Png), "image/png").await;
    for height in 1..=70 {
        world.thumbnail(&id, Wanted::new(96, height, Method::Crop, false).unwrap()).await.unwrap();
    }
    assert!(world.files().len() <= 33, "{}", world.files().len());
    world.media.delete(&world.store, &id).await.unwrap();
    assert!(world.files().is_empty());
}
