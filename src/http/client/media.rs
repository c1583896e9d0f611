//! Uploads, downloads and thumbnails ("Content repository"). Bytes are streamed both ways.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use media::{Content, Disposition, MediaId, Method, RemoteId, Upload, Wanted, byte_range, content_disposition, disposition};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedMxcUri, OwnedServerName, UInt,
    api::client::{
        authenticated_media::{
            get_content::v1 as download, get_content_as_filename::v1 as download_as, get_content_thumbnail::v1 as thumbnail,
            get_media_config::v1 as config,
        },
        media::{create_content::v3 as post, create_content_async::v3 as put, create_mxc_uri::v1 as create},
    },
};
use serde_json::{Value, json};

use super::with::may_publish;
use crate::{
    Arrival, Call, Class, Error, Json, Place, Result, Route,
    auth::{Public, Session, User, UserOrGuest},
    endpoint,
    error::json_response,
    server::Server,
    streaming,
};

/// An upload takes as much of the bucket as this many downloads.
const UPLOAD_COST: u32 = 5;
/// Content never changes, but it may be taken down: a browser may keep it for a week.
const CACHE: HeaderValue = HeaderValue::from_static("private, max-age=604800, immutable");
/// What no file may do in a browser, whatever it is.
const SAFE: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
        ),
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, CACHE),
];

/// Where media was served without an access token.
const OLDER_DOWNLOAD: [&str; 2] =
    ["/_matrix/media/v3/download/{server_name}/{media_id}", "/_matrix/media/r0/download/{server_name}/{media_id}"];
const OLDER_DOWNLOAD_AS: [&str; 2] = [
    "/_matrix/media/v3/download/{server_name}/{media_id}/{filename}",
    "/_matrix/media/r0/download/{server_name}/{media_id}/{filename}",
];
const OLDER_THUMBNAIL: [&str; 2] =
    ["/_matrix/media/v3/thumbnail/{server_name}/{media_id}", "/_matrix/media/r0/thumbnail/{server_name}/{media_id}"];

pub(crate) fn routes() -> Vec<Route> {
    // The size of an upload is bounded by the media layer's configuration.
    let any_size = usize::MAX;
    vec![
        endpoint(User, Class::Media, create),
        streaming(Place::of::<post::Request>(), User, Class::Media.cost(UPLOAD_COST), upload).body_max(any_size),
        streaming(Place::of::<put::Request>(), User, Class::Media.cost(UPLOAD_COST), complete).body_max(any_size),
        endpoint(UserOrGuest, Class::Read, config),
        streaming(Place::of::<download::Request>(), UserOrGuest, Class::Media, download),
        streaming(Place::of::<download_as::Request>(), UserOrGuest, Class::Media, download_as),
        streaming(Place::of::<thumbnail::Request>(), UserOrGuest, Class::Media, thumbnail),
        streaming(older(&["/_matrix/media/v3/config", "/_matrix/media/r0/config"]), UserOrGuest, Class::Read, older_config),
        streaming(older(&OLDER_DOWNLOAD), Public, Class::Media, older_download),
        streaming(older(&OLDER_DOWNLOAD_AS), Public, Class::Media, older_download_as),
        streaming(older(&OLDER_THUMBNAIL), Public, Class::Media, older_thumbnail),
    ]
}

async fn create(call: Call<Session>, _: create::Request) -> Result<create::Response> {
    may_publish(&call.session)?;
    let server = &call.server;
    let id = MediaId::random(&mut server.rng());
    let created = server.media.create(&server.store, call.session.user, &id, call.now_ms())?;
    let expires_ms = created.durable().await?;
    let mut response = create::Response::new(uri(server, &id));
    response.unused_expires_at = UInt::new(expires_ms).map(MilliSecondsSinceUnixEpoch);
    Ok(response)
}

