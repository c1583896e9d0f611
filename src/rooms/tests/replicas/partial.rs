//! A server that enters the room without being told of all members, gets events meanwhile, and is told the whole state then: it must hold the states that it
//! would hold had it known all from the start.

use std::collections::BTreeSet;

use protocol::resolve::Events as _;

use super::*;
use crate::{
    partial::{self, Omitted},
    resync::{self, Before, Step},
};

/// The server that enters.
struct Entering {
    world: World,
    user: Sender,
    room: RoomNo,
    join: EventNo,
    /// The whole state before its join.
    before: StateMap,
}

impl Net {
    fn by_id(&self, id: &EventId) -> Verified {
        self.sent.iter().find(|event| event.event().id == id).unwrap().clone()
    }

    /// These events and their auth chains.
    fn chain(&self, of: impl IntoIterator<Item = OwnedEventId>) -> BTreeSet<OwnedEventId> {
        let mut unvisited: Vec<OwnedEventId> = of.into_iter().collect();
        let mut chain = BTreeSet::new();
        while let Some(id) = unvisited.pop() {
            if let Some(event) = self.model.event(&id)
                && chain.insert(id)
            {
                unvisited.extend(event.auth_events.iter().cloned());
            }
        }
        chain
    }

    /// A join by way of the first server, with what that tells where members are left out.
    fn enter(&mut self) -> Entering {
        let world = World::of(JOINER, SERVERS.len() as u8);
        let resident = &self.replicas[0];
        let at_resident = resident.world.here("@user:d.org");
        let change = Change { target: at_resident.id.clone(), to: Action::Join, content: Object::new() };
        let store = &resident.world.store;
        membership::change(store, &world.identity, &at_resident, resident.room, change, 9000).unwrap().wait().unwrap();
        let db = store.snapshot();
        let root = head(&db, resident.room).unwrap().state;
        let join = state::event(&db, resident.room, root, "m.room.member", "@user:d.org").unwrap().unwrap();
        let join = verified(&join.event.json, self.version);
        self.share(join.clone());

        let before = self.model.before(&join.event().prev_events);
        let mut told: Vec<OwnedEventId> =
            before.iter().filter(|((kind, _), _)| kind != "m.room.member").map(|(_, id)| id.clone()).collect();
        told.sort_unstable();
        let create = before[&("m.room.create".to_owned(), String::new())].clone();
        let room = receive::import(&world.store, self.by_id(&create), self.version).unwrap().wait().unwrap();
        let entering = Entering { user: world.here("@user:d.org"), world, room, join: EventNo(0), before };
        entering.outliers(self, told.iter().chain(&join.event().auth_events).cloned());
        let omitted = Omitted {
            via: SERVERS[0].try_into().unwrap(),
            servers: SERVERS.into_iter().map(|server| server.try_into().unwrap()).collect(),
        };
        let Entering { user, world, room, .. } = &entering;
        let outcome =
            receive::enter(&world.store, &world.identity, user, *room, join, &told, Some(omitted)).unwrap().wait().unwrap();
        let Outcome::Accepted(join) = outcome else { panic!("{outcome:?}") };
        Entering { join, ..entering }
    }
}

