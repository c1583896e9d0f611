//! Receipts and read markers ("Receipts", "Fully read markers").

use rooms::receipts::{self, Kind, Mark, Thread};
use ruma::{
    RoomId,
    api::client::{
        read_marker::set_read_marker::v3 as set_read_marker,
        receipt::create_receipt::v3::{self as create_receipt, ReceiptType},
    },
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    presence,
    rooms::{room, sender},
    with::With,
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Write, receipt), endpoint(User, Class::Write, read_markers)]
}

#[derive(Deserialize)]
struct Body {
    thread_id: Option<Value>,
}

async fn receipt(call: Call<Session>, request: With<create_receipt::Request, Body>) -> Result<create_receipt::Response> {
    let room_id = request.room_arg(0)?;
    let event = request.event_arg(2)?;
    let thread = match &request.body.thread_id {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(Error::invalid_param("thread_id is a string")),
    };
    let read = |kind| Ok::<_, Error>(Mark::Read { kind, thread: Thread::parse(thread)?, event: event.clone() });
    let mark = match ReceiptType::from(request.arg(1)) {
        ReceiptType::Read => read(Kind::Public)?,
        ReceiptType::ReadPrivate => read(Kind::Private)?,
        ReceiptType::FullyRead if thread.is_none() => Mark::FullyRead(event.clone()),
        ReceiptType::FullyRead => return Err(Error::invalid_param("m.fully_read has no thread_id")),
        _ => return Err(Error::invalid_param("There are no receipts of this type")),
    };
    mark_all(&call, &room_id, &[mark]).await?;
    Ok(create_receipt::Response::new())
}

async fn read_markers(call: Call<Session>, request: set_read_marker::Request) -> Result<set_read_marker::Response> {
    let set_read_marker::Request { room_id, fully_read, read_receipt, private_read_receipt, .. } = request;
    let read = |kind| move |event| Mark::Read { kind, thread: Thread::Unthreaded, event };
    let marks: Vec<Mark> = fully_read
        .map(Mark::FullyRead)
        .into_iter()
        .chain(read_receipt.map(read(Kind::Public)))
        .chain(private_read_receipt.map(read(Kind::Private)))
        .collect();
    mark_all(&call, &room_id, &marks).await?;
    Ok(set_read_marker::Response::new())
}

/// Waits for the disk, though a lost receipt would do no harm: a client that syncs next must find it.
async fn mark_all(call: &Call<Session>, room_id: &RoomId, marks: &[Mark]) -> Result<()> {
    let room = room(&call.snapshot(), room_id)?;
    presence::acted(call)?;
    receipts::mark(&call.server.store, &sender(&call.session), room, marks, call.now_ms())?.durable().await?;
    for mark in marks {
        if let Mark::Read { kind: Kind::Public, thread, event } = mark {
            call.server.federation.tell_read(room, &call.session.user_id, event, thread.id())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
