//! `multipart/mixed` as media comes between servers: read as a stream, part by part, within limits (RFC 2046, section 5.1).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Body, Error, Result};

/// The longest boundary, as RFC 2046 has it.
const BOUNDARY_MAX: usize = 70;
/// The most bytes before the first part, and in the headers of one.
const HEAD_MAX: usize = 16 << 10;
/// The longest pause within a body.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The boundary that a `Content-Type` names; `None` where it is no `multipart/mixed`.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    let mut parts = content_type.split(';');
    if !parts.next()?.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let named = parts.filter_map(|part| part.trim().split_once('='));
    let boundary = named.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?.1;
    let boundary = boundary.trim().trim_matches('"');
    let plain = boundary.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !boundary.ends_with(' ');
    ((1..=BOUNDARY_MAX).contains(&boundary.len()) && plain).then(|| boundary.to_owned())
}

/// The next bytes of a body, if it does not pause for too long.
pub(crate) async fn next_piece(body: &mut Body) -> Result<Option<Bytes>> {
    match tokio::time::timeout(PAUSE_MAX, body.next()).await {
        Ok(piece) => Ok(piece.transpose()?),
        Err(_) => Err(Error::TimedOut),
    }
}

/// A body of parts.
pub(crate) struct Parts {
    body: Body,
    /// What has arrived and was not given out.
    buffer: BytesMut,
    /// What ends a part: a line end, two hyphens and the boundary.
    delimiter: Vec<u8>,
}

impl Parts {
    pub(crate) fn new(body: Body, boundary: &str) -> Self {
        // The first delimiter may begin the body: its line end is added.
        Self { body, buffer: BytesMut::from("\r\n"), delimiter: format!("\r\n--{boundary}").into_bytes() }
    }

    /// Goes to the next part, whatever is left of this one. `None` after the last.
    ///
    /// # Errors
    /// [`Error::BadAnswer`], [`Error::Unreachable`], [`Error::TimedOut`].
    pub(crate) async fn next_part(&mut self) -> Result<Option<HeaderMap>> {
        let mut skipped = 0;
        while let Some(piece) = self.piece().await? {
            skipped += piece.len();
            if skipped > HEAD_MAX {
                return Err(wrong("a part is too large"));
            }
        }
        let _ = self.buffer.split_to(self.delimiter.len());
        while self.buffer.len() < 2 {
            self.more().await?;
        }
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        let line_end = self.find_within(b"\r\n").await?;
        let _ = self.buffer.split_to(line_end);
        // Headers begin behind the line end and end with an empty line, which may be all there is of them.
        let end = self.find_within(b"\r\n\r\n").await?;
        let head = self.buffer.split_to(end);
        let _ = self.buffer.split_to(4);
        headers(&head)
    }

    /// The next bytes of this part; `None` at its end.
    ///
    /// # Errors
    /// As [`Parts::next_part`].
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = find(&self.buffer, &self.delimiter) {
                return Ok((at > 0).then(|| self.buffer.split_to(at).freeze()));
            }
            // The end of what has arrived may be the beginning of the delimiter.
            let safe = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                return Ok(Some(self.buffer.split_to(safe).freeze()));
            }
            self.more().await?;
        }
    }

    async fn find_within(&mut self, wanted: &[u8]) -> Result<usize> {
        loop {
            if let Some(at) = find(&self.buffer, wanted) {
                return Ok(at);
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(wrong("the headers of a part are too long"));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        let piece = next_piece(&mut self.body).await?.ok_or_else(|| wrong("it ends within a part"))?;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

fn headers(head: &[u8]) -> Result<Option<HeaderMap>> {
    let head = std::str::from_utf8(head).map_err(|_| wrong("the headers of a part are no text"))?;
    let mut headers = HeaderMap::new();
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a header of a part has no value"))?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong("a header of a part has no name"))?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| wrong("a header of a part is none"))?;
        headers.append(name, value);
    }
    Ok(Some(headers))
}

fn wrong(why: &str) -> Error {
    Error::BadAnswer(format!("no multipart/mixed: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::stream;

    use super::*;

    /// The parts of a text that arrives in pieces of this size: of each a header and the content.
    async fn parts(text: &str, size: usize) -> Result<Vec<(String, String)>> {
        let pieces: Vec<_> = text.as_bytes().chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut parts = Parts::new(stream::iter(pieces).boxed(), "b");
        let mut found = Vec::new();
        while let Some(headers) = parts.next_part().await? {
            let mut content = Vec::new();
            while let Some(piece) = parts.piece().await? {
                content.extend_from_slice(&piece);
            }
            let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
            found.push((kind.to_owned(), String::from_utf8(content).unwrap()));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn parts_are_read_however_they_arrive() {
        let text = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b  \r\ncontent-type:  image/png\r\nX: y\r\n\r\na\r\n--bc\r\n--\r\n\r\n--b--\r\nrest";
        let expected =
            [("application/json".to_owned(), "{}".to_owned()), ("image/png".to_owned(), "a\r\n--bc\r\n--\r\n".to_owned())];
        for size in [1, 2, 3, 7, 1000] {
            let found = parts(&text.replace("--bc", "--x"), size).await.unwrap();
            let expected: Vec<_> = expected.iter().map(|(kind, text)| (kind.clone(), text.replace("--bc", "--x"))).collect();
            assert_eq!(found, expected, "{size}");
        }
        assert_eq!(parts("preamble\r\n--b\r\n\r\n\r\n--b--", 1).await.unwrap(), [(String::new(), String::new())]);
    }

    #[tokio::test]
    async fn t30_what_is_no_multipart_is_refused_within_limits() {
        let long = "x".repeat(20_000);
        for text in [
            String::new(),
            "--b".to_owned(),
            "--b\r\nA: b\r\n\r\nnever ends".to_owned(),
            "--b\r\nA\r\n\r\n\r\n--b--".to_owned(),
            format!("{long}\r\n--b--"),
            format!("--b\r\nA: {long}\r\n\r\n\r\n--b--"),
        ] {
            assert!(parts(&text, 100).await.is_err(), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn boundaries_are_read_strictly() {
        assert_eq!(boundary("multipart/mixed; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("Multipart/Mixed;charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        for content_type in ["multipart/form-data; boundary=a", "multipart/mixed", "multipart/mixed; boundary=", "text/plain"] {
            assert_eq!(boundary(content_type), None, "{content_type}");
        }
        assert_eq!(boundary(&format!("multipart/mixed; boundary={}", "a".repeat(71))), None);
    }
}
