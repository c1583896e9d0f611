//! Aliases and the room directory ("Room aliases", "Published room directory").

use federation::directory::Named;
use federation::public_rooms::{RoomsPage, RoomsWanted};
use protocol::power_levels::{Power, PowerLevels};
use rooms::{Error as Rooms, aliases, directory, members, state};
use ruma::{
    OwnedServerName, RoomAliasId, UInt,
    api::client::{
        alias::{create_alias::v3 as create_alias, delete_alias::v3 as delete_alias, get_alias::v3 as get_alias},
        directory::{
            get_public_rooms::v3 as public_rooms, get_public_rooms_filtered::v3 as search_rooms,
            get_room_visibility::v3 as get_visibility, set_room_visibility::v3 as set_visibility,
        },
        room::{Visibility, aliases::v3 as room_aliases, get_summary::v1 as get_summary},
    },
    directory::{Filter, PublicRoomsChunk},
};
use store::{RoomNo, Snapshot};
use views::directory::Summary;

use super::{
    rooms::{known_room, room, room_or_alias, sender},
    with::may_publish,
};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Optional, Public, Session, User},
    endpoint,
    server::Server,
};

/// Rooms in a page of the directory, where the request does not say.
const LIMIT_DEFAULT: usize = 100;
/// The most rooms in a page of the directory.
const LIMIT_MAX: usize = 1000;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(Public, Class::Read, resolve),
        endpoint(User, Class::Write, name),
        endpoint(User, Class::Write, unname),
        endpoint(User, Class::Read, names),
        endpoint(Public, Class::Read, visibility),
        endpoint(User, Class::Write, publish),
        endpoint(Public, Class::Search, list),
        endpoint(User, Class::Search, search),
        endpoint(Optional, Class::Read, summary),
    ]
}

async fn resolve(call: Call<()>, request: get_alias::Request) -> Result<get_alias::Response> {
    let Named { room_id, servers } = call.server.federation.resolve_alias(&request.room_alias).await?;
    Ok(get_alias::Response::new(room_id, servers))
}

async fn name(call: Call<Session>, request: create_alias::Request) -> Result<create_alias::Response> {
    may_publish(&call.session)?;
    let db = call.snapshot();
    check_ours(&call.server, &request.room_alias)?;
    call.server.users.appservices.check_alias(&request.room_alias, call.session.appservice.as_deref())?;
    let room = room(&db, &request.room_id)?;
    if !members::is_joined(&db, call.session.user, room)? {
        return Err(Error::forbidden("You are not in this room"));
    }
    match aliases::create(&call.server.store, &request.room_alias, room, call.session.user) {
        Ok(created) => created.durable().await?,
        Err(Rooms::AliasInUse) => return Err(Error::alias_exists()),
        Err(error) => return Err(error.into()),
    }
    Ok(create_alias::Response::new())
}

fn check_ours(server: &Server, alias: &RoomAliasId) -> Result<()> {
    if alias.server_name() == server.name { Ok(()) } else { Err(Error::invalid_param("The alias is of another server")) }
}

async fn unname(call: Call<Session>, request: delete_alias::Request) -> Result<delete_alias::Response> {
    may_publish(&call.session)?;
    let db = call.snapshot();
    let appservice = call.session.appservice.as_deref();
    call.server.users.appservices.check_alias(&request.room_alias, appservice)?;
    let (room, maker) = aliases::resolve(&db, &request.room_alias)?.ok_or(Rooms::NotFound("the alias"))?;
    let is_theirs = appservice.is_some_and(|appservice| appservice.covers_alias(&request.room_alias));
    if maker != call.session.user && !is_theirs && !call.session.admin && !may_name(&db, room, &call.session)? {
        return Err(Error::forbidden("Only who made the alias, or who may change the room's aliases, deletes it"));
    }
    let server = &call.server;
    let deleted =
        aliases::delete(&server.store, &server.identity, &sender(&call.session), &request.room_alias, room, call.now_ms())?;
    deleted.durable().await?;
    Ok(delete_alias::Response::new())
}

/// Whether a member has the power to set the room's canonical alias.
fn may_name(db: &Snapshot, room: RoomNo, session: &Session) -> Result<bool> {
    if !members::is_joined(db, session.user, room)? {
        return Ok(false);
    }
    let version = rooms::numbers::room(db, room)?.version()?;
    let root = rooms::head(db, room)?.state;
    let event = |kind| state::event(db, room, root, kind, "");
    let (create, levels) = (event("m.room.create")?, event("m.room.power_levels")?);
    let levels =
        PowerLevels::new(version, create.as_ref().map(|create| &*create.event), levels.as_ref().map(|levels| &*levels.event));
    let Ok(levels) = levels else { return Ok(false) };
    let needed = levels.event("m.room.canonical_alias", true);
    Ok(levels.user(&session.user_id).is_ok_and(|power| needed.is_ok_and(|needed| power >= Power::Level(needed))))
}

