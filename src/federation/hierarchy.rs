//! Walking through a space whose rooms lie on several servers.
//!
//! Specification: client-server API, "GET hierarchy"; server-server API, "Spaces". A room that this server is in is never asked of others. What another server says of a room
//! counts for that room and as the word of that server only, so that a liar spoils nobody's view of other servers' rooms. Every walk ends: no room
//! is entered twice, and rooms, steps, servers and time are bounded.

use std::{collections::HashSet, sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};
use rand::RngExt as _;
use rooms::{numbers, servers};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use store::UserNo;
use views::{
    directory::Summary,
    hierarchy::{Child, Node, SHOWN_MAX, arrange, node},
};

use crate::{Ask, Error, Federation, Result, fetch::v1, path, query};

/// Rooms of a page, where the request does not say.
const LIMIT_DEFAULT: usize = 50;
/// The most rooms of a page.
const LIMIT_MAX: usize = 100;
/// How deep a walk goes, whatever is asked for.
const DEPTH_MAX: u64 = 50;
/// The most rooms of a walk.
const ROOMS_MAX: usize = 5_000;
/// The most rooms that a walk still has before it. What is beyond is left out.
const STEPS_MAX: usize = 5_000;
/// The servers that are asked for one room.
const SERVERS_MAX: usize = 3;
/// How often others are asked for one page.
const ASKED_MAX: usize = 20;
/// How long others may take for one page, and each of them.
const PAGE_TIME: Duration = Duration::from_secs(20);
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long an answer serves, and how long one that did not come is not asked for again, in milliseconds.
const FRESH_MS: u64 = 5 * 60 * 1000;
const FAILED_MS: u64 = 60 * 1000;
/// Answers that are kept, in bytes as they came.
const KEPT_BYTES: u64 = 8 << 20;
/// Walks that may go on, by the rooms that they know of.
const KEPT_ROOMS: u64 = 50_000;

/// What a user asks.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asks.
    pub user: UserNo,
    /// Where the walk begins.
    pub room: OwnedRoomId,
    /// Whether only suggested children count.
    pub suggested_only: bool,
    /// How deep it goes.
    pub max_depth: Option<u64>,
    /// How many rooms a page has.
    pub limit: Option<u64>,
    /// The token of this page.
    pub from: Option<String>,
}

/// A part of a space.
pub struct Page {
    /// The rooms, each before its children.
    pub rooms: Vec<Node>,
    /// The token of the next page.
    pub next_batch: Option<String>,
}

/// What other servers told of spaces, and walks that may go on.
pub(crate) struct Spaces {
    /// By the server that told it.
    told: Cache<(OwnedServerName, OwnedRoomId), Arc<Told>, BySize>,
    walks: Cache<String, Arc<Walk>, ByRooms>,
}

impl Default for Spaces {
    fn default() -> Self {
        Self { told: Cache::with_weighter(1_000, KEPT_BYTES, BySize), walks: Cache::with_weighter(1_000, KEPT_ROOMS, ByRooms) }
    }
}

/// What a server told of a room; nothing where it did not answer.
struct Told {
    until_ms: u64,
    bytes: usize,
    level: Option<Level>,
}

#[derive(Clone)]
struct BySize;

impl Weighter<(OwnedServerName, OwnedRoomId), Arc<Told>> for BySize {
    fn weight(&self, _: &(OwnedServerName, OwnedRoomId), told: &Arc<Told>) -> u64 {
        512 + told.bytes as u64
    }
}

#[derive(Clone)]
struct ByRooms;

impl Weighter<String, Arc<Walk>> for ByRooms {
    fn weight(&self, _: &String, walk: &Arc<Walk>) -> u64 {
        1 + (walk.next.len() + walk.seen.len()) as u64
    }
}

/// A level of a space as another server tells it.
struct Level {
    room: Node,
    children: Vec<Arc<Summary>>,
    closed: Vec<OwnedRoomId>,
}

/// A walk under way.
#[derive(Clone)]
struct Walk {
    user: UserNo,
    room: OwnedRoomId,
    suggested_only: bool,
    max_depth: u64,
    /// The rooms to come, the next last.
    next: Vec<Step>,
    seen: HashSet<OwnedRoomId>,
}

#[derive(Clone)]
struct Step {
    room: OwnedRoomId,
    via: Vec<OwnedServerName>,
    depth: u64,
    /// What the server of the space that leads here said of it.
    said: Option<Arc<Summary>>,
}

