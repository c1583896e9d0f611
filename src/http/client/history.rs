//! A room's past and its state ("Getting events for a room").

use std::collections::BTreeMap;

use federation::history::Backfilled;
use rooms::{
    Error as Rooms, Pos, state,
    timeline::{Direction, first_gap, gap},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomId, UInt, UserId,
    api::{
        Direction as RumaDirection,
        client::{
            context::get_context::v3 as get_context,
            filter::RoomEventFilter,
            membership::{get_member_events::v3 as get_members, joined_members::v3 as joined_members},
            message::get_message_events::v3 as get_messages,
            room::{get_event_by_timestamp::v1 as get_event_by_time, get_room_event::v3 as get_event},
            state::{get_state_event_for_key::v3 as get_state_event, get_state_events::v3 as get_state},
        },
    },
    events::StateEventType,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::Snapshot;
use views::{
    filter,
    history::{Ask, Reader},
    token::Point,
};

use super::{
    rooms::{format, room, whole},
    with::{Nothing, With},
};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User, UserOrGuest},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(UserOrGuest, Class::Read, messages),
        endpoint(UserOrGuest, Class::Read, context),
        endpoint(UserOrGuest, Class::Read, event),
        endpoint(User, Class::Read, event_by_time),
        endpoint(UserOrGuest, Class::Read, whole_state),
        endpoint(UserOrGuest, Class::Read, state_event),
        endpoint(UserOrGuest, Class::Read, members),
        endpoint(User, Class::Read, joined),
    ]
}

pub(super) fn reader<'a>(call: &'a Call<Session>, db: &'a Snapshot, room_id: &RoomId) -> Result<Reader<'a>> {
    Ok(Reader::new(db, room(db, room_id)?, &call.session.user_id, format(call, db)?)?)
}

fn point(token: Option<&str>) -> Result<Option<Point>> {
    Ok(token.map(str::parse).transpose()?)
}

fn direction(asked: RumaDirection) -> Direction {
    match asked {
        RumaDirection::Backward => Direction::Backward,
        RumaDirection::Forward => Direction::Forward,
    }
}

fn raws<T>(written: Vec<Box<RawValue>>) -> Vec<Raw<T>> {
    written.into_iter().map(Raw::from_json).collect()
}

/// How often one request fetches older events from other servers.
const BACKFILLS_MAX: usize = 3;

/// How many events are told where the request does not say.
const MESSAGES_DEFAULT: u32 = 10;

/// What is asked of `/messages`. A reader who may not read is told so whatever else they got wrong.
#[derive(Deserialize)]
struct MessagesQuery {
    from: Option<String>,
    to: Option<String>,
    dir: Option<RumaDirection>,
    limit: Option<UInt>,
    #[serde(default, with = "ruma::serde::json_string")]
    filter: RoomEventFilter,
}

async fn messages(call: Call<Session>, request: With<get_messages::Request, Nothing>) -> Result<get_messages::Response> {
    let room_id = request.room_arg(0)?;
    let query = match request.query() {
        Ok(query) => query,
        Err(wrong) => return reader(&call, &call.snapshot(), &room_id).and(Err(wrong)),
    };
    for _ in 0..BACKFILLS_MAX {
        let (mut response, lacking) = messages_at(&call, &room_id, &query, call.snapshot())?;
        let Some(gap) = lacking else { return Ok(response) };
        match call.server.federation.backfill(&room_id, gap).await? {
            Backfilled::More => {}
            Backfilled::Nothing => return Ok(response),
            Backfilled::Unanswered => {
                if response.end.is_none() && query.to.is_none() {
                    response.end = later(&call, &room_id)?;
                }
                return Ok(response);
            }
        }
    }
    Ok(messages_at(&call, &room_id, &query, call.snapshot())?.0)
}

/// Where to go on another time, where others have what is before the first event that is here and do not answer now: without an end clients take
/// that for the room's first.
fn later(call: &Call<Session>, room_id: &RoomId) -> Result<Option<String>> {
    let db = call.snapshot();
    Ok(first_gap(&db, room(&db, room_id)?)?.map(|first| Point::before(first).to_string()))
}

