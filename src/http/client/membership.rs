//! Joining, inviting, leaving and the like ("Room membership").

use protocol::json::Object;
use rooms::membership::{Action, Change};
use ruma::{
    OwnedUserId,
    api::client::{
        knock::knock_room::v3 as knock_room,
        membership::{
            ban_user::v3 as ban_user, forget_room::v3 as forget_room, invite_user::v3 as invite_user,
            join_room_by_id::v3 as join_by_id, join_room_by_id_or_alias::v3 as join_by_alias, joined_rooms::v3 as joined_rooms,
            kick_user::v3 as kick_user, leave_room::v3 as leave_room, unban_user::v3 as unban_user,
        },
    },
};
use store::RoomNo;

use super::{
    rooms::{member_content, profile, room, room_or_alias, sender},
    with::may_publish,
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User, UserOrGuest},
    endpoint,
};

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

/// Changes the membership of a user of a room.
async fn change(call: &Call<Session>, room: RoomNo, target: OwnedUserId, to: Action, content: Object) -> Result<()> {
    // To leave is all that a suspended user may do.
    if to != Action::Leave {
        may_publish(&call.session)?;
    }
    let server = &call.server;
    let change = Change { target, to, content };
    let done = rooms::membership::change(&server.store, &server.identity, &sender(&call.session), room, change, call.now_ms())?;
    Ok(done.durable().await?)
}

/// Changes the caller's own membership.
async fn change_own(call: &Call<Session>, room: RoomNo, to: Action, reason: Option<String>) -> Result<()> {
    let user = call.session.user_id.clone();
    let content = match to {
        Action::Leave => Object::new(),
        _ => profile(&call.snapshot(), &user)?,
    };
    change(call, room, user, to, member_content(content, reason)).await
}

async fn join_id(call: Call<Session>, request: join_by_id::Request) -> Result<join_by_id::Response> {
    let no = room(&call.snapshot(), &request.room_id)?;
    change_own(&call, no, Action::Join, request.reason).await?;
    Ok(join_by_id::Response::new(request.room_id))
}

async fn join_alias(call: Call<Session>, request: join_by_alias::Request) -> Result<join_by_alias::Response> {
    let db = call.snapshot();
    let no = room_or_alias(&db, &request.room_id_or_alias)?;
    change_own(&call, no, Action::Join, request.reason).await?;
    Ok(join_by_alias::Response::new(rooms::numbers::room(&db, no)?.id.clone()))
}

async fn knock(call: Call<Session>, request: knock_room::Request) -> Result<knock_room::Response> {
    let db = call.snapshot();
    let no = room_or_alias(&db, &request.room_id_or_alias)?;
    change_own(&call, no, Action::Knock, request.reason).await?;
    Ok(knock_room::Response::new(rooms::numbers::room(&db, no)?.id.clone()))
}

async fn leave(call: Call<Session>, request: leave_room::Request) -> Result<leave_room::Response> {
    let no = room(&call.snapshot(), &request.room_id)?;
    change_own(&call, no, Action::Leave, request.reason).await?;
    Ok(leave_room::Response::new())
}

async fn invite(call: Call<Session>, request: invite_user::Request) -> Result<invite_user::Response> {
    let invite_user::InvitationRecipient::UserId(recipient) = request.recipient else {
        return Err(Error::forbidden("This server does not invite by e-mail address or telephone number"));
    };
    let db = call.snapshot();
    let no = room(&db, &request.room_id)?;
    let content = member_content(profile(&db, &recipient.user_id)?, recipient.reason);
    change(&call, no, recipient.user_id, Action::Invite, content).await?;
    Ok(invite_user::Response::new())
}

async fn kick(call: Call<Session>, request: kick_user::Request) -> Result<kick_user::Response> {
    let no = room(&call.snapshot(), &request.room_id)?;
    change(&call, no, request.user_id, Action::Kick, member_content(Object::new(), request.reason)).await?;
    Ok(kick_user::Response::new())
}

async fn ban(call: Call<Session>, request: ban_user::Request) -> Result<ban_user::Response> {
    let no = room(&call.snapshot(), &request.room_id)?;
    change(&call, no, request.user_id, Action::Ban, member_content(Object::new(), request.reason)).await?;
    Ok(ban_user::Response::new())
}

async fn unban(call: Call<Session>, request: unban_user::Request) -> Result<unban_user::Response> {
    let no = room(&call.snapshot(), &request.room_id)?;
    change(&call, no, request.user_id, Action::Unban, member_content(Object::new(), request.reason)).await?;
    Ok(unban_user::Response::new())
}

async fn forget(call: Call<Session>, request: forget_room::Request) -> Result<forget_room::Response> {
    let no = room(&call.snapshot(), &request.room_id)?;
    rooms::membership::forget(&call.server.store, &sender(&call.session), no)?.durable().await?;
    Ok(forget_room::Response::new())
}

async fn joined(call: Call<Session>, _: joined_rooms::Request) -> Result<joined_rooms::Response> {
    let db = call.snapshot();
    let rooms = rooms::members::joined_rooms(&db, call.session.user)?;
    let ids = rooms.into_iter().map(|room| Ok(rooms::numbers::room(&db, room)?.id.clone()));
    Ok(joined_rooms::Response::new(ids.collect::<Result<_>>()?))
}
