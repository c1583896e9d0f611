//! What `hearth room why` and `hearth room graph` tell.

use ruma::UserId;

use super::{
    shared::{Shared, state_event},
    *,
};
use crate::{
    graph::{self, Told},
    receive::Outcome,
    why::{self, Step, Verdict},
};

fn steps(world: &World, room: RoomNo, user: &str) -> Vec<Step> {
    let user = <&UserId>::try_from(user).unwrap();
    let db = world.store.snapshot();
    let (mut all, mut after) = (Vec::new(), EventNo(0));
    loop {
        let part = why::steps(&db, room, user, after, 3).unwrap();
        all.extend(part.steps);
        match part.more_after {
            Some(last) => after = last,
            None => return all,
        }
    }
}

/// Each step on a line: what it is, and what the rules said.
fn told(steps: &[Step]) -> Vec<String> {
    let line = |step: &Step| {
        let verdict = match &step.verdict {
            Verdict::Allowed { rule, .. } => format!("allowed by {rule}"),
            Verdict::Rejected { rule, reason } => format!("rejected by {rule}: {reason}"),
            Verdict::SoftFailed { rule, reason } => format!("soft-failed by {rule}: {reason}"),
            Verdict::Outlier => "outlier".to_owned(),
        };
        format!("{}: {verdict}{}", step.what, if step.prevailed { "" } else { ", did not prevail" })
    };
    steps.iter().map(line).collect()
}

#[test]
fn a_membership_and_a_power_level_are_explained_by_events_and_rules() {
    let shared = Shared::new("11");
    let users = json!({ "@alice:localhost": 100, "@bob:other.org": 50 });
    let promoted = shared.alice_sends(state_event("m.room.power_levels", "", json!({ "users": users })));
    assert!(matches!(shared.give(&promoted), Outcome::Accepted(_)));
    // Alice bans bob while he says something and sets a topic.
    let said = shared.there.say(&shared.bob, shared.copy, "hello").unwrap();
    let topic = shared.bob_sends(state_event("m.room.topic", "", json!({ "topic": "bob's" })));
    let ban = shared.alice_sends(state_event("m.room.member", "@bob:other.org", json!({ "membership": "ban" })));
    assert!(matches!(shared.take(&said), Outcome::SoftFailed(_)));
    assert!(matches!(shared.take(&topic), Outcome::SoftFailed(_)));

    let explained = steps(&shared.here, shared.room, "@bob:other.org");
    assert_eq!(
        told(&explained),
        [
            "joins: allowed by 4.3.6",
            "gets power 50 in place of 0: allowed by 9.10",
            "is banned by @alice:localhost: allowed by 4.6.2",
            "sends m.room.message: soft-failed by 5: the sender is not joined, did not prevail",
            "sends m.room.topic: soft-failed by 5: the sender is not joined, did not prevail",
        ]
    );
    assert_eq!(explained[2].event, ban);
    let cited: Vec<&str> = explained[2].auth_events.iter().map(|cited| cited.kind.as_str()).collect();
    assert_eq!(cited, ["m.room.create", "m.room.power_levels", "m.room.member", "m.room.member"]);
    let now = why::now(&shared.here.store.snapshot(), shared.room, &shared.bob.id).unwrap();
    assert_eq!((now.membership, now.power.as_str(), now.room_version.as_str()), (Some(Membership::Ban), "50", "11"));
    assert_eq!((now.member_event, now.power_levels), (Some(ban), Some(promoted)));

    let creator = steps(&shared.here, shared.room, "@alice:localhost");
    let expected = ["makes the room: allowed by 1.4", "joins: allowed by 4.3.1", "gets power 100 in place of"];
    assert!(told(&creator).iter().zip(expected).all(|(told, expected)| told.starts_with(expected)), "{:?}", told(&creator));
    let stranger = why::now(&shared.here.store.snapshot(), shared.room, <&UserId>::try_from("@eve:a").unwrap()).unwrap();
    assert_eq!((stranger.membership, stranger.power.as_str()), (None, "0"));
}

#[test]
fn a_rejected_event_tells_its_rule() {
    let shared = Shared::new("12");
    // Bob's server makes what the room does not allow, by building it on a room of its own rules.
    let forged = |tx: &mut store::Tx<'_>| -> Result<ruma::OwnedEventId> {
        let mut open = OpenRoom::new(tx, shared.copy)?;
        let place = append::Place { parents: open.head.extremities.clone(), before: open.head.state };
        let new = state_event("m.room.member", "@alice:localhost", json!({ "membership": "ban" }));
        let event = send::build(&open, &shared.there.identity, &shared.bob, new, &place, 5000)?;
        append::append(&mut open, append::Accepted::at(place, Arc::clone(&event), None))?;
        open.save()?;
        Ok(event.id.clone())
    };
    let ban = shared.there.store.transact(&[Lock::Room(shared.copy)], forged).unwrap().wait().unwrap();
    assert!(matches!(shared.take(&ban), Outcome::Rejected(_)));
    let explained = steps(&shared.here, shared.room, "@alice:localhost");
    let last = told(&explained).pop().unwrap();
    assert!(last.starts_with("is banned by @bob:other.org: rejected by 5.6.3: ") && last.ends_with("did not prevail"), "{last}");
    let now = why::now(&shared.here.store.snapshot(), shared.room, &shared.alice.id).unwrap();
    assert_eq!((now.membership, now.power.as_str()), (Some(Membership::Join), "infinite"));
}

#[test]
fn the_graph_tells_forks_refusals_and_gaps() {
    let shared = Shared::new("11");
    let last = shared.ids().len();
    let mine = shared.here.say(&shared.alice, shared.room, "mine").unwrap();
    let his = shared.there.say(&shared.bob, shared.copy, "his").unwrap();
    assert!(matches!(shared.take(&his), Outcome::Accepted(_)));
    let all = graph::graph(&shared.here.store.snapshot(), shared.room, 1000).unwrap();
    assert_eq!((all.nodes.len(), all.missing.len()), (last + 2, 0));
    assert!(all.nodes[0].prev_events.is_empty() && all.nodes[0].kind == "m.room.create");
    let ends = graph::graph(&shared.here.store.snapshot(), shared.room, 2).unwrap();
    let ends: Vec<_> = ends.nodes.iter().map(|node| (node.event.clone(), node.extremity, node.standing)).collect();
    assert_eq!(ends, [(mine.clone(), true, Told::Accepted), (his, true, Told::Accepted)]);

    // There, alice's ban comes without what was before it: that is a gap; what bob says then is refused here.
    let ban = shared.alice_sends(state_event("m.room.member", "@bob:other.org", json!({ "membership": "ban" })));
    let unseen = shared.there.say(&shared.bob, shared.copy, "unseen").unwrap();
    assert!(matches!(shared.take(&unseen), Outcome::SoftFailed(_)));
    assert!(matches!(shared.give_with_state(&ban), Outcome::Accepted(_)));
    let here = graph::graph(&shared.here.store.snapshot(), shared.room, 1).unwrap();
    assert_eq!((here.nodes[0].standing, here.nodes[0].extremity), (Told::SoftFailed, false));
    assert!(here.nodes[0].reason.as_deref().is_some_and(|reason| reason.starts_with("rule 5: ")));
    let there = graph::graph(&shared.there.store.snapshot(), shared.copy, 3).unwrap();
    assert_eq!(there.missing.into_iter().collect::<Vec<_>>(), [mine]);
}