async fn upload(call: Call<Session>, arrival: Arrival) -> Result<Response> {
    let request: post::Request = arrival.decode()?;
    may_publish(&call.session)?;
    let Call { server, session, .. } = &call;
    server.media.may_upload(&call.snapshot(), session.user, declared(&arrival.parts))?;
    let received = server.media.receive::<_, Error>(declared(&arrival.parts), arrival.body.into_data_stream()).await?;
    let id = MediaId::random(&mut server.rng());
    let about = about(&call, request.content_type, request.filename);
    server.media.upload(&server.store, &id, received, &about).await?;
    Ok(json_response(StatusCode::OK, &json!({ "content_uri": uri(server, &id) })))
}

async fn complete(call: Call<Session>, arrival: Arrival) -> Result<Response> {
    let request: put::Request = arrival.decode()?;
    may_publish(&call.session)?;
    let Call { server, session, .. } = &call;
    let id = local(server, &request.server_name, &request.media_id)?;
    server.media.may_complete(&call.snapshot(), session.user, &id, call.now_ms())?;
    server.media.may_upload(&call.snapshot(), session.user, declared(&arrival.parts))?;
    let received = server.media.receive::<_, Error>(declared(&arrival.parts), arrival.body.into_data_stream()).await?;
    let about = about(&call, request.content_type, request.filename);
    server.media.complete(&server.store, &id, received, &about).await?;
    Ok(json_response(StatusCode::OK, &json!({})))
}

async fn config(call: Call<Session>, _: config::Request) -> Result<Json<Value>> {
    Ok(Json(upload_limit(&call.server)))
}

async fn download(call: Call<Session>, arrival: Arrival) -> Result<Response> {
    let download::Request { server_name, media_id, timeout_ms, .. } = arrival.decode()?;
    let content = content(&call.server, &server_name, &media_id, timeout_ms).await?;
    serve(&call.server, &arrival.parts, &content, content.filename.as_deref()).await
}

async fn download_as(call: Call<Session>, arrival: Arrival) -> Result<Response> {
    let download_as::Request { server_name, media_id, filename, timeout_ms, .. } = arrival.decode()?;
    let content = content(&call.server, &server_name, &media_id, timeout_ms).await?;
    serve(&call.server, &arrival.parts, &content, Some(&filename)).await
}

async fn thumbnail(call: Call<Session>, arrival: Arrival) -> Result<Response> {
    let request: thumbnail::Request = arrival.decode()?;
    let wanted = wanted(request.width, request.height, request.method, request.animated)?;
    let content = content(&call.server, &request.server_name, &request.media_id, request.timeout_ms).await?;
    serve_thumbnail(&call.server, &content, wanted).await
}

