//! The events that relate to an event ("Relationships API").

use rooms::timeline::Direction;
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::{
        Direction as RumaDirection,
        client::relations::{
            get_relating_events::v1 as of_event, get_relating_events_with_rel_type::v1 as of_rel_type,
            get_relating_events_with_rel_type_and_event_type::v1 as of_event_type,
        },
    },
    serde::Raw,
};
use views::{
    history::Reader,
    relations::{Ask, DEPTH_MAX, Page, page},
};

use super::rooms::{format, room};
use crate::{
    Call, Class, Result, Route,
    auth::{Session, User},
    endpoint,
};

/// Events in a page, where the request does not say.
const LIMIT_DEFAULT: usize = 50;
/// The most events in a page.
const LIMIT_MAX: usize = 500;

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Read, all), endpoint(User, Class::Read, by_rel_type), endpoint(User, Class::Read, by_event_type)]
}

/// What the three requests have in common.
struct Asked {
    room: OwnedRoomId,
    event: OwnedEventId,
    rel_type: Option<String>,
    event_type: Option<String>,
    direction: RumaDirection,
    from: Option<String>,
    to: Option<String>,
    limit: Option<UInt>,
    recurse: bool,
}

fn read(call: &Call<Session>, asked: &Asked) -> Result<Page> {
    let db = call.snapshot();
    let mut reader = Reader::new(&db, room(&db, &asked.room)?, &call.session.user_id, format(call, &db)?)?;
    let limit = asked.limit.map_or(LIMIT_DEFAULT, |limit| usize::try_from(u64::from(limit)).unwrap_or(LIMIT_MAX));
    let ask = Ask {
        rel_type: asked.rel_type.as_deref(),
        event_type: asked.event_type.as_deref(),
        recurse: asked.recurse,
        direction: match asked.direction {
            RumaDirection::Backward => Direction::Backward,
            RumaDirection::Forward => Direction::Forward,
        },
        from: asked.from.as_deref().map(str::parse).transpose()?,
        to: asked.to.as_deref().map(str::parse).transpose()?,
        limit: limit.clamp(1, LIMIT_MAX),
    };
    Ok(page(&mut reader, &asked.event, &ask)?)
}

fn depth(asked: &Asked) -> Option<UInt> {
    asked.recurse.then(|| DEPTH_MAX.into())
}

async fn all(call: Call<Session>, request: of_event::Request) -> Result<of_event::Response> {
    let of_event::Request { room_id: room, event_id: event, from, dir: direction, to, limit, recurse, .. } = request;
    let asked = Asked { room, event, rel_type: None, event_type: None, direction, from, to, limit, recurse };
    let page = read(&call, &asked)?;
    let mut response = of_event::Response::new(page.chunk.into_iter().map(Raw::from_json).collect());
    response.next_batch = page.next.map(|next| next.to_string());
    response.prev_batch = asked.from.clone();
    response.recursion_depth = depth(&asked);
    Ok(response)
}

async fn by_rel_type(call: Call<Session>, request: of_rel_type::Request) -> Result<of_rel_type::Response> {
    let of_rel_type::Request { room_id: room, event_id: event, rel_type, from, dir: direction, to, limit, recurse, .. } = request;
    let rel_type = Some(rel_type.to_string());
    let asked = Asked { room, event, rel_type, event_type: None, direction, from, to, limit, recurse };
    let page = read(&call, &asked)?;
    let mut response = of_rel_type::Response::new(page.chunk.into_iter().map(Raw::from_json).collect());
    response.next_batch = page.next.map(|next| next.to_string());
    response.prev_batch = asked.from.clone();
    response.recursion_depth = depth(&asked);
    Ok(response)
}

async fn by_event_type(call: Call<Session>, request: of_event_type::Request) -> Result<of_event_type::Response> {
    let of_event_type::Request {
        room_id: room,
        event_id: event,
        rel_type,
        event_type,
        from,
        dir: direction,
        to,
        limit,
        recurse,
        ..
    } = request;
    let (rel_type, event_type) = (Some(rel_type.to_string()), Some(event_type.to_string()));
    let asked = Asked { room, event, rel_type, event_type, direction, from, to, limit, recurse };
    let page = read(&call, &asked)?;
    let mut response = of_event_type::Response::new(page.chunk.into_iter().map(Raw::from_json).collect());
    response.next_batch = page.next.map(|next| next.to_string());
    response.prev_batch = asked.from.clone();
    response.recursion_depth = depth(&asked);
    Ok(response)
}
