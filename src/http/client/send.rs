//! Sending events and setting state ("Sending events to a room").

use std::convert::identity;

use rooms::{NewEvent, events};
use ruma::{
    MilliSecondsSinceUnixEpoch,
    api::client::{
        message::send_message_event::v3 as send_message, redact::redact_event::v3 as redact_event,
        state::send_state_event::v3 as send_state,
    },
};
use store::RoomNo;

use super::{
    presence,
    rooms::{content, room, sender, txn, whole},
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User, UserOrGuest},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(UserOrGuest, Class::Send, message),
        endpoint(UserOrGuest, Class::Send, state),
        endpoint(User, Class::Send, redact),
    ]
}

async fn message(call: Call<Session>, request: send_message::Request) -> Result<send_message::Response> {
    let mut content = content(&request.body)?;
    let kind = request.event_type.to_string();
    // A redaction may be sent as any other event (MSC4169).
    let redacts = match (kind.as_str(), content.remove("redacts")) {
        ("m.room.redaction", redacts) => redacts.and_then(|id| serde_json::from_value(id).ok()),
        (_, Some(other)) => {
            content.insert("redacts".to_owned(), other);
            None
        }
        (_, None) => None,
    };
    let new = NewEvent { kind, state_key: None, content, redacts, origin_server_ts: said_ts(&call.session, request.timestamp) };
    let txn = Some(txn(&call.session, request.txn_id.as_str()));
    let room = room(&call.snapshot(), &request.room_id)?;
    may_send(&call, room, &new)?;
    let (server, sender) = (&call.server, sender(&call.session));
    let sending = rooms::send::send(&server.store, &server.identity, &sender, room, new, txn, call.now_ms());
    presence::acted(&call)?;
    Ok(send_message::Response::new(server.federation.sent(sending, identity).await?))
}

/// When it happened, by the word of an application service ("Timestamp massaging"). Nobody else is asked.
fn said_ts(session: &Session, timestamp: Option<MilliSecondsSinceUnixEpoch>) -> Option<u64> {
    timestamp.filter(|_| session.appservice.is_some()).map(|timestamp| timestamp.0.into())
}

/// A suspended user redacts their own events, and sends nothing else ("Account suspension").
fn may_send(call: &Call<Session>, room: RoomNo, new: &NewEvent) -> Result<()> {
    if !call.session.suspended {
        return Ok(());
    }
    let redacted = new.redacts.as_ref().map(|id| events::by_id(&call.snapshot(), room, id)).transpose()?.flatten();
    match redacted {
        Some((_, redacted)) if redacted.event.sender == call.session.user_id => Ok(()),
        _ => Err(Error::user_suspended()),
    }
}

async fn state(call: Call<Session>, request: send_state::Request) -> Result<send_state::Response> {
    let kind = request.event_type.to_string();
    let mut content = content(&request.body)?;
    if kind == "m.room.member" {
        // Clients send back what they were told, with a new name, say; but it held for that join alone.
        content.remove("join_authorised_via_users_server");
    }
    let new = NewEvent {
        kind,
        state_key: Some(request.state_key),
        content,
        redacts: None,
        origin_server_ts: said_ts(&call.session, request.timestamp),
    };
    let room = room(&call.snapshot(), &request.room_id)?;
    may_send(&call, room, &new)?;
    if new.kind == "m.room.member" && new.state_key.as_deref() != Some(call.session.user_id.as_str()) {
        whole(&call, room).await?;
    }
    let (server, sender) = (&call.server, sender(&call.session));
    let sending = rooms::send::send(&server.store, &server.identity, &sender, room, new, None, call.now_ms());
    presence::acted(&call)?;
    Ok(send_state::Response::new(server.federation.sent(sending, identity).await?))
}

async fn redact(call: Call<Session>, request: redact_event::Request) -> Result<redact_event::Response> {
    let mut new = NewEvent { kind: "m.room.redaction".to_owned(), redacts: Some(request.event_id), ..NewEvent::default() };
    if let Some(reason) = request.reason {
        new.content.insert("reason".to_owned(), reason.into());
    }
    let txn = Some(txn(&call.session, request.txn_id.as_str()));
    let room = room(&call.snapshot(), &request.room_id)?;
    may_send(&call, room, &new)?;
    let (server, sender) = (&call.server, sender(&call.session));
    let sending = rooms::send::send(&server.store, &server.identity, &sender, room, new, txn, call.now_ms());
    presence::acted(&call)?;
    Ok(redact_event::Response::new(server.federation.sent(sending, identity).await?))
}
