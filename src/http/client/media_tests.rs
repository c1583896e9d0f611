//! The content repository over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use axum::body::Body;
use http::{Method, header};
use serde_json::json;

use crate::testing::{Answer, Hearth, Person};

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// The `server/media_id` of an upload.
async fn upload(who: &Person, query: &str, content_type: &str, bytes: impl Into<Body>) -> String {
    let answer = who.ask(Method::POST, &format!("{UPLOAD}{query}")).header("content-type", content_type).body(bytes).await.ok();
    answer["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned()
}

async fn download(who: &Person, media: &str) -> Answer {
    who.get(&format!("/_matrix/client/v1/media/download/{media}")).await
}

fn header_of<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(width, height, image::Rgb([9, 99, 199])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn an_upload_is_downloaded_with_what_makes_it_safe() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let media = upload(&alice, "?filename=War%20and%20Peace.png", "Image/PNG", "not really").await;
    assert!(media.starts_with("hearth.test/"), "{media}");
    let answer = download(&alice, &media).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, b"not really".as_slice()));
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", "10"),
        ("content-disposition", "inline; filename=\"War and Peace.png\""),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(header_of(&answer, name), value, "{name}");
    }
    assert!(header_of(&answer, "content-security-policy").starts_with("sandbox; default-src 'none'; script-src 'none';"));
    let renamed = download(&alice, &format!("{media}/na%C3%AFve.txt")).await;
    assert_eq!(header_of(&renamed, "content-disposition"), "inline; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt");
}

#[tokio::test]
async fn t36_what_could_run_in_a_browser_is_only_saved() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    for content_type in ["image/svg+xml", "IMAGE/SVG+XML", "text/html; charset=utf-8", "application/xhtml+xml"] {
        let media = upload(&alice, "", content_type, "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").await;
        let answer = download(&alice, &media).await;
        assert_eq!(header_of(&answer, "content-disposition"), "attachment", "{content_type}");
        assert!(header_of(&answer, "content-security-policy").contains("sandbox"));
    }
    let media = upload(&alice, "", "image/png, text/html", "x").await;
    assert_eq!(header_of(&download(&alice, &media).await, "content-type"), "application/octet-stream");
}

#[tokio::test]
async fn a_part_of_a_file_is_a_part_and_a_known_file_is_not_sent_again() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let media = upload(&alice, "", "video/mp4", "0123456789").await;
    let path = format!("/_matrix/client/v1/media/download/{media}");
    let part = alice.get(&path).header("range", "bytes=2-4").await;
    assert_eq!((part.status.as_u16(), part.body.as_ref()), (206, b"234".as_slice()));
    assert_eq!(header_of(&part, "content-range"), "bytes 2-4/10");
    alice.get(&path).header("range", "bytes=10-").await.fails(416, "M_UNKNOWN");
    let etag = header_of(&part, "etag").to_owned();
    let known = alice.get(&path).header("if-none-match", &etag).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    let other = alice.get(&path).header("range", "bytes=2-4").header("if-range", "\"other\"").await;
    assert_eq!((other.status.as_u16(), other.body.len()), (200, 10));
}

#[tokio::test]
async fn a_token_is_needed_and_the_old_endpoints_are_frozen() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let media = upload(&alice, "", "image/png", png(100, 100)).await;
    hearth.get(&format!("/_matrix/client/v1/media/download/{media}")).await.fails(401, "M_MISSING_TOKEN");
    hearth.ask(Method::POST, UPLOAD).body("x").await.fails(401, "M_MISSING_TOKEN");
    for old in ["v3", "r0"] {
        hearth.get(&format!("/_matrix/media/{old}/download/{media}")).await.fails(404, "M_NOT_FOUND");
        hearth.get(&format!("/_matrix/media/{old}/download/{media}/a.png")).await.fails(404, "M_NOT_FOUND");
        hearth.get(&format!("/_matrix/media/{old}/thumbnail/{media}?width=32&height=32")).await.fails(404, "M_NOT_FOUND");
        assert_eq!(alice.get(&format!("/_matrix/media/{old}/config")).await.ok()["m.upload.size"], 100 << 20);
    }
    assert_eq!(alice.get("/_matrix/client/v1/media/config").await.ok()["m.upload.size"], 100 << 20);
}