/// The answer from what is here, and the place in it where events are missing that other servers have.
fn messages_at(
    call: &Call<Session>,
    room_id: &RoomId,
    request: &MessagesQuery,
    db: Snapshot,
) -> Result<(get_messages::Response, Option<Pos>)> {
    let mut reader = reader(call, &db, room_id)?;
    let limit = usize::try_from(u64::from(request.limit.unwrap_or(MESSAGES_DEFAULT.into()))).unwrap_or(filter::LIMIT_MAX);
    let direction = direction(request.dir.ok_or_else(|| Error::missing_param("The direction `dir` is missing"))?);
    let page = reader.page(&Ask {
        direction,
        from: point(request.from.as_deref())?,
        to: point(request.to.as_deref())?,
        limit: filter::limit(&request.filter, filter::LIMIT_MAX).min(limit),
        filter: &request.filter,
    })?;
    let lacking = match direction {
        // A page begins right before the event that lacks those before it, where the one before it ended there.
        Direction::Backward => gap(&db, room(&db, room_id)?, Pos(page.start.0.0.saturating_add(1)))?.map(|(place, _)| place),
        Direction::Forward => None,
    };
    let lacking = lacking.filter(|place| page.end.is_none_or(|end| *place > end.0));
    let mut response = get_messages::Response::new();
    if filter::lazy_members(&request.filter).is_some() {
        response.state = raws(reader.members_of(page.roots(), page.senders.iter().map(AsRef::<UserId>::as_ref))?);
    }
    response.start = page.start.to_string();
    response.end = page.end.map(|end| end.to_string());
    response.chunk = raws(page.chunk);
    Ok((response, lacking))
}