impl Entering {
    fn outliers(&self, net: &Net, of: impl IntoIterator<Item = OwnedEventId>) {
        let events: Vec<Verified> = net.chain(of).iter().map(|id| net.by_id(id)).collect();
        let missing = receive::receive_outliers(&self.world.store, self.room, events).unwrap().wait().unwrap();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// Gives the server an event, with what it cites and the state before it where it lacks them. Events that cite refused ones are not for a server that cannot
    /// know of those.
    fn get(&self, net: &Net, event: &Verified) {
        let inner = event.event();
        let chain = net.chain(inner.auth_events.iter().cloned());
        let knows_all = net.model.holds(&inner.id) && inner.auth_events.iter().all(|id| chain.contains(id));
        if !knows_all || chain.iter().any(|id| net.model.after[id].0) {
            return;
        }
        self.outliers(net, chain);
        let store = &self.world.store;
        let outcome = receive::receive(store, self.room, event.clone()).unwrap().wait().unwrap();
        if let Outcome::Missing(missing) = outcome {
            assert!(missing.auth_events.is_empty(), "{missing:?}");
            let before: Vec<OwnedEventId> = net.model.before(&inner.prev_events).into_values().collect();
            self.outliers(net, before.iter().cloned());
            let outcome = receive::receive_with_state(store, self.room, event.clone(), &before).unwrap().wait().unwrap();
            assert!(!matches!(outcome, Outcome::Missing(_)), "{outcome:?}");
        }
    }

    /// What its user sends, which the others get.
    fn send(&self, net: &mut Net, value: u8) {
        let name = json!({ "membership": "join", "displayname": value.to_string() });
        let new = match value % 3 {
            0 => NewEvent::state("m.room.member", "@user:d.org", name.as_object().unwrap().clone()),
            1 => NewEvent::state("org.example", "d", json!({ "value": value }).as_object().unwrap().clone()),
            _ => NewEvent { kind: "m.room.message".to_owned(), ..NewEvent::default() },
        };
        let now_ms = 10_000 + net.sent.len() as u64;
        let Ok(sent) = send::send(&self.world.store, &self.world.identity, &self.user, self.room, new, None, now_ms) else {
            return;
        };
        let id = sent.wait().unwrap();
        let (_, stored) = events::by_id(&self.world.store.snapshot(), self.room, &id).unwrap().unwrap();
        if !net.model.holds(&id) {
            net.share(verified(&stored.event.json, net.version));
        }
    }

    fn step(&self, before: Option<&[OwnedEventId]>) -> Step {
        let before = before.map(|state| Before { event: self.join, state: state.to_vec(), parent: None });
        resync::step(&self.world.store, self.room, before.as_ref()).unwrap().wait().unwrap()
    }

    /// All states are those that whole states resolve to, and the room's end is what follows from them.
    fn check(&self, net: &Net) {
        let db = self.world.store.snapshot();
        assert!(!partial::is_partial(&db, self.room).unwrap());
        for (id, (rejected, after)) in &net.model.after {
            let Some((_, stored)) = events::placed(&db, self.room, id).unwrap() else { continue };
            let found = (stored.rejection().is_some(), whole(&db, self.room, stored.header.after));
            assert_eq!(found, (*rejected, after.clone()), "after {id}, version {}", net.version.id);
            let is_shown = stored.header.standing == events::Standing::Accepted;
            assert_eq!(stored.header.pos.is_some(), is_shown, "what is accepted is shown");
        }
        let head = head(&db, self.room).unwrap();
        let id = |no: &EventNo| events::event(&db, self.room, *no).unwrap().header.id.clone();
        let ends: Vec<StateMap> = head.extremities.iter().map(|no| net.model.after[&id(no)].1.clone()).collect();
        assert_eq!(whole(&db, self.room, head.state), resolve_states(net.version, &ends, &net.model).unwrap());
        assert_eq!(check::events(&db, self.room, EventNo(0), 10_000).unwrap().faults, Vec::new());
        assert_eq!(check::end(&db, self.room).unwrap(), Vec::new());
        let joined: BTreeSet<String> = members::members(&db, self.room)
            .unwrap()
            .map(Result::unwrap)
            .filter(|(_, membership)| *membership == Membership::Join)
            .map(|(user, _)| users::numbers::user_id(&db, user).unwrap().server_name().to_string())
            .collect();
        let servers: BTreeSet<String> =
            servers::servers(&db, self.room).unwrap().map(|server| server.unwrap().to_string()).collect();
        assert_eq!(servers, joined, "the servers are those of the members");
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_server_that_enters_without_all_members_comes_to_the_states_of_those_that_know_all(
        version in versions(),
        earlier in prop::collection::vec(happening(), 0..10),
        later in prop::collection::vec((happening(), 0..3_u8), 0..12),
        seen in 0..6_usize,
    ) {
        let mut net = Net::new(version.id);
        for happening in earlier {
            net.happen(happening);
        }
        // Who may join is another matter.
        net.send(0, deed(version.id, 8, 0, 1));
        if join_rule(&net).as_deref() != Some("public") {
            net.done();
            return Ok(());
        }
        let entering = net.enter();
        let before: Vec<OwnedEventId> = entering.before.values().cloned().collect();
        for (at, (happening, sends)) in later.into_iter().enumerate() {
            let value = happening.value;
            net.happen(happening);
            if sends == 0 {
                entering.send(&mut net, value);
            }
            for event in net.sent.iter().rev().take(usize::from(sends)) {
                entering.get(&net, event);
            }
            if at == seen {
                // From then on it becomes whole, a part at a time.
                entering.outliers(&net, before.iter().cloned());
                entering.step(Some(&before));
            }
        }
        entering.outliers(&net, before.iter().cloned());
        let mut step = entering.step(Some(&before));
        while step == Step::More {
            step = entering.step(None);
        }
        entering.check(&net);
        for event in &net.sent {
            entering.get(&net, event);
        }
        entering.check(&net);
        net.done();
    }
}

/// Who may join, as the first server has it.
fn join_rule(net: &Net) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Rules {
        join_rule: String,
    }
    let Replica { world, room, .. } = &net.replicas[0];
    let db = world.store.snapshot();
    let root = head(&db, *room).unwrap().state;
    state::content::<Rules>(&db, *room, root, "m.room.join_rules", "").unwrap().map(|rules| rules.join_rule)
}
