//! For who runs the server: is it alive, can it serve, what does it do.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::{
    auth::Public,
    error::{Error, Result, json_response},
    limits::Class,
    route::{Arrival, Call, Place, Route, streaming},
};

/// How long `/ready` waits for the disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        streaming(Place::at(Method::GET, &["/health"]), Public, Class::Free, health),
        streaming(Place::at(Method::GET, &["/ready"]), Public, Class::Free, ready),
    ]
}

pub(crate) fn metrics_routes() -> Vec<Route> {
    vec![streaming(Place::at(Method::GET, &["/metrics"]), Public, Class::Free, metrics)]
}

/// The process answers.
async fn health(_: Call<()>, _: Arrival) -> Result<Response> {
    Ok(json_response(StatusCode::OK, &json!({ "status": "alive" })))
}

/// The server takes requests, and its disk takes writes.
async fn ready(call: Call<()>, _: Arrival) -> Result<Response> {
    if call.server.is_stopping() {
        return Err(Error::unavailable("The server is stopping"));
    }
    // An empty transaction writes nothing, but waits for the next sync of the log.
    let synced = call.server.store.transact::<_, store::Error>(&[], |_| Ok(()));
    let synced = async { synced?.durable().await };
    match tokio::time::timeout(DISK_TIMEOUT, synced).await {
        Ok(Ok(())) => Ok(json_response(StatusCode::OK, &json!({ "status": "ready" }))),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Err(Error::unavailable("The data folder cannot be written: see the log"))
        }
        Err(_) => Err(Error::unavailable("The disk does not answer")),
    }
}

/// Prometheus metrics.
async fn metrics(call: Call<()>, _: Arrival) -> Result<Response> {
    let text = call.server.metrics.encode().map_err(Error::internal)?;
    let mut response = Response::new(Body::from(text));
    let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}
