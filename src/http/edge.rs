//! What holds for every response, be it an error, a panic or a pre-flight: a request id, CORS headers, a span, metrics.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use rand::RngExt;
use tracing::Instrument;

use crate::{error::Error, server::Server};

/// The response header that names a request, as the log does.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// "Web Browser Clients" of the client-server API.
const CORS: [(HeaderName, HeaderValue); 3] = [
    (http::header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (http::header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS")),
    (http::header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("X-Requested-With, Content-Type, Authorization")),
];

/// What names a request in the log and to its client.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// The path's template: what logs and metrics call a request, whatever ids and secrets its path and query hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteName(pub(crate) &'static str);

/// The outermost layer.
pub(crate) async fn edge(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let id = RequestId(format!("{:016x}", server.rng().random::<u64>()).into());
    let method = request.method().clone();
    let span = tracing::info_span!("request", id = &*id.0, %method, user = tracing::field::Empty);
    request.extensions_mut().insert(id.clone());
    let (in_flight, began) = (server.metrics.request(), server.elapsed());
    let answering = async { if method == Method::OPTIONS { preflight() } else { guarded(request, next, &id).await } };
    let mut response = answering.instrument(span.clone()).await;
    drop(in_flight);
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response.headers_mut().extend(CORS);
    let route = response.extensions().get::<RouteName>().map_or("unknown", |name| name.0);
    let (status, took) = (response.status(), server.elapsed().saturating_sub(began));
    server.metrics.answered(&method, route, status, took);
    // The metrics count requests; a line for each would be most of the log, and a tenth of the cost of a small one.
    span.in_scope(
        || tracing::debug!(target: "access", route, status = status.as_u16(), ms = took.as_millis() as u64, "answered"),
    );
    response
}

/// No endpoint does anything when asked with `OPTIONS`.
fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A panic is a bug of ours; it costs one request, not the server.
async fn guarded(request: Request, next: Next, id: &RequestId) -> Response {
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Error::internal(format!("panic: {text}")).into_response(&id.0)
    })
}
