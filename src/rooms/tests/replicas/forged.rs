//! What a hostile server sends: events that hang anywhere and cite what they like, with right signatures.

use protocol::{
    auth,
    draft::{self, Draft, Reference},
    hash,
    version::EventIdFormat,
};

use super::*;

/// What is wrong with an event's auth events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forgery {
    /// Nothing, but the state before it may not allow the event.
    Nothing,
    /// Any older events take the place of the newest.
    Stale,
    /// One is of a type that is not asked for.
    WrongType,
    /// One is of another room.
    OtherRoom,
    /// One was rejected.
    Rejected,
    /// Nobody has one of them.
    MissingAuth,
    /// Nobody has one of its parents.
    MissingParent,
    /// A parent is of another room.
    ParentElsewhere,
    /// One is there twice.
    Twice,
    /// Two are of one type and state key.
    TwoOfAType,
    /// One is not there.
    Fewer,
    /// There are none.
    None,
}

impl Forgery {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop::sample::select(vec![
            Self::Nothing,
            Self::Nothing,
            Self::Stale,
            Self::Stale,
            Self::WrongType,
            Self::OtherRoom,
            Self::Rejected,
            Self::MissingAuth,
            Self::MissingParent,
            Self::ParentElsewhere,
            Self::Twice,
            Self::TwoOfAType,
            Self::Fewer,
            Self::None,
        ])
    }
}

impl Net {
    /// Shares an event that is wrong in this way, after any of the latest events.
    pub(super) fn forge(&mut self, by: usize, new: NewEvent, how: Forgery, parents: &[usize], pick: usize) {
        let order = &self.model.order;
        let mut prev: Vec<OwnedEventId> =
            parents.iter().map(|back| order[order.len() - 1 - back % order.len()].clone()).collect();
        prev.sort();
        prev.dedup();
        let mut auth = self.selected(by, &new, &prev);
        let any = |ids: Vec<OwnedEventId>| (!ids.is_empty()).then(|| ids[pick % ids.len()].clone());
        let at = pick % auth.len().max(1);
        match how {
            Forgery::Nothing => {}
            Forgery::Stale => {
                for id in &mut auth {
                    *id = any(self.of_the_pair(id)).unwrap_or_else(|| id.clone());
                }
            }
            Forgery::WrongType => auth.extend(any(self.model.order.clone())),
            Forgery::OtherRoom if pick.is_multiple_of(2) => auth.extend(any(self.elsewhere())),
            Forgery::OtherRoom => auth = auth.into_iter().map(|id| self.twin_elsewhere(&id).unwrap_or(id)).collect(),
            Forgery::Rejected => {
                let rejected = self.model.after.iter().filter(|(_, (rejected, _))| *rejected);
                auth.extend(any(rejected.map(|(id, _)| id.clone()).collect()));
            }
            Forgery::MissingAuth => auth.push(self.unknown(pick)),
            Forgery::MissingParent => prev.push(self.unknown(pick)),
            Forgery::ParentElsewhere => prev.extend(any(self.elsewhere())),
            Forgery::Twice => auth.extend(auth.get(at).cloned()),
            Forgery::TwoOfAType => auth.extend(auth.get(at).and_then(|id| any(self.of_the_pair(id)))),
            Forgery::Fewer => drop((!auth.is_empty()).then(|| auth.remove(at))),
            Forgery::None => auth.clear(),
        }
        let event = self.craft(by, new, prev, auth);
        if !self.sent.iter().any(|sent| sent.event().id == event.event().id) {
            self.share(event);
        }
    }

    /// All events of this one's type and state key.
    fn of_the_pair(&self, id: &EventId) -> Vec<OwnedEventId> {
        let pair = self.model.find(id).and_then(|event| event.state_pair());
        let all = self.model.order.iter().filter(|other| self.model.find(other).and_then(|event| event.state_pair()) == pair);
        all.cloned().collect()
    }

    fn elsewhere(&self) -> Vec<OwnedEventId> {
        self.model.elsewhere().map(|event| event.id.clone()).collect()
    }

    /// The other room's event of this one's type and state key.
    fn twin_elsewhere(&self, id: &EventId) -> Option<OwnedEventId> {
        let pair = self.model.find(id)?.state_pair();
        self.model.elsewhere().find(|event| event.state_pair() == pair).map(|event| event.id.clone())
    }

    /// An id that no event has.
    pub(super) fn unknown(&self, pick: usize) -> OwnedEventId {
        let hash = hash::event_id(&hash::sha256(&[pick as u8]), self.version);
        hash.unwrap_or_else(|| EventId::parse(format!("$unknown{pick}:a.org")).unwrap())
    }

    /// The auth events that honest servers give an event after these.
    pub(super) fn selected(&self, by: usize, new: &NewEvent, prev: &[OwnedEventId]) -> Vec<OwnedEventId> {
        let before = self.model.before(prev);
        let content = serde_json::value::to_raw_value(&new.content).unwrap();
        let types = auth::auth_types(self.version, &new.kind, new.state_key.as_deref(), USERS[by], &content);
        types.iter().filter_map(|(kind, key)| before.get(&((*kind).to_owned(), key.to_string())).cloned()).collect()
    }

    /// An event with these parents and auth events, signed by all servers that have to.
    pub(super) fn craft(&self, by: usize, new: NewEvent, prev: Vec<OwnedEventId>, auth: Vec<OwnedEventId>) -> Verified {
        let chosen = self.version.event_ids == EventIdFormat::Chosen;
        let reference = |id: OwnedEventId| {
            let hash = self.model.find(&id).map(|event| hash::reference_hash(event, self.version).unwrap());
            Reference { id, hash: chosen.then(|| hash.unwrap_or_default()) }
        };
        let depth = prev.iter().filter_map(|id| self.model.find(id)).map(|event| event.depth + 1).max().unwrap_or(1);
        let authoriser = new.content.get("join_authorised_via_users_server").and_then(|user| user.as_str()).map(str::to_owned);
        let draft = Draft {
            room_id: Some(self.room.clone()),
            sender: USERS[by].try_into().unwrap(),
            kind: new.kind,
            state_key: new.state_key,
            content: new.content,
            redacts: None,
            origin_server_ts: 10_000 + self.sent.len() as u64,
            depth,
            prev_events: prev.into_iter().map(reference).collect(),
            auth_events: auth.into_iter().map(reference).collect(),
            opaque_id: chosen.then(|| format!("{}-{}", self.room.strip_sigil().replace(':', "-"), self.sent.len())),
        };
        let server = SERVERS[by % SERVERS.len()];
        let built = draft::build(self.version, draft, &key_of(server), server.try_into().unwrap()).unwrap();
        let signed = authoriser.map(|user| {
            let server = user.rsplit(':').next().unwrap().to_owned();
            sign::cosign(built.event(), self.version, server.as_str().try_into().unwrap(), &key_of(&server)).unwrap()
        });
        verified(&signed.as_ref().unwrap_or(built.event()).json, self.version)
    }
}