async fn names(call: Call<Session>, request: room_aliases::Request) -> Result<room_aliases::Response> {
    let db = call.snapshot();
    let room = room(&db, &request.room_id)?;
    let root = rooms::head(&db, room)?.state;
    let readable = rooms::visibility::history_visibility(&db, room, root)? == rooms::visibility::HistoryVisibility::WorldReadable;
    if !readable && !members::is_joined(&db, call.session.user, room)? {
        return Err(Error::forbidden("You are not in this room"));
    }
    Ok(room_aliases::Response::new(aliases::of_room(&db, room)?))
}

async fn visibility(call: Call<()>, request: get_visibility::Request) -> Result<get_visibility::Response> {
    let db = call.snapshot();
    let public = directory::is_published(&db, known_room(&db, &request.room_id)?)?;
    Ok(get_visibility::Response::new(if public { Visibility::Public } else { Visibility::Private }))
}

async fn publish(call: Call<Session>, request: set_visibility::Request) -> Result<set_visibility::Response> {
    may_publish(&call.session)?;
    let db = call.snapshot();
    let room = known_room(&db, &request.room_id)?;
    if !call.session.admin && !may_name(&db, room, &call.session)? {
        return Err(Error::forbidden("Only who may change the room's aliases changes its place in the directory"));
    }
    let public = request.visibility == Visibility::Public;
    directory::set(&call.server.store, room, public)?.durable().await?;
    Ok(set_visibility::Response::new())
}

/// Part of a directory, with the tokens of what is behind and before it.
pub(crate) struct Found {
    pub(crate) rooms: Vec<PublicRoomsChunk>,
    pub(crate) total: usize,
    pub(crate) next: Option<String>,
    pub(crate) previous: Option<String>,
}

/// A page of this server's directory.
pub(crate) fn page_of_rooms(db: &Snapshot, filter: &Filter, limit: Option<UInt>, since: Option<&str>) -> Result<Found> {
    let skip = match since {
        None => 0,
        Some(token) => token
            .strip_prefix('p')
            .and_then(|skip| skip.parse().ok())
            .ok_or_else(|| Error::invalid_param("The token is none of this server's"))?,
    };
    let limit = rooms_of_page(limit);
    let page = views::directory::page(db, filter, skip, limit)?;
    let behind = skip.saturating_add(page.rooms.len());
    let next = (behind < page.total && !page.rooms.is_empty()).then(|| format!("p{behind}"));
    let previous = (skip > 0).then(|| format!("p{}", skip.saturating_sub(limit)));
    Ok(Found { rooms: page.rooms, total: page.total, next, previous })
}

fn rooms_of_page(limit: Option<UInt>) -> usize {
    limit.map_or(LIMIT_DEFAULT, |limit| usize::try_from(u64::from(limit)).unwrap_or(LIMIT_MAX)).min(LIMIT_MAX)
}

/// What both requests for the directory ask.
struct Asked<'a> {
    server: Option<&'a OwnedServerName>,
    limit: Option<UInt>,
    since: Option<&'a str>,
    filter: &'a Filter,
}

/// A page of this server's directory, or of the server's that is asked for.
async fn page(server: &Server, asked: &Asked<'_>) -> Result<Found> {
    let Some(other) = asked.server.filter(|wanted| **wanted != server.name) else {
        return page_of_rooms(&server.snapshot(), asked.filter, asked.limit, asked.since);
    };
    let wanted = RoomsWanted { limit: rooms_of_page(asked.limit), since: asked.since, filter: asked.filter };
    let RoomsPage { chunk, next_batch, prev_batch, total } = server.federation.public_rooms(other, wanted).await?;
    let total = total.and_then(|total| usize::try_from(total).ok()).unwrap_or(chunk.len());
    Ok(Found { rooms: chunk, total, next: next_batch, previous: prev_batch })
}

async fn summary(call: Call<Option<Session>>, request: get_summary::Request) -> Result<Json<Summary>> {
    let db = call.snapshot();
    let room = room_or_alias(&db, &request.room_id_or_alias)?;
    let user = call.session.as_ref().map(|session| session.user);
    // Whether there is a room that they may not know of is not told.
    if !views::directory::is_told(&db, room, user)? {
        return Err(Rooms::UnknownRoom.into());
    }
    Ok(Json(views::directory::detailed(&db, room, user)?))
}

async fn list(call: Call<()>, request: public_rooms::Request) -> Result<public_rooms::Response> {
    let filter = Filter::new();
    let asked = Asked { server: request.server.as_ref(), limit: request.limit, since: request.since.as_deref(), filter: &filter };
    let Found { rooms, total, next, previous } = page(&call.server, &asked).await?;
    let mut response = public_rooms::Response::new(rooms);
    response.total_room_count_estimate = u32::try_from(total).ok().map(Into::into);
    response.next_batch = next;
    response.prev_batch = previous;
    Ok(response)
}

async fn search(call: Call<Session>, request: search_rooms::Request) -> Result<search_rooms::Response> {
    let asked =
        Asked { server: request.server.as_ref(), limit: request.limit, since: request.since.as_deref(), filter: &request.filter };
    let Found { rooms, total, next, previous } = page(&call.server, &asked).await?;
    let mut response = search_rooms::Response::new();
    response.total_room_count_estimate = u32::try_from(total).ok().map(Into::into);
    response.chunk = rooms;
    response.next_batch = next;
    response.prev_batch = previous;
    Ok(response)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
