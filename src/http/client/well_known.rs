//! `/.well-known/matrix/`: where to find this server, and whom to ask for help. What is not configured answers 404.

use http::Method;
use serde_json::{Map, Value, json};

use axum::response::Response;
use http::StatusCode;

use crate::{Arrival, Call, Class, Error, Place, Result, Route, auth::Public, error::json_response, streaming};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        streaming(Place::at(Method::GET, &["/.well-known/matrix/client"]), Public, Class::Free, client),
        streaming(Place::at(Method::GET, &["/.well-known/matrix/support"]), Public, Class::Free, support),
    ]
}

pub(crate) fn for_servers() -> Vec<Route> {
    vec![streaming(Place::at(Method::GET, &["/.well-known/matrix/server"]), Public, Class::Free, server)]
}

async fn client(call: Call<()>, _: Arrival) -> Result<Response> {
    let config = &call.server.config.well_known;
    let base_url = config.client.as_ref().ok_or_else(absent)?;
    let mut body: Map<String, Value> = config.client_extra.clone().into_iter().collect();
    body.insert("m.homeserver".into(), json!({ "base_url": base_url }));
    Ok(json_response(StatusCode::OK, &Value::Object(body)))
}

async fn server(call: Call<()>, _: Arrival) -> Result<Response> {
    let server = call.server.config.well_known.server.as_ref().ok_or_else(absent)?;
    Ok(json_response(StatusCode::OK, &json!({ "m.server": server })))
}

async fn support(call: Call<()>, _: Arrival) -> Result<Response> {
    let config = &call.server.config.well_known;
    let mut body = Map::new();
    if !config.contacts.is_empty() {
        body.insert("contacts".into(), serde_json::to_value(&config.contacts).map_err(Error::internal)?);
    }
    if let Some(page) = &config.support_page {
        body.insert("support_page".into(), page.as_str().into());
    }
    if body.is_empty() { Err(absent()) } else { Ok(json_response(StatusCode::OK, &Value::Object(body))) }
}

fn absent() -> Error {
    Error::not_found("This server tells nothing here")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        config::{Config, Contact, WellKnown},
        testing::Hearth,
    };

    #[tokio::test]
    async fn what_is_configured_is_told() {
        let contact = Contact { role: "m.role.admin".into(), matrix_id: Some("@admin:hearth.test".into()), email_address: None };
        let well_known = WellKnown {
            client: Some("https://matrix.hearth.test".into()),
            client_extra: [("org.example.x".to_owned(), json!([1]))].into(),
            server: Some("matrix.hearth.test:443".into()),
            contacts: vec![contact],
            support_page: None,
        };
        let hearth = Hearth::with(Config { well_known, ..Config::default() });
        let client = hearth.get("/.well-known/matrix/client").await.ok();
        assert_eq!(client, json!({ "m.homeserver": { "base_url": "https://matrix.hearth.test" }, "org.example.x": [1] }));
        let server = hearth.get("/.well-known/matrix/server").await.ok();
        assert_eq!(server, json!({ "m.server": "matrix.hearth.test:443" }));
        let support = hearth.get("/.well-known/matrix/support").await.ok();
        assert_eq!(support, json!({ "contacts": [{ "role": "m.role.admin", "matrix_id": "@admin:hearth.test" }] }));
    }

    #[tokio::test]
    async fn what_is_not_answers_404() {
        let hearth = Hearth::start();
        for document in ["client", "server", "support"] {
            hearth.get(&format!("/.well-known/matrix/{document}")).await.fails(404, "M_NOT_FOUND");
        }
    }
}
