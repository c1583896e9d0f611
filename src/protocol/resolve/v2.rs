//! State resolution of room versions 2 to 12.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::order::{ById, by_mainline, by_power};
use super::{ByKey, Conflict, Node, Resolved, Source, Unresolvable, known};
use crate::auth::{authorize, is_judged_by_sender, may_be_cited};
use crate::content::text_field;
use crate::event::Event;
use crate::version::{RoomVersion, StateResolution};

/// "Algorithm" of the room version.
pub(super) fn resolve<S: Source>(
    version: &RoomVersion,
    conflict: &Conflict<S::Id>,
    unconflicted: &dyn Fn(&str, &str) -> Option<S::Id>,
    source: &S,
) -> Resolved<S::Id> {
    let full = full_conflicted_set(version, conflict, source)?;
    let room = Room { version, source, create: RefCell::default() };
    let mut state = Partial {
        room: &room,
        unconflicted,
        entered: Vec::new(),
        decisive: ByKey::new(),
        agreed: RefCell::new(ByKey::new()),
        cited: RefCell::default(),
        judged: ByKey::new(),
        changes: 0,
    };
    // Steps 1 and 2.
    let power_events = with_auth_chains(&full);
    for id in by_power(&room, &power_events) {
        if let Some(node) = full.get(&id) {
            state.apply(&id, node);
        }
    }
    // Steps 3 and 4.
    let rest = full.iter().filter(|(id, _)| !power_events.contains_key(*id));
    let power_levels = state.entry("m.room.power_levels", "");
    for (id, node) in by_mainline(rest, power_levels, source) {
        state.apply(id, node);
    }
    // Step 5. No entry of a conflicted event is unconflicted.
    let mut entered = state.entered;
    entered.retain(|(id, event)| {
        let is_agreed = || event.state_pair().is_some_and(|(kind, key)| unconflicted(kind, key).is_some());
        conflict.conflicted.contains(id) || !is_agreed()
    });
    Ok(entered)
}

/// The room that is resolved.
pub(super) struct Room<'a, S> {
    pub(super) version: &'a RoomVersion,
    pub(super) source: &'a S,
    create: RefCell<Option<Create>>,
}

/// The create event that was looked for last.
struct Create {
    /// An event of its room.
    of: Arc<Event>,
    found: Option<Arc<Event>>,
}

impl<S: Source> Room<'_, S> {
    /// Version 12: the create event, whose id is the room's.
    pub(super) fn create_of(&self, event: &Arc<Event>) -> Option<Arc<Event>> {
        let mut last = self.create.borrow_mut();
        match &*last {
            Some(Create { of, found }) if of.room_id == event.room_id => found.clone(),
            _ => {
                let id = ruma::EventId::parse(format!("${}", event.room_id.strip_sigil())).ok();
                let found = id.and_then(|id| Some(self.source.node(&self.source.named(&id)?)?.event));
                *last = Some(Create { of: Arc::clone(event), found: found.clone() });
                found
            }
        }
    }
}

/// The full conflicted set: the conflicted state set, the auth difference, and from version 12 on the conflicted state
/// subgraph. What is no state event has no place in a state.
fn full_conflicted_set<S: Source>(
    version: &RoomVersion,
    conflict: &Conflict<S::Id>,
    source: &S,
) -> Result<ById<S::Id>, Unresolvable<S::Id>> {
    let conflicted = conflict.conflicted.iter().map(|id| Ok((id.clone(), known(source, id)?)));
    let mut full = conflicted.collect::<Result<ById<S::Id>, _>>()?;
    let subgraph = (version.resolution == StateResolution::V2_1).then_some(&conflict.subgraph).into_iter().flatten();
    for id in conflict.auth_difference.iter().chain(subgraph) {
        if !full.contains_key(id) {
            let node = known(source, id)?;
            full.insert(id.clone(), node);
        }
    }
    full.retain(|_, node| node.event.state_key.is_some());
    Ok(full)
}

/// The power events, and what of their auth chains is in the full conflicted set. As in Synapse a chain is
/// followed within the set only.
fn with_auth_chains<I: Clone + Ord>(full: &ById<I>) -> ById<I> {
    let mut selected: ById<I> = BTreeMap::new();
    for (id, node) in full.iter().filter(|(_, node)| is_power_event(&node.event)) {
        selected.insert(id.clone(), node.clone());
    }
    let mut unvisited: Vec<Node<I>> = selected.values().cloned().collect();
    while let Some(node) = unvisited.pop() {
        for (id, cited) in node.auth_events.iter().filter_map(|id| full.get_key_value(id)) {
            if selected.insert(id.clone(), cited.clone()).is_none() {
                unvisited.push(cited.clone());
            }
        }
    }
    selected
}

/// Whether the event might take someone's ability to do something. As in Synapse a create event is one too,
/// and other state keys than the empty one make none.
fn is_power_event(event: &Event) -> bool {
    match event.state_pair() {
        Some(("m.room.power_levels" | "m.room.join_rules" | "m.room.create", "")) => true,
        Some(("m.room.member", target)) if event.sender != target => {
            matches!(text_field(&event.content, "membership").as_deref(), Some("leave" | "ban"))
        }
        _ => false,
    }
}

