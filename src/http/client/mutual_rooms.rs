//! The rooms that the caller has in common with another user ("Mutual Rooms").

use ruma::{
    UInt,
    api::client::membership::get_mutual_rooms::v1::{Request, Response},
};
use store::RoomNo;
use users::numbers as user_numbers;

use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User},
    endpoint,
};

/// The most rooms in an answer.
const LIMIT: usize = 200;

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Search, mutual_rooms)]
}

async fn mutual_rooms(call: Call<Session>, request: Request) -> Result<Response> {
    if request.user_id == call.session.user_id {
        return Err(Error::invalid_param("The user is the caller"));
    }
    let bad_token = || Error::invalid_param("The token is none of this server's");
    let number = |from: &str| from.strip_prefix('r').and_then(|no| no.parse::<u32>().ok()).ok_or_else(bad_token);
    let behind = request.from.as_deref().map(number).transpose()?;
    let db = call.snapshot();
    let mutual: Vec<RoomNo> = match user_numbers::number(&db, &request.user_id)? {
        Some(other) => rooms::members::common_rooms(&db, call.session.user, other)?.collect::<rooms::Result<_>>()?,
        None => Vec::new(),
    };
    let count = UInt::try_from(mutual.len()).map_err(Error::internal)?;
    let mut left: Vec<RoomNo> = mutual.into_iter().filter(|room| behind.is_none_or(|behind| room.0 > behind)).collect();
    let more = left.len() > LIMIT;
    left.truncate(LIMIT);
    let ids = left.iter().map(|room| Ok(rooms::numbers::room(&db, *room)?.id.clone()));
    let mut response = Response::new(count, ids.collect::<Result<_>>()?);
    response.next_batch = left.last().filter(|_| more).map(|last| format!("r{}", last.0));
    Ok(response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn two_users_learn_which_rooms_they_share() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let path = |user: &str| format!("/_matrix/client/v1/mutual_rooms?user_id={user}");
        assert_eq!(alice.get(&path(&bob.user_id)).await.ok(), json!({ "joined": [], "count": 0 }));
        let mut shared = Vec::new();
        for n in 0..3 {
            let room = alice.post("/_matrix/client/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
            let room = room["room_id"].as_str().unwrap().to_owned();
            hearth.clock.advance(1);
            if n != 1 {
                bob.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
                shared.push(room);
            }
        }
        let found = json!({ "joined": shared, "count": 2 });
        assert_eq!(alice.get(&path(&bob.user_id)).await.ok(), found);
        assert_eq!(bob.get(&path(&alice.user_id)).await.ok(), found);
        assert_eq!(alice.get(&path("@nobody:hearth.test")).await.ok()["count"], 0);
        alice.get(&path(&alice.user_id)).await.fails(400, "M_INVALID_PARAM");
        alice.get(&path("nobody")).await.fails(400, "M_INVALID_PARAM");
        alice.get(&format!("{}&from=x", path(&bob.user_id))).await.fails(400, "M_INVALID_PARAM");
        alice.get("/_matrix/client/v1/mutual_rooms").await.fails(400, "M_MISSING_PARAM");
    }
}
