//! This server's media, for other servers: a part of JSON, and a part that is the file ("Content Repository").

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, header};
use media::{Content, Disposition, MediaId, content_disposition, disposition};
use rand::{RngExt as _, distr::Alphanumeric};
use ruma::api::federation::authenticated_media::{get_content::v1 as download, get_content_thumbnail::v1 as thumbnail};

use super::{Origin, answering};
use crate::{Call, Class, Error, Result, Route, client::wanted_thumbnail, server::Server};

/// Letters of a boundary: so many that no file has it by chance, and nobody who writes one can guess it.
const BOUNDARY_LENGTH: usize = 32;

pub(super) fn routes() -> Vec<Route> {
    vec![answering(Class::Federation, download), answering(Class::Federation.cost(5), thumbnail)]
}

async fn download(call: Call<Origin>, request: download::Request) -> Result<Response> {
    let server = &call.server;
    let content = content(server, &request.media_id, request.timeout_ms).await?;
    let body = server.media.read(&content, None).await?;
    let shown = content_disposition(disposition(&content.content_type), content.filename.as_deref());
    answer(server, body, &content.content_type, &shown)
}

async fn thumbnail(call: Call<Origin>, request: thumbnail::Request) -> Result<Response> {
    let server = &call.server;
    let wanted = wanted_thumbnail(request.width, request.height, request.method, request.animated)?;
    let content = content(server, &request.media_id, request.timeout_ms).await?;
    let thumbnail = server.media.thumbnail(&content, wanted, |job| server.blocking(move || job.run())).await?;
    let extension = thumbnail.content_type.rsplit('/').next().unwrap_or_default();
    let shown = content_disposition(Disposition::Inline, Some(&format!("thumbnail.{extension}")));
    answer(server, thumbnail.body, thumbnail.content_type, &shown)
}

/// Only this server's own media: what it keeps of others is theirs to give.
async fn content(server: &Server, media_id: &str, wait: Duration) -> Result<Content> {
    let id = MediaId::parse(media_id).ok_or(media::Error::NotFound)?;
    let found = server.media.content(&server.store, &id, wait, server.now_ms());
    tokio::select! {
        found = found => Ok(found?),
        () = server.stopping() => Err(media::Error::NotYetUploaded.into()),
    }
}

fn answer(server: &Server, body: media::Body, content_type: &str, disposition: &str) -> Result<Response> {
    let mut rng = server.rng();
    let boundary: String = (0..BOUNDARY_LENGTH).map(|_| char::from(rng.sample(Alphanumeric))).collect();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\
         Content-Disposition: {disposition}\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let size = head.len() as u64 + body.size + tail.len() as u64;
    let piece = |text: String| stream::iter([Ok::<_, media::Error>(Bytes::from(text))]);
    let mut response = Response::new(Body::from_stream(piece(head).chain(body.stream).chain(piece(tail))));
    let content_type = HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}")).map_err(Error::internal)?;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    Ok(response)
}
