//! What is left to read.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedEventId, OwnedUserId, push::Ruleset};
use serde_json::json;
use store::{Seq, Value};

use super::*;
use crate::{
    receipts::{self, Kind, Mark, Thread},
    unread::{Counts, Reader, Tally, Unread},
};

impl World {
    fn unread_but(&self, who: &Sender, room: RoomNo, ignored: &BTreeSet<OwnedUserId>) -> Unread {
        let db = self.store.snapshot();
        let reader = Reader { user: who, rules: &Ruleset::server_default(&who.id), ignored, ignored_as_of: Seq(0) };
        let (mut tally, until) = (Tally::default(), Pos::last_of(db.seq()));
        tally.count(&db, room, &reader, until).unwrap();
        tally.unread(until)
    }

    fn unread(&self, who: &Sender, room: RoomNo) -> Unread {
        self.unread_but(who, room, &BTreeSet::new())
    }

    fn send_as(&self, who: &Sender, room: RoomNo, content: serde_json::Value) -> ruma::OwnedEventId {
        let content = content.as_object().unwrap().clone();
        let new = NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() };
        send::send(&self.store, &self.identity, who, room, new, None, 2000).unwrap().wait().unwrap()
    }

    fn read(&self, who: &Sender, room: RoomNo, thread: Thread, event: &ruma::EventId) {
        let mark = Mark::Read { kind: Kind::Private, thread, event: event.to_owned() };
        receipts::mark(&self.store, who, room, &[mark], 1).unwrap().wait().unwrap();
    }

    fn three(&self) -> (Sender, Sender, RoomNo) {
        let (alice, bob, carol) = (self.user("alice"), self.user("bob"), self.user("carol"));
        let (room, _) = self.room(&alice, "12", Preset::PublicChat);
        self.say(&alice, room, "before he came").unwrap();
        self.change(&carol, room, &carol, Action::Join).unwrap();
        self.change(&bob, room, &bob, Action::Join).unwrap();
        (alice, bob, room)
    }
}

fn counts(notifications: u32, highlights: u32) -> Counts {
    Counts { notifications, highlights }
}

#[test]
fn what_came_after_the_receipt_is_unread() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    assert_eq!(world.unread(&bob, room), Unread::default(), "history from before one joined is no news");
    let first = world.say(&alice, room, "1").unwrap();
    let mention = json!({ "body": "Bob!", "msgtype": "m.text", "m.mentions": { "user_ids": [bob.id] } });
    world.send_as(&alice, room, mention);
    let last = world.send_as(&alice, room, json!({ "body": "for the record", "msgtype": "m.notice" }));
    assert_eq!(world.unread(&bob, room).total(), counts(2, 1));
    assert_eq!(world.unread(&alice, room).total(), counts(0, 0), "one's own events are no news");
    let ignored = BTreeSet::from([alice.id.clone()]);
    assert_eq!(world.unread_but(&bob, room, &ignored), Unread::default());
    world.read(&bob, room, Thread::Unthreaded, &first);
    assert_eq!(world.unread(&bob, room).total(), counts(1, 1));
    world.read(&bob, room, Thread::Unthreaded, &last);
    assert_eq!(world.unread(&bob, room), Unread::default());
    world.say(&alice, room, "2").unwrap();
    world.say(&bob, room, "I know").unwrap();
    assert_eq!(world.unread(&bob, room), Unread::default(), "who answers has read");
    world.change(&alice, room, &bob, Action::Kick).unwrap();
    assert_eq!(world.unread(&bob, room), Unread::default());
}

#[test]
fn a_thread_is_read_on_its_own() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    let root = world.say(&alice, room, "root").unwrap();
    let thread = |body: &str| {
        let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
        json!({ "body": body, "msgtype": "m.text", "m.relates_to": relates_to })
    };
    let first = world.send_as(&alice, room, thread("1"));
    world.send_as(&alice, room, thread("2"));
    let unread = world.unread(&bob, room);
    assert_eq!((unread.main, unread.threads[&root], unread.total()), (counts(1, 0), counts(2, 0), counts(3, 0)));
    world.read(&bob, room, Thread::Main, &root);
    world.read(&bob, room, Thread::Root(root.clone()), &first);
    let unread = world.unread(&bob, room);
    assert_eq!((unread.main, unread.threads[&root]), (counts(0, 0), counts(1, 0)));
    world.say(&bob, room, "in the main timeline").unwrap();
    assert_eq!(world.unread(&bob, room).total(), counts(1, 0), "an answer elsewhere does not read the thread");
    world.send_as(&bob, room, thread("3"));
    assert_eq!(world.unread(&bob, room), Unread::default());
}

