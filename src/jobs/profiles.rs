//! Shows a changed display name or avatar in the rooms of its user, one write a room. A run that is cut off goes on where it was,
//! for rooms that show it already are left alone.

use std::sync::Arc;

use ::rooms::{Sender, members, membership};
use ::users::{numbers, profiles};

use super::{Context, Failure, Outcome};

/// The most users whose profiles one run shows.
const USERS_MAX: usize = 100;

pub(super) async fn run(context: Arc<Context>) -> Outcome {
    // Writes wait for the disk here, so not on an async thread.
    tokio::task::spawn_blocking(move || show_all(&context)).await?
}

fn show_all(context: &Context) -> Outcome {
    let store = &context.server.store;
    let (mut shown, mut refused) = (0, 0);
    let changes = profiles::pending_changes(&store.snapshot(), USERS_MAX)?;
    for (user, change) in &changes {
        let sender = Sender { no: *user, id: numbers::user_id(&store.snapshot(), *user)? };
        let profile = profiles::shown(&store.snapshot(), *user)?;
        for room in members::joined_rooms(&store.snapshot(), *user)? {
            if context.server.is_stopping() {
                return Ok("cut off by the server's stop".into());
            }
            let (identity, now_ms) = (&context.server.identity, context.server.now_ms());
            let sent = membership::show_profile(store, identity, &sender, room, profile.clone(), now_ms);
            match context.sent(sent) {
                Ok(()) => shown += 1,
                Err(Failure::Store(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(user = %sender.id, room = room.0, %error, "a room does not show a changed profile");
                    refused += 1;
                }
            }
        }
        profiles::change_done(store, *user, *change)?.wait()?;
    }
    Ok(format!("{} profiles shown in {shown} rooms; {refused} refused", changes.len()))
}
