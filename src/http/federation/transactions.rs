//! What other servers send ("Transactions").

use federation::{Answer, Transaction};
use ruma::api::federation::transactions::send_transaction_message::v1 as send_transaction;
use serde::Serialize;

use super::{Origin, federated};
use crate::{Call, Class, Json, Result, Route, client::With};

/// The largest transaction: events of 64 KiB and messages to devices.
const BODY_MAX: usize = 16 << 20;

pub(super) fn routes() -> Vec<Route> {
    vec![federated(Class::Federation, send).body_max(BODY_MAX)]
}

#[derive(Serialize)]
struct Pdus {
    pdus: Answer,
}

async fn send(call: Call<Origin>, request: With<send_transaction::Request, Transaction>) -> Result<Json<Pdus>> {
    let origin = &call.session.server_name;
    let id = request.arg(0).to_owned();
    let pdus = call.server.federation.receive_transaction(origin, &id, request.body).await?;
    Ok(Json(Pdus { pdus }))
}
