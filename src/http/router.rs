//! From the table of endpoints to a service: one visible list of layers.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts, RawPathParams, Request},
    middleware,
    response::Response,
    routing::{MethodFilter, MethodRouter},
};
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, Predicate, predicate::SizeAbove},
};

use crate::{
    address::{Client, Peer},
    client,
    config::Kind,
    decode, edge,
    edge::{RequestId, RouteName},
    error::{Error, Result},
    federation, health,
    limits::Limit,
    route::{Arrival, Route, serve},
    server::Server,
};

/// Below this a compressed answer is hardly smaller, in bytes.
const COMPRESS_FROM: u16 = 1024;

/// All endpoints of this kind of listener.
#[must_use]
pub fn routes(kind: Kind) -> Vec<Route> {
    match kind {
        Kind::Client => [client::routes(), federation::routes(), health::routes()].into_iter().flatten().collect(),
        Kind::Federation => [federation::routes(), client::for_servers(), health::routes()].into_iter().flatten().collect(),
        Kind::Metrics => [health::routes(), health::metrics_routes()].into_iter().flatten().collect(),
    }
}

/// All endpoints as text, one line for each method of each path: what `endpoints.txt` holds.
#[must_use]
pub fn endpoints() -> String {
    let mut lines = Vec::new();
    for (kind, on) in [(Kind::Client, ""), (Kind::Federation, " federation-listener"), (Kind::Metrics, " metrics-listener")] {
        for route in routes(kind) {
            let Limit { class, cost } = route.limit;
            let body = if route.body_max == usize::MAX { "any".to_owned() } else { route.body_max.to_string() };
            let what = format!("{} {} {class:?}:{cost} {body}{on}", route.place.method, route.auth);
            lines.extend(route.place.paths.iter().map(|(path, _)| format!("{path} {what}\n")));
        }
    }
    lines.sort_unstable();
    lines.concat()
}

/// The service of this kind of listener.
pub fn router(server: &Arc<Server>, kind: Kind) -> Router {
    service(server, routes(kind))
}

/// The service of these endpoints.
pub(crate) fn service(server: &Arc<Server>, routes: Vec<Route>) -> Router {
    let unknown = || async { Error::unrecognized().into_response("") };
    table(server, routes)
        .fallback(unknown)
        .layer(
            CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(COMPRESS_FROM).and(is_text)),
        )
        .layer(middleware::from_fn_with_state(Arc::clone(server), edge::edge))
        // Now, and not with each request, handlers become services with these layers around them.
        .with_state(())
}

/// Images, films and archives are compressed already.
fn is_text(_: http::StatusCode, _: http::Version, headers: &http::HeaderMap, _: &http::Extensions) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.starts_with("application/json") || content_type.starts_with("text/")
}

/// All methods of a path together, so that an undeclared one is told from an unknown path.
fn table(server: &Arc<Server>, routes: Vec<Route>) -> Router {
    let mut paths: BTreeMap<String, MethodRouter> = BTreeMap::new();
    for route in routes.into_iter().map(Arc::new) {
        let Ok(filter) = MethodFilter::try_from(route.place.method.clone()) else { continue };
        for (path, name) in &route.place.paths {
            let (server, route, name) = (Arc::clone(server), Arc::clone(&route), RouteName(name));
            let handler = move |request: Request| answer(server, route, name, request);
            let methods = paths.remove(&numbered(path)).unwrap_or_default();
            paths.insert(numbered(path), methods.on(filter, handler));
        }
    }
    let wrong_method = || async { Error::method_unrecognized().into_response("") };
    let router = Router::new().method_not_allowed_fallback(wrong_method);
    paths.into_iter().fold(router, |router, (path, methods)| router.route(&path, methods.fallback(wrong_method)))
}

/// The template with its variables numbered: types of ruma name the same variable differently.
pub(crate) fn numbered(template: &str) -> String {
    let mut number = 0;
    let segments = template.split('/').map(|segment| {
        if !segment.starts_with('{') {
            return segment.to_owned();
        }
        number += 1;
        format!("{{v{number}}}")
    });
    segments.collect::<Vec<_>>().join("/")
}

async fn answer(server: Arc<Server>, route: Arc<Route>, name: RouteName, request: Request) -> Response {
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let mut response = match arrive(server, request).await {
        Ok(arrival) => serve(&route, arrival, &id.0).await,
        Err(error) => error.into_response(&id.0),
    };
    response.extensions_mut().insert(name);
    response
}

async fn arrive(server: Arc<Server>, request: Request) -> Result<Arrival> {
    let (mut parts, body) = request.into_parts();
    for text in [Some(parts.uri.path()), parts.uri.query()].into_iter().flatten() {
        decode::well_encoded(text)?;
    }
    let args = RawPathParams::from_request_parts(&mut parts, &()).await;
    let args = args.map_err(|error| Error::invalid_param(error.to_string()))?;
    let args = args.iter().map(|(_, value)| value.to_owned()).collect();
    let peer = parts.extensions.get::<Peer>().copied().unwrap_or_default();
    let client = Client::of(peer, &parts.headers, &server.config.trusted_proxies);
    Ok(Arrival { server, client, parts, args, body })
}