impl Walk {
    fn begin(asked: &Asked) -> Self {
        let first = Step { room: asked.room.clone(), via: Vec::new(), depth: 0, said: None };
        Self {
            user: asked.user,
            room: asked.room.clone(),
            suggested_only: asked.suggested_only,
            max_depth: asked.max_depth.unwrap_or(DEPTH_MAX).min(DEPTH_MAX),
            next: vec![first],
            seen: HashSet::new(),
        }
    }

    /// The children of a room are next, in their order. Those that its server calls closed are not.
    fn enter(&mut self, found: &Found, depth: u64) {
        if depth >= self.max_depth || !found.node.summary.is_space() {
            return;
        }
        let level = found.told.as_ref().and_then(|told| told.level.as_ref());
        let step = |child: &Child| {
            let room = child.room()?.to_owned();
            let is_closed = level.is_some_and(|level| level.closed.contains(&room));
            if is_closed || self.seen.contains(&room) {
                return None;
            }
            let said = level.and_then(|level| level.children.iter().find(|said| said.id() == room)).map(Arc::clone);
            Some(Step { via: child.via().take(SERVERS_MAX).collect(), room, depth: depth + 1, said })
        };
        let steps: Vec<Step> = found.node.children_state.iter().filter_map(step).collect();
        self.next.extend(steps.into_iter().rev());
        let excess = self.next.len().saturating_sub(STEPS_MAX);
        self.next.drain(..excess);
    }
}

/// A room of the walk, and the answer it is from.
struct Found {
    node: Node,
    told: Option<Arc<Told>>,
}

/// What other servers may be asked for one page.
struct Budget {
    asks: usize,
    /// As the clock counts.
    until: Duration,
}

impl Federation {
    /// A page of the rooms of a space that a user may know of, each before its children.
    ///
    /// # Errors
    /// [`rooms::Error::Forbidden`] where they may not know of the space; [`Error::BadRequest`] for a token that is not known, or of another request.
    pub async fn hierarchy(&self, asked: &Asked) -> Result<Page> {
        let limit = asked.limit.map_or(LIMIT_DEFAULT, |limit| usize::try_from(limit).unwrap_or(LIMIT_MAX)).min(LIMIT_MAX);
        if limit == 0 {
            return Err(Error::BadRequest("limit is at least 1".to_owned()));
        }
        let mut walk = self.walk(asked)?;
        let mut budget = Budget { asks: ASKED_MAX, until: self.clock.elapsed() + PAGE_TIME };
        let mut rooms = Vec::new();
        while rooms.len() < limit
            && budget.asks > 0
            && self.clock.elapsed() < budget.until
            && let Some(step) = walk.next.pop()
        {
            if walk.seen.contains(&step.room) {
                continue;
            }
            let Some(found) = self.found(&walk, &step, &mut budget).await? else {
                if step.depth == 0 {
                    return Err(rooms::Error::Forbidden("You may not view this space").into());
                }
                continue;
            };
            walk.seen.insert(step.room);
            walk.enter(&found, step.depth);
            rooms.push(found.node);
        }
        let ended = walk.next.is_empty() || walk.seen.len() >= ROOMS_MAX;
        Ok(Page { rooms, next_batch: (!ended).then(|| self.keep_walk(walk)) })
    }

    /// The walk that goes on, or a new one.
    fn walk(&self, asked: &Asked) -> Result<Walk> {
        let begun = Walk::begin(asked);
        let Some(token) = &asked.from else { return Ok(begun) };
        let walk = self.spaces.walks.get(token).filter(|walk| walk.user == asked.user && walk.room == asked.room);
        let walk = walk.ok_or_else(|| Error::BadRequest("the token is not known any more: begin anew".to_owned()))?;
        if (walk.suggested_only, walk.max_depth) != (begun.suggested_only, begun.max_depth) {
            return Err(Error::BadRequest("suggested_only and max_depth cannot change between pages".to_owned()));
        }
        Ok((*walk).clone())
    }

    fn keep_walk(&self, walk: Walk) -> String {
        let token = format!("{:032x}", self.rng().random::<u128>());
        self.spaces.walks.insert(token.clone(), Arc::new(walk));
        token
    }

