//! Joining, inviting, leaving and the like ("Room membership").

use std::collections::BTreeSet;

use federation::{directory::Named, join::Entering};
use protocol::json::Object;
use rooms::{
    members::{self, Membership, UserRoom},
    membership::{Action, Change},
    partial, remote, servers,
};
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomOrAliasId,
    api::client::{
        knock::knock_room::v3 as knock_room,
        membership::{
            ban_user::v3 as ban_user, forget_room::v3 as forget_room, invite_user::v3 as invite_user,
            join_room_by_id::v3 as join_by_id, join_room_by_id_or_alias::v3 as join_by_alias, joined_rooms::v3 as joined_rooms,
            kick_user::v3 as kick_user, leave_room::v3 as leave_room, unban_user::v3 as unban_user,
        },
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::Value;
use store::{RoomNo, Snapshot};

use super::{
    rooms::{content, known_room, member_content, profile, room, sender, whole},
    with::{With, may_publish},
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User, UserOrGuest},
    endpoint,
};

/// Servers of a room that this one is in too, which are asked to let somebody in.
const VIA_MAX: usize = 20;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(UserOrGuest, Class::Join, join_id),
        endpoint(UserOrGuest, Class::Join, join_alias),
        endpoint(User, Class::Join, knock),
        endpoint(UserOrGuest, Class::Send, leave),
        endpoint(User, Class::Join, invite),
        endpoint(User, Class::Send, kick),
        endpoint(User, Class::Send, ban),
        endpoint(User, Class::Send, unban),
        endpoint(User, Class::Write, forget),
        endpoint(User, Class::Read, joined),
    ]
}

/// Changes the membership of a user of a room that this server is in.
async fn change(call: &Call<Session>, room: RoomNo, target: OwnedUserId, to: Action, content: Object) -> Result<()> {
    let server = &call.server;
    let change = Change { target, to, content };
    let changing =
        rooms::membership::change(&server.store, &server.identity, &sender(&call.session), room, change, call.now_ms());
    Ok(server.federation.sent(changing, drop).await?)
}

/// A room as a client names it who wants in: with servers to ask where this one is not in it.
struct Wanted {
    id: OwnedRoomId,
    via: Vec<OwnedServerName>,
}

impl Wanted {
    async fn named(call: &Call<Session>, name: &RoomOrAliasId, via: Vec<OwnedServerName>) -> Result<Self> {
        match <&RoomId>::try_from(name) {
            Ok(id) => Ok(Self { id: id.to_owned(), via }),
            Err(alias) => {
                let Named { room_id, servers } = call.server.federation.resolve_alias(alias).await?;
                Ok(Self { id: room_id, via: via.into_iter().chain(servers).collect() })
            }
        }
    }
}

/// Changes the caller's own membership: here where this server is in the room, else by way of a server that is. `said` is what the
/// caller says of it.
async fn change_own(call: &Call<Session>, wanted: Wanted, to: Action, said: Object) -> Result<()> {
    // To leave is all that a suspended user may do.
    if to != Action::Leave {
        may_publish(&call.session)?;
    }
    let user = call.session.user_id.clone();
    let db = call.snapshot();
    let mut content = match to {
        Action::Leave => Object::new(),
        _ => profile(&db, &user)?,
    };
    content.extend(said);
    let known = rooms::numbers::number(&db, &wanted.id)?;
    let standing = known.map(|room| members::user_room(&db, call.session.user, room)).transpose()?.flatten();
    let remote = standing.as_ref().is_some_and(remote::is_remote);
    let mut via = wanted.via;
    if let Some(room) = known
        && (servers::is_in(&db, room, &call.server.name)? || is_left_to_us(&db, room, to, standing.as_ref())?)
    {
        let is_in = standing.as_ref().is_some_and(|standing| standing.membership == Membership::Join);
        // Whether a user is banned only servers know that know all members.
        let is_unsure = to == Action::Join && !is_in && partial::is_partial(&db, room)?;
        if !is_unsure {
            match change(call, room, user, to, content.clone()).await {
                // Another server of the room may know more of the user, or have somebody who may let them in.
                Err(error) if to == Action::Join && error.is_for_another_server() => {}
                // The invitation was told, and its event is not here yet.
                Err(_) if remote => {}
                done => return done,
            }
        }
        via.extend(servers::servers(&db, room)?.take(VIA_MAX).collect::<rooms::Result<Vec<_>>>()?);
    } else if !remote
        && ((to == Action::Leave && standing.is_none())
            || (known.is_none() && via.is_empty() && wanted.id.server_name().is_none_or(|of| of == call.server.name)))
    {
        return Err(rooms::Error::UnknownRoom.into());
    }
    if let (Some(room), Some(standing)) = (known, &standing)
        && (to == Action::Leave || remote)
    {
        let member = remote::member_event(&db, call.session.user, room, standing)?;
        via.extend(remote::remote(&db, call.session.user, room)?.map(|told| told.via));
        if to == Action::Leave {
            via.extend(servers::servers(&db, room)?.take(VIA_MAX).collect::<rooms::Result<Vec<_>>>()?);
            return leave_remote(call, room, &wanted.id, via, content, &member.event).await;
        }
    }
    if via.is_empty() {
        via.extend(wanted.id.server_name().map(ToOwned::to_owned));
    }
    let entering = Entering { user: sender(&call.session), room: wanted.id, via: distinct(via), content };
    let federation = &call.server.federation;
    match to {
        Action::Knock => federation.knock(&entering).await?,
        _ => federation.join(&entering).await?,
    }
    Ok(())
}

