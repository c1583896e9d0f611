//! Plain pages of the web, at URLs that other servers name: over HTTPS, after few redirects, each of which is checked.

use futures_util::StreamExt as _;
use http::{HeaderMap, Response, header};
use reqwest::{Client, Url};

use super::{addresses::may_call, body, carried};
use crate::{Body, Network, TransportError};

/// The most redirects.
const REDIRECTS_MAX: usize = 5;

/// Gets pages.
pub(super) struct Pages {
    client: Client,
    allowed: Vec<Network>,
}

/// Why there is no page.
#[derive(Debug)]
pub(super) enum PageError {
    /// The network.
    Transport(TransportError),
    /// The URL, or one that it redirects to, is none that may be asked.
    Nowhere(&'static str),
}

impl Pages {
    pub(super) fn new(client: Client, allowed: Vec<Network>) -> Self {
        Self { client, allowed }
    }

    /// The answer at a URL, or where it redirects to, whatever its status.
    pub(super) async fn get(&self, url: &str) -> Result<Response<Body>, PageError> {
        let mut url = Url::parse(url).map_err(|_| PageError::Nowhere("it is no URL"))?;
        for _ in 0..=REDIRECTS_MAX {
            self.check(&url)?;
            let response = self.client.get(url.clone()).send().await;
            let response = response.map_err(|error| PageError::Transport(carried(&error)))?;
            let (status, headers) = (response.status(), response.headers().clone());
            if status.is_redirection() {
                url = redirected(&url, &headers)?;
                continue;
            }
            let mut answer = Response::new(body(response.bytes_stream().boxed()));
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            return Ok(answer);
        }
        Err(PageError::Nowhere("it redirects without end"))
    }

    /// Of addresses the client does not ask the resolver.
    fn check(&self, url: &Url) -> Result<(), PageError> {
        if url.scheme() != "https" {
            return Err(PageError::Nowhere("it is not HTTPS"));
        }
        let host = url.host_str().ok_or(PageError::Nowhere("it has no host"))?;
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) if !may_call(address, &self.allowed) => {
                Err(PageError::Transport(TransportError::ForbiddenAddress(address)))
            }
            // A name is checked once it is resolved.
            _ => Ok(()),
        }
    }
}

fn redirected(url: &Url, headers: &HeaderMap) -> Result<Url, PageError> {
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location = location.and_then(|location| url.join(location).ok());
    location.ok_or(PageError::Nowhere("it redirects to nowhere"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn redirects_are_relative_or_whole() {
        let from = Url::parse("https://a.test/.well-known/matrix/server").unwrap();
        for (location, to) in [("/x", Some("https://a.test/x")), ("http://b.test/", Some("http://b.test/")), ("https://", None)] {
            let headers = [(header::LOCATION, location.parse().unwrap())].into_iter().collect();
            assert_eq!(redirected(&from, &headers).ok().map(String::from).as_deref(), to, "{location}");
        }
    }
}
