//! Invitations of people by an address ("Third-party invites").

use federation::third_party::{Bound, Exchange};
use ruma::api::federation::thirdparty::{bind_callback::v1 as bind_callback, exchange_invite::v1 as exchange_invite};
use serde_json::{Value, json};

use super::{Origin, federated};
use crate::{Call, Class, Error, Json, Result, Route, auth::Public, client::With, endpoint};

pub(super) fn routes() -> Vec<Route> {
    vec![
        federated(Class::Federation.cost(10), exchange),
        // Anybody may say that they are an identity server: what counts is what is signed.
        endpoint(Public, Class::Federation.cost(50), bound),
    ]
}

async fn exchange(call: Call<Origin>, request: With<exchange_invite::Request, Exchange>) -> Result<Json<Value>> {
    let room = request.room_arg(0)?;
    call.server.federation.exchange_invitation(&call.session.server_name, &room, request.body).await?;
    Ok(Json(json!({})))
}

async fn bound(call: Call<()>, request: With<bind_callback::Request, Bound>) -> Result<Json<Value>> {
    if !call.server.federation.config.enabled {
        return Err(Error::federation_disabled());
    }
    call.server.federation.bound(request.body).await?;
    Ok(Json(json!({})))
}