/// Whether a user leaves a room that this server knows from within and that no server is in any more, as who declines an invitation
/// after everybody left: there is nobody to tell.
fn is_left_to_us(db: &Snapshot, room: RoomNo, to: Action, standing: Option<&UserRoom>) -> Result<bool> {
    let is_known = to == Action::Leave && standing.is_some_and(|standing| !remote::is_remote(standing));
    Ok(is_known && servers::servers(db, room)?.next().is_none())
}

/// Leaves a room that this server is not in.
async fn leave_remote(
    call: &Call<Session>,
    room: RoomNo,
    id: &RoomId,
    via: Vec<OwnedServerName>,
    content: Object,
    member: &protocol::event::Event,
) -> Result<()> {
    let db = call.snapshot();
    if matches!(Membership::of(member), Membership::Leave | Membership::Ban) {
        return Ok(());
    }
    let version = rooms::numbers::room(&db, room)?.version()?;
    let entering = Entering { user: sender(&call.session), room: id.to_owned(), via: distinct(via), content };
    Ok(call.server.federation.leave(&entering, member, version).await?)
}

/// Each server once, in the order in which they are to be asked.
fn distinct(servers: Vec<OwnedServerName>) -> Vec<OwnedServerName> {
    let mut seen = BTreeSet::new();
    servers.into_iter().filter(|server| seen.insert(server.clone())).collect()
}

/// What a client says with a join becomes content of the member event. What the server decides is not theirs to say, and what the
/// specification names has the type that it gives.
fn said_of_join(body: &Raw<Object>) -> Result<Object> {
    let mut said = content(body)?;
    for key in ["membership", "join_authorised_via_users_server", "third_party_signed", "third_party_invite"] {
        said.remove(key);
    }
    for key in ["reason", "displayname", "avatar_url"] {
        match said.get(key) {
            Some(Value::Null) => drop(said.remove(key)),
            None | Some(Value::String(_)) => {}
            Some(_) => return Err(Error::bad_json(format!("{key} is a string"))),
        }
    }
    Ok(said)
}

async fn join_id(call: Call<Session>, request: With<join_by_id::Request, Raw<Object>>) -> Result<join_by_id::Response> {
    let id = request.room_arg(0)?;
    let wanted = Wanted { id: id.clone(), via: Vec::new() };
    change_own(&call, wanted, Action::Join, said_of_join(&request.body)?).await?;
    Ok(join_by_id::Response::new(id))
}

/// Servers to ask, under the name of today or the one before.
#[derive(Deserialize)]
struct Via {
    #[serde(default)]
    via: Vec<OwnedServerName>,
    #[serde(default)]
    server_name: Vec<OwnedServerName>,
}

