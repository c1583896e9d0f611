//! What replicas do, one thing at a time.

use super::*;

#[test]
fn forks_join_again() {
    for version in RoomVersion::all() {
        let version = version.id;
        let mut net = Net::new(version);
        net.send(0, deed(version, 0, 0, 1)).unwrap();
        net.send(1, deed(version, 0, 1, 2)).unwrap();
        net.send(1, deed(version, 17, 1, 2)).unwrap();
        net.heal();
        net.check();
        let ends = |net: &Net| {
            net.replicas
                .iter()
                .map(|replica| head(&replica.world.store.snapshot(), replica.room).unwrap().extremities.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(&net), [2, 2, 2], "version {version}");
        net.send(2, deed(version, 0, 2, 3)).unwrap();
        net.heal();
        net.check();
        assert_eq!(ends(&net), [1, 1, 1]);
        net.done();
    }
}

#[test]
fn what_is_missing_is_named_and_nothing_changes() {
    let mut net = Net::new("11");
    let first = net.send(0, deed("11", 17, 0, 1)).unwrap();
    net.send(0, deed("11", 0, 0, 1)).unwrap();
    let world = &net.replicas[1].world;
    let before = world.store.dump(TABLES).unwrap();
    let outcome = net.deliver(1, net.sent.len() - 1);
    assert_eq!(outcome, Outcome::Missing(Missing { prev_events: vec![first], auth_events: Vec::new() }));
    assert_eq!(world.store.dump(TABLES).unwrap(), before);
    assert!(matches!(net.deliver(1, net.sent.len() - 2), Outcome::Accepted(_)));
    assert!(matches!(net.deliver(1, net.sent.len() - 1), Outcome::Accepted(_)));
    assert_eq!(net.deliver(1, net.sent.len() - 1), Outcome::Duplicate);
}

#[test]
fn a_ban_that_was_not_known_yet_soft_fails_what_the_banned_say_meanwhile() {
    let mut net = Net::new("12");
    net.send(0, deed("12", 10, 0, 0)).unwrap();
    net.heal();
    net.send(0, NewEvent::state("m.room.member", "@user:b.org", json!({ "membership": "ban" }).as_object().unwrap().clone()))
        .unwrap();
    let message = NewEvent { kind: "m.room.message".into(), ..NewEvent::default() };
    net.send(1, message).unwrap();
    let outcome = net.deliver(0, net.sent.len() - 1);
    assert!(matches!(&outcome, Outcome::SoftFailed(reason) if reason.contains("not joined")), "{outcome:?}");
    let replica = &net.replicas[0];
    let seen = replica.world.seen(&replica.users[0], replica.room);
    assert!(!seen.contains(&"m.room.message".to_owned()), "{seen:?}");
    net.heal();
    net.check();
}

fn state_event(kind: &str, key: &str, content: serde_json::Value) -> NewEvent {
    NewEvent::state(kind, key, content.as_object().unwrap().clone())
}

/// Shares an event and gives it to the second server.
fn outcome(net: &mut Net, event: Verified) -> Outcome {
    net.share(event);
    net.deliver(1, net.sent.len() - 1)
}

/// A topic of the first user after everything, with its auth events changed.
fn topic_citing(net: &mut Net, change: impl FnOnce(&Net, &mut Vec<OwnedEventId>)) -> Outcome {
    let new = state_event("m.room.topic", "", json!({ "topic": net.sent.len() }));
    let prev = vec![net.model.order.last().unwrap().clone()];
    let mut auth = net.selected(0, &new, &prev);
    change(net, &mut auth);
    let event = net.craft(0, new, prev, auth);
    outcome(net, event)
}

#[test]
fn forged_auth_events_are_refused_by_their_rule() {
    for version in RoomVersion::all() {
        let mut net = Net::new(version.id);
        let rejected_by = |outcome: Outcome, number: &str, words: &str| {
            let Outcome::Rejected(reason) = outcome else { panic!("version {}: {outcome:?}", version.id) };
            let number = if version.version_12 { number.replacen('2', "3", 1) } else { number.to_owned() };
            assert!(reason.starts_with(&format!("rule {number}:")) && reason.contains(words), "version {}: {reason}", version.id);
        };
        assert!(matches!(topic_citing(&mut net, |_, _| ()), Outcome::Accepted(_)));
        let twice = topic_citing(&mut net, |_, auth| auth.push(auth[0].clone()));
        rejected_by(twice, "2.1", "two events of type");
        let unasked = topic_citing(&mut net, |net, auth| auth.push(net.model.order.last().unwrap().clone()));
        rejected_by(unasked, "2.2", "is not selected");
        let other_room = topic_citing(&mut net, |net, auth| {
            let twin = |id: &OwnedEventId| {
                net.model.elsewhere().find(|event| event.state_pair() == net.model.find(id).unwrap().state_pair())
            };
            auth.iter_mut().for_each(|id| *id = twin(id).unwrap().id.clone());
        });
        rejected_by(other_room, "2.5", "is of another room");
        // Power levels by who is not in the room are rejected, and so is who cites them.
        let prev = vec![net.model.order.last().unwrap().clone()];
        let new = deeds::levels(version.id, [100; 3], 50);
        let auth = net.selected(5, &new, &prev);
        let levels = net.craft(5, new, prev, auth);
        let forged = levels.event().id.clone();
        assert!(matches!(outcome(&mut net, levels), Outcome::Rejected(reason) if reason.contains("not joined")));
        let citing_rejected = topic_citing(&mut net, |net, auth| {
            let levels = |id: &OwnedEventId| net.model.find(id).unwrap().kind == "m.room.power_levels";
            auth.retain(|id| !levels(id));
            auth.insert(0, forged.clone());
        });
        rejected_by(citing_rejected, "2.3", "was rejected");
        if !version.version_12 {
            let none = topic_citing(&mut net, |_, auth| auth.clear());
            rejected_by(none, "2.4", "no create event");
        }
        let missing = topic_citing(&mut net, |net, auth| auth[0] = net.unknown(1));
        let named = vec![net.unknown(1)];
        assert_eq!(missing, Outcome::Missing(Missing { prev_events: Vec::new(), auth_events: named }));
        net.heal();
        net.check();
        net.done();
    }
}

/// matrix-org/synapse issues 1935 and 6289: the state after a rejected event is that before it.
#[test]
fn t6_a_rejected_event_resets_no_state() {
    for version in RoomVersion::all() {
        let mut net = Net::new(version.id);
        let last = net.model.order.last().unwrap().clone();
        let before = net.model.after[&last].1.clone();
        for new in [
            state_event("m.room.topic", "", json!({ "topic": "mine" })),
            NewEvent { kind: "m.room.message".into(), ..NewEvent::default() },
        ] {
            let prev = vec![net.model.order.last().unwrap().clone()];
            let auth = net.selected(5, &new, &prev);
            let event = net.craft(5, new, prev, auth);
            let id = event.event().id.clone();
            assert!(matches!(outcome(&mut net, event), Outcome::Rejected(_)));
            assert_eq!(net.copy_of(1)[&id], (true, before.clone()), "version {}", version.id);
        }
        // What follows it is judged by that state, and is accepted.
        let prev = vec![net.model.order.last().unwrap().clone()];
        let new = state_event("m.room.topic", "", json!({ "topic": "ours" }));
        let auth = net.selected(1, &new, &prev);
        let event = net.craft(1, new, prev, auth);
        assert!(matches!(outcome(&mut net, event), Outcome::Accepted(_)));
        net.heal();
        net.check();
        net.done();
    }
}

#[test]
fn a_restricted_join_needs_the_signature_of_the_authorisers_server_and_their_power() {
    for version in RoomVersion::all().iter().filter(|version| version.restricted_joins) {
        let mut net = Net::new(version.id);
        net.send(0, state_event("m.room.join_rules", "", json!({ "join_rule": "restricted", "allow": [] }))).unwrap();
        net.heal();
        let join = |by: &str| {
            state_event("m.room.member", USERS[4], json!({ "membership": "join", "join_authorised_via_users_server": by }))
        };
        let (no_member, member) = (join(USERS[5]), join(USERS[2]));
        net.do_or_cosign(4, no_member);
        assert!(
            matches!(net.deliver(0, net.sent.len() - 1), Outcome::Rejected(reason) if reason.contains("the authoriser is not joined"))
        );
        net.do_or_cosign(4, member).unwrap();
        assert!(matches!(net.deliver(0, net.sent.len() - 1), Outcome::Accepted(_)), "version {}", version.id);
        // Without the signature it is not even verified.
        let mut json = net.sent.last().unwrap().event().object().unwrap();
        json["signatures"].as_object_mut().unwrap().remove(SERVERS[2]);
        let unsigned = RawPdu::from_object(json).parse(net.version).unwrap();
        let key = |server: &ServerName, _: &str| {
            Some(VerifyKey { key: key_of(server.as_str()).public(), validity: Validity::Until(u64::MAX) })
        };
        assert!(unsigned.verify(key).is_err());
        net.heal();
        net.check();
        net.done();
    }
}

#[test]
fn a_third_party_invite_holds_on_every_server() {
    for version in RoomVersion::all() {
        let mut net = Net::new(version.id);
        net.send(0, state_event("m.room.join_rules", "", json!({ "join_rule": "invite" }))).unwrap();
        net.send(0, deed(version.id, 14, 0, 2)).unwrap();
        // To the user of number 4: the invite's target is told by the value.
        let invite = deed(version.id, 15, 0, 28);
        assert_eq!(invite.state_key.as_deref(), Some(USERS[4]));
        net.send(0, invite).unwrap();
        net.heal();
        net.send(4, deed(version.id, 5, 4, 1)).unwrap();
        net.heal();
        net.check();
        let db = net.replicas[2].world.store.snapshot();
        let guest = net.replicas[2].world.here(USERS[4]);
        assert!(members::is_joined(&db, guest.no, net.replicas[2].room).unwrap(), "version {}", version.id);
        net.done();
    }
}