/// A deprecated endpoint, which takes what its successor takes.
fn older(paths: &[&'static str]) -> Place {
    Place::at(http::Method::GET, paths)
}

async fn older_config(call: Call<Session>, _: Arrival) -> Result<Response> {
    Ok(json_response(StatusCode::OK, &upload_limit(&call.server)))
}

async fn older_download(call: Call<()>, arrival: Arrival) -> Result<Response> {
    let download::Request { server_name, media_id, .. } = arrival.decode()?;
    let content = unauthenticated(&call.server, &server_name, &media_id).await?;
    serve(&call.server, &arrival.parts, &content, content.filename.as_deref()).await
}

async fn older_download_as(call: Call<()>, arrival: Arrival) -> Result<Response> {
    let download_as::Request { server_name, media_id, filename, .. } = arrival.decode()?;
    let content = unauthenticated(&call.server, &server_name, &media_id).await?;
    serve(&call.server, &arrival.parts, &content, Some(&filename)).await
}

async fn older_thumbnail(call: Call<()>, arrival: Arrival) -> Result<Response> {
    let request: thumbnail::Request = arrival.decode()?;
    let wanted = wanted(request.width, request.height, request.method, request.animated)?;
    let content = unauthenticated(&call.server, &request.server_name, &request.media_id).await?;
    serve_thumbnail(&call.server, &content, wanted).await
}

/// Media from before the freeze. Anything else is not told from what does not exist, and nobody without a token waits for it.
async fn unauthenticated(server: &Server, server_name: &OwnedServerName, media_id: &str) -> Result<Content> {
    let id = local(server, server_name, media_id)?;
    match server.media.content(&server.store, &id, Duration::ZERO, server.now_ms()).await {
        Ok(content) if server.media.is_unauthenticated(&content) => Ok(content),
        Ok(_) | Err(media::Error::NotYetUploaded) => Err(media::Error::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

fn upload_limit(server: &Server) -> Value {
    json!({ "m.upload.size": server.media.config().max_upload_bytes })
}

fn about(call: &Call<Session>, content_type: Option<String>, filename: Option<String>) -> Upload {
    Upload { owner: call.session.user, content_type, filename, now_ms: call.now_ms() }
}

fn declared(parts: &Parts) -> Option<u64> {
    parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn uri(server: &Server, id: &MediaId) -> OwnedMxcUri {
    format!("mxc://{}/{id}", server.name).into()
}

/// The id where it is one of this server's.
fn local(server: &Server, server_name: &OwnedServerName, media_id: &str) -> Result<MediaId> {
    let id = MediaId::parse(media_id).filter(|_| *server_name == server.name);
    Ok(id.ok_or(media::Error::NotFound)?)
}

async fn content(server: &Server, server_name: &OwnedServerName, media_id: &str, wait: Duration) -> Result<Content> {
    let id = MediaId::parse(media_id).ok_or(media::Error::NotFound)?;
    let found = async {
        if *server_name == server.name {
            return Ok(server.media.content(&server.store, &id, wait, server.now_ms()).await?);
        }
        let id = RemoteId { server: server_name.clone(), id };
        Ok::<_, Error>(server.federation.media(&id, wait).await?)
    };
    tokio::select! {
        found = found => found,
        () = server.stopping() => Err(media::Error::NotYetUploaded.into()),
    }
}

pub(crate) fn wanted(width: UInt, height: UInt, method: Option<ruma::media::Method>, animated: Option<bool>) -> Result<Wanted> {
    let method = match method {
        None | Some(ruma::media::Method::Scale) => Method::Scale,
        Some(ruma::media::Method::Crop) => Method::Crop,
        Some(_) => return Err(Error::invalid_param("The method is crop or scale")),
    };
    let side = |side: UInt| u32::try_from(u64::from(side)).unwrap_or(u32::MAX);
    Ok(Wanted::new(side(width), side(height), method, animated.unwrap_or(false))?)
}

async fn serve(server: &Server, parts: &Parts, content: &Content, filename: Option<&str>) -> Result<Response> {
    let asked = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let etag = content.etag();
    let known = asked(header::IF_NONE_MATCH).is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag));
    // A range of what the client believes to be other content would be a piece of the wrong file.
    let range = asked(header::RANGE).filter(|_| asked(header::IF_RANGE).is_none_or(|tag| tag == etag));
    let (status, body, part) = if known {
        (StatusCode::NOT_MODIFIED, None, None)
    } else {
        let range = byte_range(range, content.size)?;
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        (status, Some(server.media.read(content, range.clone()).await?), range)
    };
    let shown = disposition(&content.content_type);
    let mut response = answer(body, &content.content_type, &content_disposition(shown, filename))?;
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, value(&etag)?);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(part) = part {
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes {}-{}/{}", part.start, part.end - 1, content.size))?);
    }
    Ok(response)
}

async fn serve_thumbnail(server: &Arc<Server>, content: &Content, wanted: Wanted) -> Result<Response> {
    let thumbnail = server.media.thumbnail(content, wanted, |job| server.blocking(move || job.run())).await?;
    let extension = thumbnail.content_type.rsplit('/').next().unwrap_or_default();
    let name = content_disposition(Disposition::Inline, Some(&format!("thumbnail.{extension}")));
    answer(Some(thumbnail.body), thumbnail.content_type, &name)
}

/// Bytes with the headers that make them safe.
fn answer(body: Option<media::Body>, content_type: &str, disposition: &str) -> Result<Response> {
    let size = body.as_ref().map(|body| body.size);
    let mut response = Response::new(body.map_or_else(Body::empty, |body| Body::from_stream(body.stream)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(content_type)?);
    headers.insert(header::CONTENT_DISPOSITION, value(disposition)?);
    if let Some(size) = size {
        headers.insert(header::CONTENT_LENGTH, size.into());
    }
    headers.extend(SAFE);
    Ok(response)
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(Error::internal)
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