#[test]
fn what_was_redacted_is_not_left_to_read() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    let said = world.say(&alice, room, "1").unwrap();
    let new = NewEvent { kind: "m.room.redaction".into(), redacts: Some(said), ..NewEvent::default() };
    send::send(&world.store, &world.identity, &alice, room, new, None, 1).unwrap().wait().unwrap();
    assert_eq!(world.unread(&bob, room), Unread::default());
}

/// Something that happens in a room while bob is away. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Say { by: usize, thread: usize, mentions: bool },
    Redact(usize),
    Read { public: bool, unthreaded: bool, event: usize },
    Answer(usize),
    Rename(u8),
    Leave,
    Join,
    Ignore(usize, bool),
    Mute(bool),
    Count,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2_usize, 0..3_usize, any::<bool>()).prop_map(|(by, thread, mentions)| Step::Say { by, thread, mentions }),
        2 => any::<usize>().prop_map(Step::Redact),
        3 => (any::<bool>(), any::<bool>(), any::<usize>())
            .prop_map(|(public, unthreaded, event)| Step::Read { public, unthreaded, event }),
        1 => (0..3_usize).prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::Rename),
        1 => Just(Step::Leave),
        2 => Just(Step::Join),
        1 => (0..2_usize, any::<bool>()).prop_map(|(whom, on)| Step::Ignore(whom, on)),
        1 => any::<bool>().prop_map(Step::Mute),
        4 => Just(Step::Count),
    ]
}

/// A message of others, as the model knows it.
struct Said {
    id: OwnedEventId,
    thread: usize,
    by: usize,
    mentions: bool,
    muted: bool,
    redacted: bool,
}

/// The plainest way to know what bob has not read: all that was ever said, looked through each time.
struct Model<'w> {
    world: &'w World,
    room: RoomNo,
    others: [Sender; 2],
    bob: Sender,
    roots: Vec<OwnedEventId>,
    said: Vec<Said>,
    /// By thread, and for all threads: how many of `said` are read.
    read: [usize; 4],
    joined: bool,
    muted: bool,
    ignored: BTreeSet<usize>,
    ignored_as_of: u64,
    tally: Tally,
    listed_max: usize,
}

const ALL_THREADS: usize = 3;

impl<'w> Model<'w> {
    fn new(world: &'w World, listed_max: usize) -> Self {
        let [alice, carol, bob] = ["alice", "carol", "bob"].map(|name| world.user(name));
        let (room, _) = world.room(&alice, "12", Preset::PublicChat);
        world.change(&carol, room, &carol, Action::Join).unwrap();
        let roots = (0..2).map(|root| world.say(&alice, room, &format!("root {root}")).unwrap()).collect();
        world.change(&bob, room, &bob, Action::Join).unwrap();
        let (said, read, ignored, tally) = (Vec::new(), [0; 4], BTreeSet::new(), Tally::default());
        let others = [alice, carol];
        Self {
            world,
            room,
            others,
            bob,
            roots,
            said,
            read,
            joined: true,
            muted: false,
            ignored,
            ignored_as_of: 0,
            tally,
            listed_max,
        }
    }