/// What is around an event. The lists are written also where they are empty, which ruma's answer would leave out: clients take
/// them to be there.
#[derive(Serialize)]
struct Context {
    start: String,
    end: String,
    event: Box<RawValue>,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

async fn context(call: Call<Session>, request: get_context::Request) -> Result<Json<Context>> {
    let db = call.snapshot();
    let mut reader = reader(&call, &db, &request.room_id)?;
    let (pos, stored, written) = reader.event(&request.event_id)?;
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(filter::LIMIT_MAX).min(filter::LIMIT_MAX);
    let mut page = |direction, from: Point, limit| {
        reader.page(&Ask { direction, from: Some(from), to: None, limit, filter: &request.filter })
    };
    let before = page(Direction::Backward, Point::before(pos), limit / 2)?;
    let after = page(Direction::Forward, Point(pos), limit - limit / 2)?;
    let root = if after.chunk.is_empty() { stored.header.after } else { after.last_root };
    let state = match filter::lazy_members(&request.filter) {
        None => reader.state(state::all(&db, room(&db, &request.room_id)?, root)?)?,
        Some(_) => {
            let mut senders = before.senders;
            senders.extend(after.senders);
            senders.insert(stored.event.sender.clone());
            reader.members_of([root], senders.iter().map(AsRef::<UserId>::as_ref))?
        }
    };
    Ok(Json(Context {
        start: before.end.unwrap_or_else(|| Point::before(pos)).to_string(),
        end: after.end.unwrap_or(Point(pos)).to_string(),
        event: written,
        events_before: before.chunk,
        events_after: after.chunk,
        state,
    }))
}

async fn event(call: Call<Session>, request: get_event::Request) -> Result<get_event::Response> {
    let db = call.snapshot();
    // Whether there is an event that they may not see is not told.
    let reader = match reader(&call, &db, &request.room_id) {
        Err(error) if error.is_forbidden() => Err(Rooms::NotFound("the event").into()),
        reader => reader,
    };
    let (_, _, written) = reader?.event(&request.event_id)?;
    Ok(get_event::Response::new(Raw::from_json(written)))
}

async fn event_by_time(call: Call<Session>, request: get_event_by_time::Request) -> Result<get_event_by_time::Response> {
    let (ts, direction) = (request.ts.get().into(), direction(request.dir));
    // Others are asked for those only who may read the room.
    reader(&call, &call.snapshot(), &request.room_id)?;
    call.server.federation.fetch_time(&request.room_id, ts, direction).await?;
    let db = call.snapshot();
    let (id, ts) = reader(&call, &db, &request.room_id)?.at_time(ts, direction)?;
    let ts = UInt::try_from(ts).map_err(Error::internal)?;
    Ok(get_event_by_time::Response::new(id, MilliSecondsSinceUnixEpoch(ts)))
}

/// The room as it is once all its members are known, for who may read it.
async fn whole_room(call: &Call<Session>, id: &RoomId) -> Result<Snapshot> {
    let db = call.snapshot();
    reader(call, &db, id)?;
    let room = room(&db, id)?;
    drop(db);
    whole(call, room).await?;
    Ok(call.snapshot())
}

async fn whole_state(call: Call<Session>, request: get_state::Request) -> Result<get_state::Response> {
    let db = whole_room(&call, &request.room_id).await?;
    let reader = reader(&call, &db, &request.room_id)?;
    let all = state::all(&db, room(&db, &request.room_id)?, reader.root())?;
    Ok(get_state::Response::new(raws(reader.state(all)?)))
}

async fn state_event(call: Call<Session>, request: get_state_event::Request) -> Result<get_state_event::Response> {
    let is_own = request.state_key == call.session.user_id.as_str();
    let db = match request.event_type {
        StateEventType::RoomMember if !is_own => whole_room(&call, &request.room_id).await?,
        _ => call.snapshot(),
    };
    let reader = reader(&call, &db, &request.room_id)?;
    let (room, kind) = (room(&db, &request.room_id)?, request.event_type.to_string());
    let no = state::entry(&db, room, reader.root(), &kind, &request.state_key)?.ok_or(Rooms::NotFound("the state event"))?;
    let written = match request.format {
        get_state_event::StateEventFormat::Event => reader.state([no])?.pop().ok_or(Rooms::NotFound("the state event"))?,
        _ => rooms::events::event(&db, room, no)?.event.content.clone(),
    };
    Ok(get_state_event::Response::new(written))
}

/// What a member event says.
#[derive(Deserialize)]
struct Member {
    membership: String,
    #[serde(default)]
    displayname: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
}

async fn members(call: Call<Session>, request: get_members::Request) -> Result<get_members::Response> {
    let db = whole_room(&call, &request.room_id).await?;
    let reader = reader(&call, &db, &request.room_id)?;
    let room = room(&db, &request.room_id)?;
    let root = point(request.at.as_deref())?.map_or(Ok(reader.root()), |at| reader.root_at(at))?;
    let mut chosen = Vec::new();
    for no in state::of_type(&db, room, root, "m.room.member")? {
        let stored = rooms::events::event(&db, room, no)?;
        let Ok(member) = serde_json::from_str::<Member>(stored.event.content.get()) else { continue };
        let wanted = request.membership.as_ref().is_none_or(|wanted| wanted.as_str() == member.membership);
        let unwanted = request.not_membership.as_ref().is_some_and(|unwanted| unwanted.as_str() == member.membership);
        if wanted && !unwanted {
            chosen.push(no);
        }
    }
    Ok(get_members::Response::new(raws(reader.state(chosen)?)))
}

async fn joined(call: Call<Session>, request: joined_members::Request) -> Result<joined_members::Response> {
    let db = call.snapshot();
    let room = room(&db, &request.room_id)?;
    if !rooms::members::is_joined(&db, call.session.user, room)? {
        return Err(Rooms::Forbidden("You are not in this room").into());
    }
    drop(db);
    whole(&call, room).await?;
    let db = call.snapshot();
    let mut joined = BTreeMap::new();
    for no in state::of_type(&db, room, rooms::head(&db, room)?.state, "m.room.member")? {
        let stored = rooms::events::event(&db, room, no)?;
        let Ok(member) = serde_json::from_str::<Member>(stored.event.content.get()) else { continue };
        let user = stored.event.state_key.as_deref().and_then(|user| UserId::parse(user).ok());
        if let (Some(user), "join") = (user, member.membership.as_str()) {
            let mut shown = joined_members::RoomMember::new();
            shown.display_name = member.displayname;
            shown.avatar_url = member.avatar_url.map(Into::into);
            joined.insert(user, shown);
        }
    }
    Ok(joined_members::Response::new(joined))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Hearth, Person};

