//! Leaves the rooms of deactivated users, one write a room. A run that is cut off goes on where it was, for rooms that were left are
//! no longer among the user's.

use std::sync::Arc;

use ::rooms::{
    Sender, members,
    members::Membership,
    membership::{self, Action, Change},
};
use ::users::{accounts, numbers};
use store::{Lock, Store, UserNo};

use super::{Context, Failure, Outcome};

/// The most users whose rooms one run leaves.
const USERS_MAX: usize = 100;

pub(super) async fn run(context: Arc<Context>) -> Outcome {
    // Writes wait for the disk here, so not on an async thread.
    tokio::task::spawn_blocking(move || leave_all(&context)).await?
}

fn leave_all(context: &Context) -> Outcome {
    let store = &context.server.store;
    let (mut left, mut refused) = (0, 0);
    let users = accounts::departures(&store.snapshot(), USERS_MAX)?;
    for user in &users {
        if context.server.is_stopping() {
            break;
        }
        let sender = Sender { no: *user, id: numbers::user_id(&store.snapshot(), *user)? };
        for room in rooms_of(store, *user)? {
            let change = Change { target: sender.id.clone(), to: Action::Leave, content: Default::default() };
            let changed = membership::change(store, &context.server.identity, &sender, room, change, context.server.now_ms());
            match context.sent(changed) {
                Ok(()) => left += 1,
                Err(Failure::Store(error)) => return Err(error.into()),
                // A room that refuses once would always refuse: it keeps its member, and the user's departure is over.
                Err(error) => {
                    tracing::warn!(user = %sender.id, room = room.0, %error, "a deactivated user could not leave a room");
                    refused += 1;
                }
            }
        }
        store.transact::<_, store::Error>(&[Lock::User(*user)], |tx| accounts::departed(tx, *user))?.wait()?;
    }
    Ok(format!("{} users left {left} rooms; {refused} refused", users.len()))
}

fn rooms_of(store: &Store, user: UserNo) -> ::rooms::Result<Vec<store::RoomNo>> {
    let rooms = members::user_rooms(&store.snapshot(), user)?.into_iter();
    let is_in = |membership| matches!(membership, Membership::Join | Membership::Invite | Membership::Knock);
    Ok(rooms.filter(|(_, of)| is_in(of.membership)).map(|(room, _)| room).collect())
}
