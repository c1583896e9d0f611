//! `POST /rooms/{roomId}/upgrade` ("Room Upgrades").

use protocol::version::RoomVersion;
use rooms::upgrade::Upgrade;
use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use super::{
    create_room::opaque_id,
    rooms::{profile, room, sender},
    with::may_publish,
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Join, upgrade)]
}

async fn upgrade(call: Call<Session>, request: Request) -> Result<Response> {
    may_publish(&call.session)?;
    let db = call.snapshot();
    let no = room(&db, &request.room_id)?;
    if !rooms::members::is_joined(&db, call.session.user, no)? {
        return Err(Error::forbidden("You are not in this room"));
    }
    let id = request.new_version.as_str();
    let upgrade = Upgrade {
        version: RoomVersion::named(id).ok_or_else(|| rooms::Error::UnsupportedVersion(id.to_owned()))?,
        additional_creators: request.additional_creators,
        profile: profile(&db, &call.session.user_id)?,
        opaque_id: opaque_id(&mut call.server.rng()),
    };
    let (server, sender) = (&call.server, sender(&call.session));
    let made = rooms::upgrade::upgrade(&server.store, &server.identity, &sender, no, upgrade, call.now_ms())?;
    Ok(Response::new(made.durable().await?))
}