#[tokio::test]
async fn t35_no_media_id_names_a_path() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    for id in ["..%2F..%2Fetc%2Fpasswd", "%2e%2e", "a.b", "a%00b", "unknown"] {
        download(&alice, &format!("hearth.test/{id}")).await.fails(404, "M_NOT_FOUND");
    }
    download(&alice, "elsewhere.test/abc").await.fails(502, "M_UNKNOWN");
    download(&alice, "not%2Fa%2Fserver/abc").await.fails(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_created_id_is_uploaded_to_once() {
    let hearth = Hearth::start();
    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    assert_eq!(created["unused_expires_at"], hearth.server.now_ms() + 24 * 60 * 60 * 1000);
    let media = created["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    let now = format!("{media}?timeout_ms=0");
    download(&bob, &now).await.fails(504, "M_NOT_YET_UPLOADED");
    let put = |who: &Person| who.ask(Method::PUT, &format!("{UPLOAD}/{media}")).header("content-type", "text/plain").body("late");
    put(&bob).await.fails(403, "M_FORBIDDEN");
    let waiting = tokio::spawn({
        let (bob, media) = (bob.clone(), media.clone());
        async move { download(&bob, &media).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(put(&alice).await.ok(), json!({}));
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await.expect("woken").unwrap();
    assert_eq!(answer.body.as_ref(), b"late");
    put(&alice).await.fails(409, "M_CANNOT_OVERWRITE_MEDIA");
    let unknown = alice.ask(Method::PUT, &format!("{UPLOAD}/hearth.test/unknown")).body("x");
    unknown.await.fails(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_created_id_expires_and_only_so_many_wait() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    for _ in 1..64 {
        alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    }
    let refused = alice.post("/_matrix/media/v1/create", json!({})).await.fails(429, "M_LIMIT_EXCEEDED");
    assert_eq!(refused["retry_after_ms"], 24 * 60 * 60 * 1000);
    hearth.clock.advance(24 * 60 * 60 * 1000);
    let media = created["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap();
    alice.ask(Method::PUT, &format!("{UPLOAD}/{media}")).body("x").await.fails(404, "M_NOT_FOUND");
    alice.post("/_matrix/media/v1/create", json!({})).await.ok();
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let large = alice.ask(Method::POST, UPLOAD).header(header::CONTENT_LENGTH.as_str(), &((100 << 20) + 1).to_string());
    large.await.fails(413, "M_TOO_LARGE");
    let megabyte = bytes::Bytes::from(vec![0; 1 << 20]);
    let endless = futures_util::stream::iter((0..101).map(move |_| Ok::<_, std::io::Error>(megabyte.clone())));
    alice.ask(Method::POST, UPLOAD).body(Body::from_stream(endless)).await.fails(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_told_so() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let broken = futures_util::stream::iter([Ok("abc"), Err(std::io::Error::other("gone"))]);
    alice.ask(Method::POST, UPLOAD).body(Body::from_stream(broken)).await.fails(400, "M_UNKNOWN");
}

#[tokio::test]
async fn images_have_thumbnails_and_other_files_have_none() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let media = upload(&alice, "?filename=photo.png", "image/png", png(500, 400)).await;
    let path = format!("/_matrix/client/v1/media/thumbnail/{media}");
    let thumbnail = alice.get(&format!("{path}?width=64&height=64&method=crop&animated=true")).await;
    assert_eq!((thumbnail.status.as_u16(), header_of(&thumbnail, "content-type")), (200, "image/png"));
    assert_eq!(header_of(&thumbnail, "content-disposition"), "inline; filename=\"thumbnail.png\"");
    assert_eq!(header_of(&thumbnail, "x-content-type-options"), "nosniff");
    let image = image::load_from_memory(&thumbnail.body).unwrap();
    assert_eq!((image.width(), image.height()), (96, 96));
    alice.get(&path).await.fails(400, "M_MISSING_PARAM");
    for wrong in ["width=a&height=1", "width=-1&height=1", "width=0&height=1", "width=1&height=1&method=stretch"] {
        alice.get(&format!("{path}?{wrong}")).await.fails(400, "M_INVALID_PARAM");
    }
    let text = upload(&alice, "", "image/png", "no image").await;
    alice.get(&format!("/_matrix/client/v1/media/thumbnail/{text}?width=1&height=1")).await.fails(400, "M_UNKNOWN");
}

#[tokio::test]
async fn a_suspended_user_downloads_but_does_not_upload() {
    let hearth = Hearth::start();
    let alice = hearth.register("alice").await;
    let media = upload(&alice, "", "text/plain", "before").await;
    users::accounts::set_suspended(&hearth.server.store, alice.user, true).unwrap().durable().await.unwrap();
    alice.ask(Method::POST, UPLOAD).body("x").await.fails(403, "M_USER_SUSPENDED");
    alice.post("/_matrix/media/v1/create", json!({})).await.fails(403, "M_USER_SUSPENDED");
    assert_eq!(download(&alice, &media).await.body.as_ref(), b"before");
}