    fn message(&self, thread: usize, mentions: bool) -> serde_json::Value {
        let mut content = json!({ "msgtype": "m.text", "body": "hi" });
        if mentions {
            content["m.mentions"] = json!({ "user_ids": [self.bob.id] });
        }
        if let Some(root) = thread.checked_sub(1) {
            content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": self.roots[root] });
        }
        content
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Say { by, thread, mentions } => {
                let id = self.world.send_as(&self.others[by], self.room, self.message(thread, mentions));
                self.said.push(Said { id, thread, by, mentions, muted: self.muted, redacted: false });
            }
            Step::Redact(which) => self.redact(which),
            Step::Read { public, unthreaded, event } => self.read(public, unthreaded, event),
            Step::Answer(thread) if self.joined => {
                self.world.send_as(&self.bob, self.room, self.message(thread, false));
                self.read[thread] = self.said.len();
            }
            Step::Rename(name) => {
                let profile = json!({ "displayname": format!("bob {name}") }).as_object().unwrap().clone();
                let World { store, identity, .. } = self.world;
                membership::show_profile(store, identity, &self.bob, self.room, profile, 1).unwrap().wait().unwrap();
            }
            Step::Leave if self.joined => self.enter(Action::Leave),
            Step::Join if !self.joined => self.enter(Action::Join),
            Step::Ignore(whom, on) => {
                if on {
                    self.ignored.insert(whom)
                } else {
                    self.ignored.remove(&whom)
                };
                // All is counted anew then, by the rules of now.
                self.said.iter_mut().for_each(|said| said.muted = self.muted);
                self.ignored_as_of += 1;
                self.check();
            }
            Step::Mute(muted) => {
                self.check();
                self.muted = muted;
            }
            Step::Count => self.check(),
            Step::Answer(_) | Step::Leave | Step::Join => {}
        }
    }

    fn enter(&mut self, action: Action) {
        self.world.change(&self.bob, self.room, &self.bob, action).unwrap();
        self.joined = action == Action::Join;
        self.read[ALL_THREADS] = self.said.len();
    }

    fn redact(&mut self, which: usize) {
        if self.said.is_empty() {
            return;
        }
        let which = which % self.said.len();
        let said = &mut self.said[which];
        said.redacted = true;
        let new = NewEvent { kind: "m.room.redaction".into(), redacts: Some(said.id.clone()), ..NewEvent::default() };
        send::send(&self.world.store, &self.world.identity, &self.others[0], self.room, new, None, 1).unwrap().wait().unwrap();
    }

    fn read(&mut self, public: bool, unthreaded: bool, which: usize) {
        if self.said.is_empty() || !self.joined {
            return;
        }
        let which = which % self.said.len();
        let said = &self.said[which];
        let thread = match said.thread.checked_sub(1) {
            _ if unthreaded => Thread::Unthreaded,
            None => Thread::Main,
            Some(root) => Thread::Root(self.roots[root].clone()),
        };
        let read = &mut self.read[if unthreaded { ALL_THREADS } else { said.thread }];
        *read = (which + 1).max(*read);
        let mark = Mark::Read { kind: if public { Kind::Public } else { Kind::Private }, thread, event: said.id.clone() };
        receipts::mark(&self.world.store, &self.bob, self.room, &[mark], 1).unwrap().wait().unwrap();
    }

    fn expected(&self) -> Unread {
        let mut counts: BTreeMap<usize, Counts> = BTreeMap::new();
        for (place, said) in self.said.iter().enumerate().filter(|_| self.joined) {
            let read = self.read[said.thread].max(self.read[ALL_THREADS]);
            if place >= read && !said.redacted && !said.muted && !self.ignored.contains(&said.by) {
                let counts = counts.entry(said.thread).or_default();
                counts.notifications += 1;
                counts.highlights += u32::from(said.mentions);
            }
        }
        let main = counts.remove(&0).unwrap_or_default();
        Unread { main, threads: counts.into_iter().map(|(thread, counts)| (self.roots[thread - 1].clone(), counts)).collect() }
    }

    fn check(&mut self) {
        let db = self.world.store.snapshot();
        let mut rules = Ruleset::server_default(&self.bob.id);
        rules.set_enabled(ruma::push::RuleKind::Override, ".m.rule.master", self.muted).unwrap();
        let ignored = self.ignored.iter().map(|whom| self.others[*whom].id.clone()).collect();
        let reader = Reader { user: &self.bob, rules: &rules, ignored: &ignored, ignored_as_of: Seq(self.ignored_as_of) };
        let until = Pos::last_of(db.seq());
        self.tally.count_listing(&db, self.room, &reader, until, self.listed_max).unwrap();
        assert_eq!(self.tally.unread(until), self.expected());
        let mut stored = Vec::new();
        self.tally.encode(&mut stored).unwrap();
        assert_eq!(Tally::decode(&stored).unwrap(), self.tally);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_those_of_a_plain_model(steps in prop::collection::vec(step(), 1..60)) {
        let world = World::new();
        let mut model = Model::new(&world, 128);
        steps.iter().for_each(|step| model.apply(step));
        model.check();
    }

    /// Redactions and rules aside, which a sum of older notifications does not follow.
    #[test]
    fn sums_are_those_of_a_plain_model(steps in prop::collection::vec(step(), 1..120)) {
        let world = World::new();
        let mut model = Model::new(&world, 6);
        steps.iter().filter(|step| !matches!(step, Step::Redact(_) | Step::Mute(_))).for_each(|step| model.apply(step));
        model.check();
    }
}

#[test]
fn a_count_judges_what_is_new_alone() {
    let world = World::new();
    let (alice, bob, room) = world.three();
    let (rules, ignored) = (Ruleset::server_default(&bob.id), BTreeSet::new());
    let reader = Reader { user: &bob, rules: &rules, ignored: &ignored, ignored_as_of: Seq(0) };
    let mut tally = Tally::default();
    let mut judged = || {
        let db = world.store.snapshot();
        tally.count(&db, room, &reader, Pos::last_of(db.seq())).unwrap()
    };
    judged();
    for said in [1, 300, 2] {
        (0..said).for_each(|_| drop(world.say(&alice, room, "hi").unwrap()));
        assert_eq!((judged(), judged()), (said, 0));
    }
    let db = world.store.snapshot();
    assert_eq!(tally.unread(Pos::last_of(db.seq())).total(), counts(303, 0));
    let mut stored = Vec::new();
    tally.encode(&mut stored).unwrap();
    assert!(stored.len() < 2_000, "{} bytes", stored.len());
}
