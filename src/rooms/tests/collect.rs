//! Trees that share their nodes, and what becomes of the nodes that nothing needs.

use ruma::OwnedEventId;
use store::{Lead, Range, Read as _};

use super::{
    shared::{Shared, state_event},
    *,
};
use crate::{collect, receive::Outcome, tree::NODES};

fn nodes(world: &World, room: RoomNo) -> usize {
    world.store.snapshot().range(&NODES, Range::of(&Lead((room,)))).unwrap().count()
}

/// Every state of a room as the ids of its events, by the event that it is before, after, or current at.
fn states(world: &World, room: RoomNo) -> Vec<Vec<OwnedEventId>> {
    let db = world.store.snapshot();
    let head = head(&db, room).unwrap();
    let headers = (1..=head.events).map(|no| events::event(&db, room, EventNo(no)).unwrap().header.clone());
    let roots = headers.flat_map(|header| [header.before, header.after, header.current]).chain([head.state]);
    let ids = |root| {
        let all = state::all(&db, room, root).unwrap().into_iter();
        all.map(|no| events::event(&db, room, no).unwrap().header.id.clone()).collect()
    };
    roots.map(ids).collect()
}

/// A room in which both servers set the same state at the same time, again and again, and keys appear in one fork only.
fn churned(rounds: usize) -> Shared {
    let shared = Shared::new("11");
    let users = json!({ "@alice:localhost": 100, "@bob:other.org": 90 });
    let levels = shared.alice_sends(state_event("m.room.power_levels", "", json!({ "users": users, "users_default": 50 })));
    assert!(matches!(shared.give(&levels), Outcome::Accepted(_)));
    for round in 0..rounds {
        let topic = |by: &str| state_event("m.room.topic", "", json!({ "topic": format!("{round} {by}") }));
        // A demotion that wins the fork takes the other's settings out of the state again.
        let users = json!({ "@alice:localhost": 100, "@bob:other.org": if round % 2 == 0 { 0 } else { 90 } });
        let bobs = [
            shared.bob_sends(topic("bob")),
            shared.bob_sends(state_event("org.example.setting", &format!("{round}"), json!({ "by": "bob" }))),
        ];
        let alices = [
            shared.alice_sends(state_event("m.room.power_levels", "", json!({ "users": users, "users_default": 0 }))),
            shared.alice_sends(topic("alice")),
        ];
        bobs.iter().for_each(|id| assert!(!matches!(shared.take(id), Outcome::Missing(_)), "round {round}"));
        alices.iter().for_each(|id| assert!(!matches!(shared.give(id), Outcome::Missing(_)), "round {round}"));
        // Alice's next event joins the forks, and gives bob his power back.
        let users = json!({ "@alice:localhost": 100, "@bob:other.org": 90 });
        let joined =
            shared.alice_sends(state_event("m.room.power_levels", "", json!({ "users": users, "users_default": round })));
        shared.give(&joined);
    }
    shared
}

#[test]
fn a_room_with_much_churn_gets_its_space_back_and_nothing_needed_goes() {
    let shared = churned(40);
    for (world, room) in [(&shared.here, shared.room), (&shared.there, shared.copy)] {
        let (before, of_before, old) = (states(world, room), nodes(world, room), world.store.snapshot());
        let reader = head(&old, room).unwrap().state;
        let collected = collect::collect(&world.store, room, || false).unwrap();
        assert!(collected.removed > 0, "{collected:?}");
        assert_eq!(nodes(world, room) as u64, collected.kept);
        assert_eq!(of_before as u64, collected.kept + collected.removed);
        assert_eq!(states(world, room), before);
        assert!(!state::all(&old, room, reader).unwrap().is_empty(), "a reader goes on with what it has");
        let again = collect::collect(&world.store, room, || false).unwrap();
        assert_eq!((again.kept, again.removed), (collected.kept, 0));
        let db = world.store.snapshot();
        assert_eq!(check::events(&db, room, EventNo(0), 100_000).unwrap().faults, Vec::new());
        assert_eq!(check::end(&db, room).unwrap(), Vec::new());
    }
    // And the room goes on.
    let id = shared.alice_sends(state_event("m.room.topic", "", json!({ "topic": "after all" })));
    shared.give(&id);
    assert_eq!(check::end(&shared.here.store.snapshot(), shared.room).unwrap(), Vec::new());
}