    #[tokio::test]
    async fn the_context_of_an_event_at_the_edge_has_all_its_lists() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
        let room = format!("/_matrix/client/v3/rooms/{}", room["room_id"].as_str().unwrap_or_default());
        let sent =
            alice.put(&format!("{room}/send/m.room.message/1"), json!({ "body": "hello", "msgtype": "m.text" })).await.ok();
        let last = sent["event_id"].as_str().unwrap_or_default();
        let around = alice.get(&format!("{room}/context/{last}?limit=2")).await.ok();
        assert_eq!((&around["event"]["event_id"], &around["events_after"]), (&json!(last), &json!([])));
        assert_eq!(around["events_before"].as_array().map(Vec::len), Some(1));
        assert_eq!(around["state"].as_array().map(|state| state.is_empty()), Some(false));
        let state: Value = alice.get(&format!("{room}/state")).await.ok();
        let create = state.as_array().and_then(|all| all.iter().find(|event| event["type"] == "m.room.create"));
        let first = create.and_then(|event| event["event_id"].as_str()).unwrap_or_default();
        let around = alice.get(&format!("{room}/context/{first}?limit=0")).await.ok();
        assert_eq!((&around["events_before"], &around["events_after"]), (&json!([]), &json!([])));
    }

    /// A room of alice's, as its path.
    async fn room(alice: &Person) -> (String, String) {
        let made = alice.post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
        let id = made["room_id"].as_str().unwrap_or_default().to_owned();
        (format!("/_matrix/client/v3/rooms/{id}"), id)
    }

    fn members_in(events: &Value) -> Vec<&str> {
        events.as_array().into_iter().flatten().filter_map(|member| member["state_key"].as_str()).collect()
    }

    #[tokio::test]
    async fn who_may_not_see_a_room_is_told_the_same_as_where_there_is_none() {
        let hearth = Hearth::start();
        let (alice, eve) = (hearth.register("alice").await, hearth.register("eve").await);
        let (room, _) = room(&alice).await;
        let sent = alice.put(&format!("{room}/send/m.room.message/1"), json!({ "body": "a", "msgtype": "m.text" })).await.ok();
        let event = sent["event_id"].as_str().unwrap_or_default();
        let none = "/_matrix/client/v3/rooms/!none:hearth.test";
        for rest in ["messages?dir=b", "messages", "state", "state/m.room.name/", "members", "joined_members"] {
            let hidden = eve.get(&format!("{room}/{rest}")).await.fails(403, "M_FORBIDDEN");
            assert_eq!(eve.get(&format!("{none}/{rest}")).await.fails(403, "M_FORBIDDEN"), hidden, "{rest}");
        }
        for path in [format!("{room}/event/{event}"), format!("{none}/event/{event}"), format!("{room}/event/$none")] {
            eve.get(&path).await.fails(404, "M_NOT_FOUND");
        }
        eve.put(&format!("{none}/send/m.room.message/1"), json!({})).await.fails(403, "M_FORBIDDEN");
        alice.get(&format!("{room}/event/{event}")).await.ok();
        alice.get(&format!("{room}/messages")).await.fails(400, "M_MISSING_PARAM");
        alice.get(&format!("{room}/messages?dir=x")).await.fails(400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn members_are_those_of_the_place_that_is_asked_for() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let (room, id) = room(&alice).await;
        let synced = alice.get("/_matrix/client/v3/sync").await.ok();
        let timeline = &synced["rooms"]["join"][&id]["timeline"];
        assert_eq!(timeline["events"][0]["type"], "m.room.create", "the whole room");
        bob.post(&format!("{room}/join"), json!({})).await.ok();
        for (at, expected) in [
            (timeline["prev_batch"].as_str(), vec![alice.user_id.as_str()]),
            (synced["next_batch"].as_str(), vec![&alice.user_id]),
            (None, vec![&alice.user_id, &bob.user_id]),
        ] {
            let at = at.map_or_else(String::new, |at| format!("?at={at}"));
            let members = alice.get(&format!("{room}/members{at}")).await.ok();
            assert_eq!(members_in(&members["chunk"]), expected, "{at}");
        }
    }

    #[tokio::test]
    async fn a_page_back_to_the_beginning_tells_who_made_the_room() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        let (room, _) = room(&alice).await;
        let filter = "%7B%22lazy_load_members%22%3Atrue%7D";
        let page = alice.get(&format!("{room}/messages?dir=b&limit=50&filter={filter}")).await.ok();
        let last = page["chunk"].as_array().and_then(|chunk| chunk.last());
        assert_eq!(last.map(|event| &event["type"]), Some(&json!("m.room.create")));
        assert_eq!(members_in(&page["state"]), [&alice.user_id]);
        let whole = alice.get(&format!("{room}/messages?dir=b")).await.ok();
        assert_eq!((whole.get("state"), &whole["chunk"]), (None, &page["chunk"]), "without a filter");
    }
}
