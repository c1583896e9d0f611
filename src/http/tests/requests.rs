//! Authentication, limits, CORS, request ids, compression, panics, unknown paths: what surrounds each handler.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderValue, Method};
use ruma::api::client::account::whoami;
use serde_json::json;
use users::accounts::{self, Kind};

use crate::{
    Arrival, Call, Class, Config, Place, Result, Route,
    auth::{Admin, Auth, EvenLocked, Optional, Public, User, UserOrGuest},
    limits::{self, Rate},
    streaming,
    testing::Hearth,
};

/// A server that serves only these.
pub(super) fn server_of(config: Config, routes: fn() -> Vec<Route>) -> Hearth {
    Hearth::with(config).serving(routes())
}

async fn anything<S: Send>(_: Call<S>, _: Arrival) -> Result<Response> {
    Ok(Response::new(Body::from("{}")))
}

async fn panics(_: Call<()>, _: Arrival) -> Result<Response> {
    panic!("a bug")
}

async fn text(_: Call<()>, _: Arrival) -> Result<Response> {
    let mut response = Response::new(Body::from("long ".repeat(1000)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn image(_: Call<()>, _: Arrival) -> Result<Response> {
    let mut response = Response::new(Body::from("long ".repeat(1000)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("image/png"));
    Ok(response)
}

fn get<A: Auth>(path: &'static str, auth: A, class: Class) -> Route {
    streaming(Place::at(Method::GET, &[path]), auth, class, anything::<A::Session>)
}

fn routes() -> Vec<Route> {
    vec![
        get("/public", Public, Class::Login),
        get("/optional", Optional, Class::Free),
        get("/user", User, Class::Send),
        get("/guest", UserOrGuest, Class::Free),
        get("/logout", EvenLocked, Class::Free),
        get("/admin", Admin, Class::Admin),
        streaming(Place::at(Method::GET, &["/panics"]), Public, Class::Free, panics),
        streaming(Place::at(Method::GET, &["/text"]), Public, Class::Free, text),
        streaming(Place::at(Method::GET, &["/image"]), Public, Class::Free, image),
        streaming(Place::of::<whoami::v3::Request>(), Public, Class::Free, text),
    ]
}

fn unlimited() -> Config {
    Config { limits: limits::Config { enabled: false, ..limits::Config::default() }, ..Config::default() }
}

#[tokio::test]
async fn each_kind_of_caller_may_do_what_the_table_says() {
    let hearth = server_of(unlimited(), routes);
    let (alice, admin) = (hearth.register("alice").await, hearth.register_admin("root").await);
    let guest = hearth.register_as("guest", Kind::Guest, false).await;
    let locked = hearth.register("locked").await;
    accounts::set_locked(&hearth.server.store, locked.user, true).unwrap().durable().await.unwrap();
    for (path, statuses) in [
        ("/public", [200, 200, 200, 200, 200]),
        ("/optional", [200, 200, 200, 200, 401]),
        ("/user", [401, 200, 200, 403, 401]),
        ("/guest", [401, 200, 200, 200, 401]),
        ("/logout", [401, 200, 200, 200, 200]),
        ("/admin", [401, 403, 200, 403, 401]),
    ] {
        let mut told = vec![hearth.get(path).await.status.as_u16()];
        for person in [&alice, &admin, &guest, &locked] {
            told.push(person.get(path).await.status.as_u16());
        }
        assert_eq!(told, statuses, "{path} as nobody, user, administrator, guest, locked");
    }
    let refusal = locked.get("/user").await.fails(401, "M_USER_LOCKED");
    assert_eq!(refusal["soft_logout"], json!(true));
    guest.get("/user").await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
}

#[tokio::test]
async fn tokens_come_by_header_or_query_and_empty_ones_are_none() {
    let hearth = server_of(unlimited(), routes);
    let alice = hearth.register("alice").await;
    assert_eq!(hearth.get(&format!("/user?access_token={}", alice.token)).await.status, 200);
    assert_eq!(hearth.get("/user").header("authorization", &format!("bearer  {}", alice.token)).await.status, 200);
    for header in ["", "Bearer", "Bearer ", "Bearer  ", "Basic YTpi"] {
        hearth.get("/user").header("authorization", header).await.fails(401, "M_MISSING_TOKEN");
    }
    hearth.get("/user?access_token=").await.fails(401, "M_MISSING_TOKEN");
    let unknown = hearth.get("/user").token("nonsense").await.fails(401, "M_UNKNOWN_TOKEN");
    assert_eq!(unknown["soft_logout"], json!(false));
    hearth.get("/user").token(&"x".repeat(5000)).await.fails(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn t41_a_deactivated_account_has_no_tokens() {
    let hearth = server_of(unlimited(), routes);
    let alice = hearth.register("alice").await;
    accounts::deactivate(&hearth.server.store, alice.user, false, &[]).unwrap().durable().await.unwrap();
    for path in ["/user", "/guest", "/logout", "/optional", "/admin"] {
        alice.get(path).await.fails(401, "M_UNKNOWN_TOKEN");
    }
}

#[tokio::test]
async fn limits_are_by_user_or_else_by_address_behind_trusted_proxies() {
    let limits = limits::Config {
        login: Rate { per_second: 1.0, burst: 2 },
        send: Rate { per_second: 1.0, burst: 1 },
        admin: Rate { per_second: 1.0, burst: 1 },
        ..limits::Config::default()
    };
    let hearth = server_of(Config { limits, ..Config::default() }, routes);
    let login = |from: &str| hearth.get("/public").from("127.0.0.1").header("x-forwarded-for", from);
    assert_eq!(login("192.0.2.1").await.status, 200);
    assert_eq!(login("192.0.2.1").await.status, 200);
    let refused = login("192.0.2.1").await;
    let body = refused.fails(429, "M_LIMIT_EXCEEDED");
    assert_eq!((&refused.headers["retry-after"], &body["retry_after_ms"]), (&HeaderValue::from_static("1"), &json!(1000)));
    assert_eq!(login("192.0.2.2").await.status, 200, "another address has its own bucket");
    assert_eq!(hearth.get("/public").await.status, 200, "no address is no failure");
    hearth.clock.advance(1000);
    assert_eq!(login("192.0.2.1").await.status, 200);

    let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
    assert_eq!(alice.get("/user").await.status, 200);
    alice.get("/user").from("192.0.2.77").await.fails(429, "M_LIMIT_EXCEEDED");
    assert_eq!(bob.get("/user").await.status, 200);

    let root = hearth.register_admin("root").await;
    for _ in 0..5 {
        assert_eq!(root.get("/admin").from("127.0.0.1").await.status, 200, "administration on the machine itself is free");
    }
    assert_eq!(root.get("/admin").from("192.0.2.9").await.status, 200);
    root.get("/admin").from("192.0.2.9").await.fails(429, "M_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn every_response_has_cors_headers_and_a_request_id() {
    let hearth = server_of(unlimited(), routes);
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, status) in [
        (Method::GET, "/public", 200),
        (Method::HEAD, "/public", 200),
        (Method::GET, "/user", 401),
        (Method::GET, "/nowhere", 404),
        (Method::GET, "/_matrix/client/v3/nowhere", 404),
        (Method::PUT, "/public", 405),
        (Method::GET, "/panics", 500),
        (Method::OPTIONS, "/user", 204),
        (Method::OPTIONS, "/nowhere", 204),
    ] {
        let answer = hearth.ask(method.clone(), path).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(answer.headers["access-control-allow-methods"], "GET, POST, PUT, DELETE, OPTIONS");
        assert_eq!(answer.headers["access-control-allow-headers"], "X-Requested-With, Content-Type, Authorization");
        ids.insert(answer.headers["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 9, "each request has an id of its own");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_unrecognized() {
    let hearth = server_of(unlimited(), routes);
    hearth.get("/").await.fails(404, "M_UNRECOGNIZED");
    hearth.get("/_matrix/client/v3/whatever").await.fails(404, "M_UNRECOGNIZED");
    hearth.ask(Method::DELETE, "/public").await.fails(405, "M_UNRECOGNIZED");
    hearth.ask(Method::POST, "/_matrix/client/r0/account/whoami").await.fails(405, "M_UNRECOGNIZED");
    hearth.ask(Method::from_bytes(b"BREW").unwrap(), "/public").await.fails(405, "M_UNRECOGNIZED");
    assert_eq!(hearth.get("/_matrix/client/r0/account/whoami").await.status, 200, "deprecated paths are served too");
}

#[tokio::test]
async fn a_panic_costs_one_request_and_is_named_by_its_id() {
    let hearth = server_of(unlimited(), routes);
    let answer = hearth.get("/panics").await;
    let body = answer.fails(500, "M_UNKNOWN");
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert!(body["error"].as_str().unwrap().contains(id) && !body["error"].as_str().unwrap().contains("a bug"));
    assert_eq!(hearth.get("/public").await.status, 200);
}

#[tokio::test]
async fn long_json_is_compressed_and_images_are_not() {
    let hearth = server_of(unlimited(), routes);
    for encoding in ["gzip", "zstd"] {
        let answer = hearth.get("/text").header("accept-encoding", encoding).await;
        assert_eq!(answer.headers["content-encoding"], encoding);
        assert!(answer.body.len() < 500, "{}", answer.body.len());
    }
    for (path, encoding) in [("/text", "identity"), ("/image", "gzip"), ("/public", "gzip")] {
        let answer = hearth.get(path).header("accept-encoding", encoding).await;
        assert!(!answer.headers.contains_key("content-encoding"), "{path}");
    }
}

#[tokio::test]
async fn metrics_name_routes_and_not_paths() {
    let hearth = server_of(unlimited(), routes);
    hearth.get("/public").await;
    hearth.get("/user?access_token=secret").await;
    hearth.get("/no/such/secret").await;
    let metrics = String::from_utf8(hearth.metrics("/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"hearth_http_requests_total{method="GET",route="/public",status="2xx"} 1"#,
        r#"hearth_http_requests_total{method="GET",route="/user",status="4xx"} 1"#,
        r#"hearth_http_requests_total{method="GET",route="unknown",status="4xx"} 1"#,
        r#"hearth_http_request_seconds_count{method="GET",route="/public"} 1"#,
        "hearth_http_requests_in_flight 1",
        "hearth_store_failed 0",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert!(metrics.contains("hearth_process_resident_bytes") && !metrics.contains("secret"), "{metrics}");
    hearth.get("/metrics").await.fails(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn readiness_ends_with_the_stop_and_liveness_does_not() {
    let hearth = Hearth::start();
    assert_eq!(hearth.get("/ready").await.ok(), json!({ "status": "ready" }));
    hearth.server.stop();
    hearth.get("/ready").await.fails(503, "M_UNKNOWN");
    assert_eq!(hearth.get("/health").await.ok(), json!({ "status": "alive" }));
}

#[tokio::test]
async fn two_servers_know_nothing_of_each_other() {
    let (one, two) = (Hearth::named("one.test"), Hearth::named("two.test"));
    let alice = one.register("alice").await;
    assert_eq!(alice.get("/_matrix/client/v3/capabilities").await.status, 200);
    two.get("/_matrix/client/v3/capabilities").token(&alice.token).await.fails(401, "M_UNKNOWN_TOKEN");
    assert!(!Arc::ptr_eq(&one.server, &two.server));
    // The same name on each, at the same time: rooms, history, counters, storage and life are each server's own.
    let namesake = two.register("alice").await;
    let create = |who: crate::testing::Person| async move {
        let room = who.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
        room["room_id"].as_str().unwrap().to_owned()
    };
    let (here, there) = tokio::join!(create(alice.clone()), create(namesake.clone()));
    assert_ne!(here, there);
    let state = |room: &str| format!("/_matrix/client/v3/rooms/{room}/state");
    alice.get(&state(&there)).await.fails(403, "M_FORBIDDEN");
    namesake.get(&state(&here)).await.fails(403, "M_FORBIDDEN");
    create(alice.clone()).await;
    for (hearth, rooms) in [(&one, 2), (&two, 1)] {
        let metrics = hearth.metrics("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let counted = text.lines().find(|line| line.starts_with("hearth_http_requests_total") && line.contains("createRoom"));
        assert!(counted.is_some_and(|line| line.ends_with(&format!(" {rooms}"))), "{text}");
    }
    let dump = |hearth: &Hearth| hearth.server.store.dump(&crate::testing::tables()).unwrap();
    assert!(!dump(&one).contains("two.test") && !dump(&two).contains("one.test"));
    one.server.stop();
    assert_eq!((one.get("/ready").await.status.as_u16(), two.get("/ready").await.status.as_u16()), (503, 200));
}