async fn join_alias(call: Call<Session>, request: With<join_by_alias::Request, Raw<Object>>) -> Result<join_by_alias::Response> {
    let name = RoomOrAliasId::parse(request.arg(0)).map_err(|_| Error::invalid_param("The path names no room id or alias"))?;
    let Via { via, server_name } = request.query()?;
    let said = said_of_join(&request.body)?;
    let wanted = Wanted::named(&call, &name, if via.is_empty() { server_name } else { via }).await?;
    let id = wanted.id.clone();
    change_own(&call, wanted, Action::Join, said).await?;
    Ok(join_by_alias::Response::new(id))
}

async fn knock(call: Call<Session>, request: knock_room::Request) -> Result<knock_room::Response> {
    let wanted = Wanted::named(&call, &request.room_id_or_alias, request.via).await?;
    let id = wanted.id.clone();
    change_own(&call, wanted, Action::Knock, member_content(Object::new(), request.reason)).await?;
    Ok(knock_room::Response::new(id))
}

async fn leave(call: Call<Session>, request: leave_room::Request) -> Result<leave_room::Response> {
    let said = member_content(Object::new(), request.reason);
    change_own(&call, Wanted { id: request.room_id, via: Vec::new() }, Action::Leave, said).await?;
    Ok(leave_room::Response::new())
}

async fn invite(call: Call<Session>, request: invite_user::Request) -> Result<invite_user::Response> {
    let invite_user::InvitationRecipient::UserId(recipient) = request.recipient else {
        return Err(Error::forbidden("This server does not invite by e-mail address or telephone number"));
    };
    may_publish(&call.session)?;
    let no = whole_room(&call, &request.room_id).await?;
    let db = call.snapshot();
    let content = member_content(profile(&db, &recipient.user_id)?, recipient.reason);
    if recipient.user_id.server_name() == call.server.name {
        change(&call, no, recipient.user_id, Action::Invite, content).await?;
    } else {
        call.server.federation.invite(&sender(&call.session), no, &recipient.user_id, content).await?;
    }
    Ok(invite_user::Response::new())
}

/// A room in which the caller changes the membership of another, for which that must be known.
async fn whole_room(call: &Call<Session>, id: &RoomId) -> Result<RoomNo> {
    let db = call.snapshot();
    let room = room(&db, id)?;
    if members::is_joined(&db, call.session.user, room)? {
        drop(db);
        whole(call, room).await?;
    }
    Ok(room)
}

async fn kick(call: Call<Session>, request: kick_user::Request) -> Result<kick_user::Response> {
    may_publish(&call.session)?;
    let no = whole_room(&call, &request.room_id).await?;
    change(&call, no, request.user_id, Action::Kick, member_content(Object::new(), request.reason)).await?;
    Ok(kick_user::Response::new())
}

async fn ban(call: Call<Session>, request: ban_user::Request) -> Result<ban_user::Response> {
    may_publish(&call.session)?;
    let no = whole_room(&call, &request.room_id).await?;
    change(&call, no, request.user_id, Action::Ban, member_content(Object::new(), request.reason)).await?;
    Ok(ban_user::Response::new())
}

async fn unban(call: Call<Session>, request: unban_user::Request) -> Result<unban_user::Response> {
    may_publish(&call.session)?;
    let no = whole_room(&call, &request.room_id).await?;
    change(&call, no, request.user_id, Action::Unban, member_content(Object::new(), request.reason)).await?;
    Ok(unban_user::Response::new())
}

async fn forget(call: Call<Session>, request: forget_room::Request) -> Result<forget_room::Response> {
    let no = known_room(&call.snapshot(), &request.room_id)?;
    rooms::membership::forget(&call.server.store, &sender(&call.session), no)?.durable().await?;
    Ok(forget_room::Response::new())
}

async fn joined(call: Call<Session>, _: joined_rooms::Request) -> Result<joined_rooms::Response> {
    let db = call.snapshot();
    let rooms = rooms::members::joined_rooms(&db, call.session.user)?;
    let ids = rooms.into_iter().map(|room| Ok(rooms::numbers::room(&db, room)?.id.clone()));
    Ok(joined_rooms::Response::new(ids.collect::<Result<_>>()?))
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
