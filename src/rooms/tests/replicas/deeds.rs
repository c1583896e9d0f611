//! What users do to the room.

use super::*;

/// How many kinds of deeds there are.
pub(super) const COUNT: u8 = 18;

/// Power levels of the three who are in the room from the start; a creator with all power is not named.
pub(super) fn levels(version: &str, of: [i64; 3], invite: i64) -> NewEvent {
    let creators = usize::from(version == "12");
    let users: BTreeMap<&str, i64> = USERS.into_iter().zip(of).skip(creators).collect();
    state(
        "m.room.power_levels",
        "",
        json!({ "users": users, "ban": 50, "kick": 50, "invite": invite, "state_default": 50, "events": { "org.example": 0 } }),
    )
}

fn state(kind: &str, key: &str, content: serde_json::Value) -> NewEvent {
    NewEvent::state(kind, key, content.as_object().unwrap().clone())
}

fn member(user: &str, membership: &str) -> NewEvent {
    state("m.room.member", user, json!({ "membership": membership }))
}

/// The key of the server that vouches for third-party identifiers.
fn identity_server() -> SigningKey {
    SigningKey::from_seed("1", &[99; 32]).unwrap()
}

/// An invite for whom the identity server vouches.
fn redeemed(user: &str, token: &str) -> NewEvent {
    let mut signed = json!({ "mxid": user, "token": token }).as_object().unwrap().clone();
    sign::sign_json(&mut signed, "identity.org", &identity_server()).unwrap();
    let invite = json!({ "membership": "invite", "third_party_invite": { "display_name": "someone", "signed": signed } });
    state("m.room.member", user, invite)
}

/// One of the things that users do. Half of them are what rooms fight over.
pub(super) fn deed(version: &str, kind: u8, by: usize, value: u8) -> NewEvent {
    let me = USERS[by];
    let other = USERS[(by + 1 + usize::from(value) % (USERS.len() - 1)) % USERS.len()];
    let token = format!("token{}", value % 2);
    let rules = ["invite", "public", "restricted", "knock", "knock_restricted"];
    match kind {
        0 | 1 => state("m.room.topic", "", json!({ "topic": format!("{by}{value}") })),
        2 => member(other, "ban"),
        3 => member(other, "leave"),
        4 => member(me, "leave"),
        5 | 6 => state("m.room.member", me, json!({ "membership": "join", "displayname": value.to_string() })),
        7 => member(other, "invite"),
        8 | 9 => state("m.room.join_rules", "", json!({ "join_rule": rules[usize::from(value) % rules.len()], "allow": [] })),
        10 | 11 => {
            let mut of = [0, 1, 2].map(|user| i64::from(value) / (user + 1) % 3 * 50);
            // Who would give up their own power too seldom meets anybody who has some.
            if let Some(own) = of.get_mut(by).filter(|_| value.is_multiple_of(4)) {
                *own = 100;
            }
            levels(version, of, i64::from(value) % 2 * 50)
        }
        12 | 13 => {
            let content =
                json!({ "membership": "join", "join_authorised_via_users_server": other, "displayname": value.to_string() });
            state("m.room.member", me, content)
        }
        14 => state(
            "m.room.third_party_invite",
            &token,
            json!({ "display_name": "x", "public_key": identity_server().public().to_base64() }),
        ),
        15 => redeemed(other, &token),
        16 => member(me, "knock"),
        _ => state("org.example", &format!("{}", value % 4), json!({ "by": by })),
    }
}

impl Net {
    /// What a user does from their server: what another server has to sign too goes the way that it has over federation.
    pub(super) fn do_or_cosign(&mut self, by: usize, new: NewEvent) -> Option<OwnedEventId> {
        let authoriser = new.content.get("join_authorised_via_users_server").and_then(|user| user.as_str());
        let own = authoriser.is_none_or(|user| user.ends_with(SERVERS[by % SERVERS.len()]));
        if own || !self.version.restricted_joins {
            return self.send(by, new);
        }
        let Replica { world, room, .. } = &self.replicas[by % SERVERS.len()];
        let db = world.store.snapshot();
        let ends = head(&db, *room).unwrap().extremities;
        let ends = ends.iter().rev().take(10).map(|no| events::event(&db, *room, *no).unwrap().header.id.clone());
        let prev: Vec<OwnedEventId> = ends.collect();
        let auth = self.selected(by, &new, &prev);
        let event = self.craft(by, new, prev, auth);
        let id = event.event().id.clone();
        self.share(event);
        self.deliver(by % SERVERS.len(), self.sent.len() - 1);
        Some(id)
    }
}