/// The state as far as it is resolved.
struct Partial<'a, S: Source> {
    room: &'a Room<'a, S>,
    unconflicted: &'a dyn Fn(&str, &str) -> Option<S::Id>,
    /// What has entered it, in order.
    entered: Vec<(S::Id, Arc<Event>)>,
    /// The last entered of those entries by which others are judged.
    decisive: ByKey<Entry<S::Id>>,
    /// What was asked of the unconflicted state: the power levels, say, for each event.
    agreed: RefCell<ByKey<Option<Entry<S::Id>>>>,
    /// The accepted auth events of the event that was last judged: many cite the same.
    cited: RefCell<Cited<S::Id>>,
    /// By type and sender what was said of the last event that is judged by these alone.
    judged: ByKey<Judged<S::Id>>,
    /// How often an entry changed by which others are judged.
    changes: usize,
}

/// The event of an entry, and what stands for it.
type Entry<I> = (I, Node<I>);

/// What was said of an event, and after how many changes.
struct Judged<I> {
    node: Node<I>,
    changes: usize,
    allowed: bool,
}

/// The ids of auth events, and those of them that are accepted.
type Cited<I> = Option<(Arc<[I]>, Rc<[Arc<Event>]>)>;

impl<S: Source> Partial<'_, S> {
    /// One step of the iterative auth checks: the event enters the state if the state allows it.
    fn apply(&mut self, id: &S::Id, node: &Node<S::Id>) {
        let event = &node.event;
        let Some((kind, key)) = event.state_pair() else { return };
        // The specification lets an event that was rejected by the state before it in after all. Like Synapse, Hearth
        // does not: a rejected event never enters the state.
        if node.rejected {
            return;
        }
        if self.allows(node, (kind, event.sender.as_str())) {
            if may_be_cited(kind) {
                self.decisive.insert(kind, key, (id.clone(), node.clone()));
                self.changes += 1;
            }
            self.entered.push((id.clone(), Arc::clone(event)));
        }
    }

    /// Whether the state allows the event. Thousands of one sender's events are judged once, as long as nothing changes by which they are.
    fn allows(&mut self, node: &Node<S::Id>, (kind, sender): (&str, &str)) -> bool {
        let by_sender = is_judged_by_sender(&node.event);
        if by_sender
            && let Some(Judged { node: last, changes, allowed }) = self.judged.get(kind, sender)
            && *changes == self.changes
            && last.auth_events == node.auth_events
            && last.event.room_id == node.event.room_id
        {
            return *allowed;
        }
        let allowed = authorize(self.room.version, &node.event, |kind, key| {
            let cited = || self.cited(node).iter().rev().find(|cited| cited.state_pair() == Some((kind, key))).cloned();
            let entry = self.entry(kind, key).map(|(_, node)| node.event);
            entry.or_else(cited).or_else(|| self.implied_create(&node.event, kind, key))
        });
        let allowed = allowed.is_ok();
        if by_sender {
            self.judged.insert(kind, sender, Judged { node: node.clone(), changes: self.changes, allowed });
        }
        allowed
    }

    fn cited(&self, node: &Node<S::Id>) -> Rc<[Arc<Event>]> {
        let mut last = self.cited.borrow_mut();
        match &*last {
            Some((ids, cited)) if *ids == node.auth_events => Rc::clone(cited),
            _ => {
                let cited: Rc<[Arc<Event>]> = node.auth_events.iter().filter_map(|id| Some(self.accepted(id)?.event)).collect();
                *last = Some((Arc::clone(&node.auth_events), Rc::clone(&cited)));
                cited
            }
        }
    }

    /// The state's event of this type and state key, if others are judged by it. Version 2.1 starts from nothing, 2 from the unconflicted state.
    fn entry(&self, kind: &str, key: &str) -> Option<Entry<S::Id>> {
        if let Some(entry) = self.decisive.get(kind, key) {
            return Some(entry.clone());
        }
        if self.room.version.resolution == StateResolution::V2_1 {
            return None;
        }
        if let Some(agreed) = self.agreed.borrow().get(kind, key) {
            return agreed.clone();
        }
        let agreed = (self.unconflicted)(kind, key);
        let agreed = agreed.and_then(|id| self.accepted(&id).map(|node| (id, node)));
        self.agreed.borrow_mut().insert(kind, key, agreed.clone());
        agreed
    }

    fn accepted(&self, id: &S::Id) -> Option<Node<S::Id>> {
        self.room.source.node(id).filter(|node| !node.rejected)
    }

    /// Version 12: no event cites the create event, its room id implies it.
    fn implied_create(&self, event: &Arc<Event>, kind: &str, key: &str) -> Option<Arc<Event>> {
        let implied = self.room.version.version_12 && (kind, key) == ("m.room.create", "");
        implied.then(|| self.room.create_of(event)).flatten()
    }
}