    /// The room of a step, where the user may know of it.
    async fn found(&self, walk: &Walk, step: &Step, budget: &mut Budget) -> Result<Option<Found>> {
        let db = self.store.snapshot();
        if let Some(no) = numbers::number(&db, &step.room)?
            && servers::is_in(&db, no, self.name())?
        {
            let (user, suggested_only) = (walk.user, walk.suggested_only);
            let node = self.computed(move || node(&db, no, user, suggested_only)).await??;
            return Ok(node.map(|node| Found { node, told: None }));
        }
        let said = step.said.as_deref();
        // Of what is no space nothing is left to ask.
        if let Some(said) = said.filter(|said| !said.is_space()) {
            return Ok(said.is_for(&db, walk.user)?.then(|| alone(said)));
        }
        for server in step.via.iter().filter(|server| *server != self.name()) {
            let told = self.told_of_space(server, &step.room, budget).await?;
            let Some(level) = &told.level else { continue };
            if !level.room.summary.is_for(&db, walk.user)? {
                return Ok(None);
            }
            let mut node = level.room.clone();
            arrange(&mut node.children_state, walk.suggested_only, SHOWN_MAX);
            return Ok(Some(Found { node, told: Some(told) }));
        }
        match said {
            Some(said) if said.is_for(&db, walk.user)? => Ok(Some(alone(said))),
            _ => Ok(None),
        }
    }

    /// What a server tells of a space, asked for where it is not known yet.
    async fn told_of_space(&self, server: &ServerName, room: &RoomId, budget: &mut Budget) -> Result<Arc<Told>> {
        let key = (server.to_owned(), room.to_owned());
        if let Some(told) = self.spaces.told.get(&key).filter(|told| self.now_ms() < told.until_ms) {
            return Ok(told);
        }
        budget.asks = budget.asks.saturating_sub(1);
        let ask = Ask::get(query(v1!("hierarchy", room.as_str()), &[("suggested_only", "false")]));
        let answer = self.call::<Box<RawValue>>(server, ask.timeout(ANSWER_TIME).body_max(ANSWER_BYTES_MAX)).await;
        let (level, bytes) = match answer {
            Ok(answer) => (believed(room, &answer), answer.get().len()),
            // It answers at once, and otherwise as soon as somebody enters a room.
            Err(Error::Refused(refusal)) => {
                tracing::debug!(%refusal, %server, %room, "a space is not for this server");
                return Ok(Arc::new(Told { until_ms: 0, bytes: 0, level: None }));
            }
            Err(error) if error.is_theirs() || matches!(error, Error::Disabled) => {
                tracing::debug!(%error, %server, %room, "a space was not told");
                (None, 0)
            }
            Err(error) => return Err(error),
        };
        let holds_ms = if level.is_some() { FRESH_MS } else { FAILED_MS };
        let told = Arc::new(Told { until_ms: self.now_ms().saturating_add(holds_ms), bytes, level });
        self.spaces.told.insert(key, Arc::clone(&told));
        Ok(told)
    }
}

/// A room of which only a summary is known.
fn alone(said: &Summary) -> Found {
    Found { node: Node { summary: said.clone(), children_state: Vec::new() }, told: None }
}

/// What can be made of an answer: it is about the room, and of its children only those count that its events name.
fn believed(room: &RoomId, answer: &RawValue) -> Option<Level> {
    #[derive(Deserialize)]
    struct Answer {
        room: Inner,
        #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
        children: Vec<Box<RawValue>>,
        #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
        inaccessible_children: Vec<OwnedRoomId>,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(flatten)]
        summary: Summary,
        #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
        children_state: Vec<serde_json::Value>,
    }
    let Answer { room: Inner { summary, children_state }, children, mut inaccessible_children } =
        serde_json::from_str(answer.get()).ok()?;
    if summary.id() != room {
        return None;
    }
    let children_state = children_state.into_iter().filter_map(|child| serde_json::from_value(child).ok());
    let mut children_state: Vec<Child> = if summary.is_space() { children_state.collect() } else { Vec::new() };
    arrange(&mut children_state, false, SHOWN_MAX);
    let named: HashSet<&RoomId> = children_state.iter().filter_map(Child::room).collect();
    let children = children.iter().filter_map(|child| serde_json::from_str::<Summary>(child.get()).ok());
    let children = children.filter(|child| named.contains(child.id())).map(Arc::new).collect();
    inaccessible_children.retain(|child| named.contains(&**child));
    Some(Level { room: Node { summary, children_state }, children, closed: inaccessible_children })
}