#[test]
fn what_nothing_needs_goes_in_bounded_writes_and_a_cut_off_run_is_taken_up_again() {
    let world = World::new();
    let alice = world.user("alice");
    let (room, _) = world.room(&alice, "12", Preset::PrivateChat);
    assert!(collect::due(&world.store.snapshot()).unwrap().is_empty(), "not worth a look");
    let waste = |tx: &mut store::Tx<'_>| -> Result<()> {
        let mut open = OpenRoom::new(tx, room)?;
        let root = open.head.state;
        for n in 0..3_000_u32 {
            state::with(open.tx, room, &mut open.head, root, ("org.example", "key"), EventNo(n + 1))?;
        }
        open.save()
    };
    world.store.transact(&[Lock::Room(room)], waste).unwrap().wait().unwrap();
    assert_eq!(collect::due(&world.store.snapshot()).unwrap(), [room]);
    let before = nodes(&world, room);
    let asked = std::cell::Cell::new(0);
    let cut_off = collect::collect(&world.store, room, || asked.replace(asked.get() + 1) > 0).unwrap();
    assert_eq!((cut_off.removed, nodes(&world, room)), (1_000, before - 1_000));
    assert_eq!(collect::due(&world.store.snapshot()).unwrap(), [room], "not done");
    let rest = collect::collect(&world.store, room, || false).unwrap();
    assert!(rest.removed > 3_000 && nodes(&world, room) as u64 == rest.kept, "{rest:?}");
    assert!(collect::due(&world.store.snapshot()).unwrap().is_empty());
    world.say(&alice, room, "still here").unwrap();
    assert_eq!(check::end(&world.store.snapshot(), room).unwrap(), Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn many_changes_at_once_make_the_tree_that_single_ones_make(
        first in proptest::collection::vec((0..3_u32, 0..40_u32, 1..1000_u32), 0..40),
        then in proptest::collection::vec((0..3_u32, 0..40_u32, 0..1000_u32), 0..40),
    ) {
        let world = World::new();
        let room = RoomNo(9);
        let check = |tx: &mut store::Tx<'_>| -> Result<()> {
            tx.own_new(Lock::Room(room));
            let mut head = Head::default();
            let place = |tx: &mut store::Tx<'_>, head: &mut Head, kind: u32, key: u32| {
                state::intern(tx, room, head, (&format!("type{kind}"), &format!("key{key}")))
            };
            let (mut root, mut model) = (Root::default(), BTreeMap::new());
            for (kind, key, event) in &first {
                let at = place(tx, &mut head, *kind, *key)?;
                root = state::changed(tx, room, &mut head, root, &BTreeMap::from([(at, Some(EventNo(*event)))]))?;
                model.insert(at, EventNo(*event));
            }
            let mut changes = BTreeMap::new();
            for (kind, key, event) in &then {
                let (at, event) = (place(tx, &mut head, *kind, *key)?, (*event > 300).then_some(EventNo(*event)));
                changes.insert(at, event);
            }
            for (at, event) in &changes {
                match event {
                    Some(event) => drop(model.insert(*at, *event)),
                    None => drop(model.remove(at)),
                }
            }
            let changed = state::changed(tx, room, &mut head, root, &changes)?;
            let anew = model.iter().map(|(at, event)| (*at, Some(*event))).collect();
            let anew = state::changed(tx, room, &mut head, Root::default(), &anew)?;
            assert_eq!(state::places_of_difference(tx, room, changed, anew)?, []);
            for (at, event) in &model {
                assert_eq!(state::at(tx, room, changed, *at)?, Some(*event));
            }
            assert_eq!(state::all(tx, room, changed)?.len(), model.len());
            let before = head.nodes;
            assert_eq!(state::changed(tx, room, &mut head, changed, &changes)?, changed);
            assert_eq!(head.nodes, before, "what changes nothing writes nothing");
            Ok(())
        };
        world.store.transact(&[], check).unwrap().wait().unwrap();
    }
}
