//! Media of other servers: fetched once for all who want it, and kept by the layer of media ("Content Repository").

use std::{collections::HashMap, time::Duration};

use futures_util::{Stream, stream};
use http::{HeaderMap, header};
use media::{Content, RemoteId};
use parking_lot::Mutex;

use crate::{
    Ask, Body, Error, Federation, Refusal, Result,
    gates::Gates,
    multipart::{Parts, boundary, next_piece},
    path, query,
};

/// How long the whole file may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a server may take to begin, beyond the time that it was asked to wait for an upload.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long media that could not be had is not asked for again.
const PAUSE: Duration = Duration::from_secs(30);
/// Media that could not be had, at most. Beyond it all is forgotten.
const PAUSES_MAX: usize = 10_000;
/// The longest address of a file elsewhere, in bytes.
const LOCATION_MAX: usize = 4096;

/// What is under way, and what was asked for in vain.
#[derive(Default)]
pub(crate) struct Downloads {
    gates: Gates<RemoteId>,
    vain: Mutex<HashMap<RemoteId, Duration>>,
}

/// A file that begins to arrive.
struct File<S> {
    content_type: Option<String>,
    filename: Option<String>,
    bytes: S,
}

impl Federation {
    /// The content of another server's media, from what is kept or from that server. `wait`: how long it may wait for an upload
    /// that is under way there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn media(&self, id: &RemoteId, wait: Duration) -> Result<Content> {
        if let Some(kept) = self.media.remote(&self.store, id, self.now_ms())? {
            return Ok(kept);
        }
        let gate = self.downloads.gates.at(id.clone());
        let _one_at_a_time = gate.lock().await;
        if let Some(kept) = self.media.remote(&self.store, id, self.now_ms())? {
            return Ok(kept);
        }
        let now = self.clock.elapsed();
        if self.downloads.vain.lock().get(id).is_some_and(|until| *until > now) {
            return Err(media::Error::NotFound.into());
        }
        let wait = wait.min(Duration::from_millis(self.media.config().max_wait_ms));
        let fetched = tokio::time::timeout(FILE_TIMEOUT, self.fetch_media(id, wait)).await;
        let fetched = fetched.unwrap_or(Err(Error::TimedOut));
        if let Err(error) = &fetched {
            tracing::debug!(server = %id.server, %error, "a file of another server cannot be had");
            // One that is still to be uploaded may come at any moment.
            if !matches!(error, Error::Refused(refusal) if refusal.errcode == "M_NOT_YET_UPLOADED") {
                let mut vain = self.downloads.vain.lock();
                if vain.len() >= PAUSES_MAX {
                    vain.clear();
                }
                vain.insert(id.clone(), now + PAUSE);
            }
        }
        fetched
    }

    async fn fetch_media(&self, id: &RemoteId, wait: Duration) -> Result<Content> {
        let place = path(&["_matrix", "federation", "v1", "media", "download", id.id.as_str()]);
        let place = query(place, &[("timeout_ms", &wait.as_millis().to_string())]);
        let opening = self.open(&id.server, Ask::get(place));
        let opened = tokio::time::timeout(wait + HEAD_TIMEOUT, opening).await.unwrap_or(Err(Error::TimedOut));
        match opened {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                self.keep_parts(id, &parts.headers, body).await
            }
            // A server from before media needed authentication ("GET media/download").
            Err(Error::Refused(Refusal { status, errcode, .. })) if status == 404 && errcode == "M_UNRECOGNIZED" => {
                self.fetch_old_media(id, wait).await
            }
            Err(error) => Err(error),
        }
    }

    async fn fetch_old_media(&self, id: &RemoteId, wait: Duration) -> Result<Content> {
        let place = path(&["_matrix", "media", "v3", "download", id.server.as_str(), id.id.as_str()]);
        let timeout_ms = wait.as_millis().to_string();
        let place = query(place, &[("allow_remote", "false"), ("timeout_ms", &timeout_ms)]);
        let opening = self.open(&id.server, Ask::get(place));
        let response = tokio::time::timeout(wait + HEAD_TIMEOUT, opening).await.unwrap_or(Err(Error::TimedOut))?;
        let (parts, body) = response.into_parts();
        self.keep(id, file(&parts.headers, pieces(body))).await
    }

    /// The answer is a part of JSON that says nothing yet, and a part that is the file, or says where it is.
    async fn keep_parts(&self, id: &RemoteId, headers: &HeaderMap, body: Body) -> Result<Content> {
        let content_type = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
        let boundary = boundary(&content_type).ok_or_else(|| Error::BadAnswer("no multipart/mixed".to_owned()))?;
        let mut parts = Parts::new(body, &boundary);
        let missing = || Error::BadAnswer("a part is missing".to_owned());
        parts.next_part().await?.ok_or_else(missing)?;
        let headers = parts.next_part().await?.ok_or_else(missing)?;
        match text(&headers, &header::LOCATION) {
            None => self.keep(id, file(&headers, rest(parts))).await,
            Some(location) if location.len() > LOCATION_MAX => Err(Error::BadAnswer("its address is too long".to_owned())),
            Some(location) => {
                let response = self.transport.fetch(&location).await?;
                if !response.status().is_success() {
                    return Err(Error::BadAnswer(format!("the place that it names answers {}", response.status())));
                }
                let (parts, body) = response.into_parts();
                self.keep(id, file(&parts.headers, pieces(body))).await
            }
        }
    }

    async fn keep(&self, id: &RemoteId, file: File<impl Stream<Item = Result<bytes::Bytes>>>) -> Result<Content> {
        let received = self.media.receive::<Error, Error>(None, file.bytes).await?;
        let (content_type, filename) = (file.content_type.as_deref(), file.filename.as_deref());
        let kept = self.media.keep_remote(&self.store, id, received, content_type, filename, self.now_ms()).await?;
        Ok(kept)
    }
}

fn file<S>(headers: &HeaderMap, bytes: S) -> File<S> {
    let filename = text(headers, &header::CONTENT_DISPOSITION).and_then(|disposition| filename(&disposition));
    File { content_type: text(headers, &header::CONTENT_TYPE), filename, bytes }
}

fn text(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The name in a `Content-Disposition`: that in UTF-8 where there is one (RFC 6266).
fn filename(disposition: &str) -> Option<String> {
    let parsed: ruma::http_headers::ContentDisposition = disposition.parse().ok()?;
    parsed.filename
}

fn pieces(body: Body) -> impl Stream<Item = Result<bytes::Bytes>> {
    stream::try_unfold(body, |mut body| async move { Ok(next_piece(&mut body).await?.map(|piece| (piece, body))) })
}

fn rest(parts: Parts) -> impl Stream<Item = Result<bytes::Bytes>> {
    stream::try_unfold(parts, |mut parts| async move { Ok(parts.piece().await?.map(|piece| (piece, parts))) })
}
