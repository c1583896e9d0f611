//! Which software this is ("Server implementation").

use ruma::api::federation::discovery::get_server_version::v1 as version;

use crate::{Call, Class, Result, Route, auth::Public, endpoint};

pub(super) fn routes() -> Vec<Route> {
    vec![endpoint(Public, Class::Free, answer)]
}

async fn answer(_: Call<()>, _: version::Request) -> Result<version::Response> {
    let mut response = version::Response::new();
    let mut server = version::Server::new();
    server.name = Some("Hearth".into());
    server.version = Some(env!("CARGO_PKG_VERSION").into());
    response.server = Some(server);
    Ok(response)
}
