//! What can be wrong with a request's bytes, and which errcode says so.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use ruma::{
    OwnedRoomId,
    api::{auth_scheme::NoAuthentication, client::state::send_state_event, request, response},
    metadata,
};
use serde_json::{Value, json};

use super::requests::server_of;
use crate::{
    Arrival, BODY_MAX, Call, Class, Config, Json, Place, Result, Route, auth::Public, endpoint, streaming, testing::Ask,
};

metadata! {
    method: POST,
    rate_limited: false,
    authentication: NoAuthentication,
    path: "/test/{room_id}",
}

/// A request with something of everything.
#[request]
pub struct Request {
    #[ruma_api(path)]
    pub room_id: OwnedRoomId,
    #[ruma_api(query)]
    pub limit: u64,
    pub text: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub more: Value,
}

/// Says what was understood.
#[response]
pub struct Response {
    pub room_id: OwnedRoomId,
    pub text: String,
}

async fn echo(_: Call<()>, Request { room_id, limit, text, more }: Request) -> Result<Response> {
    Ok(Response { room_id, text: format!("{text} {limit} {more}") })
}

async fn state(_: Call<()>, request: send_state_event::v3::Request) -> Result<Json<Value>> {
    Ok(Json(json!({ "type": request.event_type.to_string(), "key": request.state_key })))
}

async fn count(_: Call<()>, arrival: Arrival) -> Result<axum::response::Response> {
    let bytes = http_body_util::BodyExt::collect(arrival.body).await?.to_bytes();
    Ok(axum::response::Response::new(Body::from(bytes.len().to_string())))
}

fn routes() -> Vec<Route> {
    vec![
        endpoint(Public, Class::Free, echo),
        endpoint(Public, Class::Free, state),
        streaming(Place::at(Method::PUT, &["/count"]), Public, Class::Free, count).body_max(1000),
    ]
}

fn post(path: &str, body: impl Into<Body>) -> Ask {
    server_of(Config::default(), routes).ask(Method::POST, path).body(body)
}

#[tokio::test]
async fn a_request_is_understood() {
    let answer = post("/test/!r%3Ax.test?limit=3", r#" {"text":"höre","more":[1.5]}"#).await;
    assert_eq!(answer.ok(), json!({ "room_id": "!r:x.test", "text": "höre 3 [1.5]" }));
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn each_wrong_request_has_its_errcode() {
    let deep = format!(r#"{{"text":"x","more":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let good = "/test/!r:x.test?limit=3";
    for (path, body, errcode) in [
        (good, "{", "M_NOT_JSON"),
        (good, "hello", "M_NOT_JSON"),
        (good, r#"{"text":"x"} trailing"#, "M_NOT_JSON"),
        (good, "\u{feff}{}", "M_NOT_JSON"),
        (good, r#"{"text":"\ud800"}"#, "M_NOT_JSON"),
        (good, "[]", "M_BAD_JSON"),
        (good, "null", "M_BAD_JSON"),
        (good, r#""text""#, "M_BAD_JSON"),
        (good, r#"{"text":7}"#, "M_BAD_JSON"),
        (good, r#"{"text":"a","text":"b"}"#, "M_BAD_JSON"),
        (good, &deep, "M_BAD_JSON"),
        (good, "{}", "M_MISSING_PARAM"),
        (good, "", "M_MISSING_PARAM"),
        ("/test/!r:x.test", r#"{"text":"x"}"#, "M_MISSING_PARAM"),
        ("/test/!r:x.test?limit=-1", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/!r:x.test?limit=many", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/!r:x.test?limit=1&limit=2", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/@r:x.test?limit=1", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/!r%zz:x.test?limit=1", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/!r%:x.test?limit=1", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/!r%ff:x.test?limit=1", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
        ("/test/!r:x.test?limit=1&x=%f", r#"{"text":"x"}"#, "M_INVALID_PARAM"),
    ] {
        post(path, body.to_owned()).await.fails(400, errcode);
    }
    post(good, Bytes::from_static(b"{\"text\":\"\xff\"}")).await.fails(400, "M_NOT_JSON");
}

#[tokio::test]
async fn large_bodies_are_refused_before_and_while_they_arrive() {
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(BODY_MAX));
    post("/test/!r:x.test?limit=3", large.clone()).await.fails(413, "M_TOO_LARGE");
    let declared = post("/test/!r:x.test?limit=3", "").header("content-length", "99999999");
    declared.await.fails(413, "M_TOO_LARGE");
    let hearth = server_of(Config::default(), routes);
    let put = |bytes: usize| hearth.ask(Method::PUT, "/count").body("x".repeat(bytes));
    assert_eq!(put(1000).await.body, "1000");
    put(1001).await.fails(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn slow_bodies_are_cut_off_and_streams_may_take_their_time() {
    let hearth = server_of(Config { body_timeout_ms: 300, ..Config::default() }, routes);
    let drip = |drops: u32| {
        Body::from_stream(futures_util::stream::unfold(0, move |n| async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            (n < drops).then_some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), n + 1))
        }))
    };
    hearth.ask(Method::POST, "/test/!r:x.test?limit=3").body(drip(u32::MAX)).await.fails(408, "M_UNKNOWN");
    let silent = Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>());
    hearth.ask(Method::PUT, "/count").body(silent).await.fails(408, "M_UNKNOWN");
    assert_eq!(hearth.ask(Method::PUT, "/count").body(drip(60)).await.body, "60");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_clients_fault() {
    let broken = Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]));
    post("/test/!r:x.test?limit=3", broken).await.fails(400, "M_UNKNOWN");
}

#[tokio::test]
async fn an_empty_state_key_may_be_left_out() {
    let hearth = server_of(Config::default(), routes);
    let put = |path: &str| hearth.ask(Method::PUT, &format!("/_matrix/client/v3/rooms/!r:x.test/state/{path}")).json(&json!({}));
    assert_eq!(put("m.room.name").await.ok(), json!({ "type": "m.room.name", "key": "" }));
    assert_eq!(put("m.room.name/").await.ok(), json!({ "type": "m.room.name", "key": "" }));
    assert_eq!(put("m.room.member/@a%2Fb:x.test").await.ok(), json!({ "type": "m.room.member", "key": "@a/b:x.test" }));
}
