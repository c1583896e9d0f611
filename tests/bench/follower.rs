//! A member that follows its rooms by `/sync` as a client does: it goes on from token to token and fills the gaps of limited timelines.
//! What it saw is later held against what the server acknowledged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::delivery::EventId;
use crate::failure::Failure;
use crate::matrix::{Page, Room, Session, Sync, Timeline, parse};

/// How many events a client shows per room and asks for.
pub const TIMELINE_LIMIT: usize = 20;
/// How many events a page of history has.
pub const PAGE_LIMIT: usize = 100;
/// The longest gap that is filled, in pages.
const MAX_GAP_PAGES: usize = 100_000;
/// How long a sync waits for something new.
const LONG_POLL: Duration = Duration::from_secs(30);
/// How long followers wait for a next event before those still missing count as undelivered.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// One member's view of its rooms.
#[derive(Debug)]
pub struct Follower {
    session: Session,
    since: Option<String>,
    rooms: HashMap<Box<str>, Followed>,
}

#[derive(Debug)]
struct Followed {
    room: Room,
    /// The last event seen, of any kind, where a gap ends.
    last: Option<EventId>,
    /// The tracked events in the order of their delivery.
    seen: Vec<EventId>,
}

/// What one sync brought.
#[derive(Debug)]
pub struct Polled {
    /// When the answer was there.
    pub answered: Instant,
    /// Its size.
    pub bytes: usize,
    /// The tracked events, room by room, oldest first.
    pub events: Vec<EventId>,
}

/// The delivery of one event to one follower.
#[derive(Debug)]
pub struct Arrival {
    /// What arrived.
    pub event: EventId,
    /// When the sync's answer was there.
    pub at: Instant,
}

/// Where the followers learn that nothing more is being sent, and how many events there are for each of them.
pub type Target = watch::Receiver<Option<usize>>;

impl Follower {
    /// Follows rooms from now on: what is in them already does not count.
    pub async fn start(session: Session, rooms: &[Room]) -> Result<Self, Failure> {
        let mut follower = Self::from_beginning(session, rooms);
        let answer = follower.session.sync(None, Duration::ZERO, 1).await?;
        let sync: Sync = parse("GET /sync", &answer)?;
        for (id, followed) in &mut follower.rooms {
            let timeline = sync.rooms.join.get(&Cow::Borrowed(&**id)).map(|joined| &joined.timeline);
            followed.last = timeline.and_then(last_event);
        }
        follower.since = Some(sync.next_batch);
        Ok(follower)
    }

    /// Follows rooms from their beginning: the first sync is an initial one.
    pub fn from_beginning(session: Session, rooms: &[Room]) -> Self {
        let followed = |room: &Room| (room.id.as_ref().into(), Followed { room: room.clone(), last: None, seen: Vec::new() });
        Self { session, since: None, rooms: rooms.iter().map(followed).collect() }
    }

    /// How many events were seen.
    pub fn count(&self) -> usize {
        self.rooms.values().map(|followed| followed.seen.len()).sum()
    }

    /// The rooms with what was seen in them.
    pub fn into_seen(self) -> impl Iterator<Item = (Room, Vec<EventId>)> {
        self.rooms.into_values().map(|followed| (followed.room, followed.seen))
    }

    /// The rooms it follows.
    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.rooms.values().map(|followed| &followed.room)
    }

    /// One sync, and the gaps it leaves. If the future is dropped halfway the follower is as before.
    pub async fn poll(&mut self, wait: Duration) -> Result<Polled, Failure> {
        let answer = self.session.sync(self.since.as_deref(), wait, TIMELINE_LIMIT).await?;
        let answered = Instant::now();
        let sync: Sync = parse("GET /sync", &answer)?;
        let mut news = Vec::new();
        for (id, joined) in &sync.rooms.join {
            let Some(followed) = self.rooms.get(&**id) else { continue };
            let mut events = match &joined.timeline {
                Timeline { limited: true, prev_batch: Some(from), .. } => fill_gap(&mut self.session, followed, from).await?,
                _ => Vec::new(),
            };
            let fresh = joined.timeline.events.iter().filter(|event| event.is_tracked());
            events.extend(fresh.map(|event| EventId::from(&*event.event_id)));
            news.push((id, events, last_event(&joined.timeline)));
        }
        let mut arrived = Vec::new();
        for (id, events, last) in news {
            let Some(followed) = self.rooms.get_mut(&**id) else { continue };
            arrived.extend(events.iter().cloned());
            followed.seen.extend(events);
            followed.last = last.or(followed.last.take());
        }
        self.since = Some(sync.next_batch);
        Ok(Polled { answered, bytes: answer.len(), events: arrived })
    }

    /// Follows until the target is named and reached, or nothing arrives any more. A last sync shows whether too much is delivered.
    pub async fn follow(mut self, arrivals: Option<mpsc::Sender<Arrival>>, mut target: Target) -> Result<Self, Failure> {
        let mut progress = Instant::now();
        loop {
            let expected = *target.borrow_and_update();
            if expected.is_some_and(|expected| self.count() >= expected || progress.elapsed() >= PATIENCE) {
                break;
            }
            let wait = if expected.is_some() { PATIENCE } else { LONG_POLL };
            let polled = tokio::select! {
                polled = self.poll(wait) => polled?,
                changed = target.changed(), if expected.is_none() => {
                    progress = Instant::now();
                    if changed.is_err() {
                        break;
                    }
                    continue;
                }
            };
            if !polled.events.is_empty() {
                progress = Instant::now();
            }
            if let Some(arrivals) = &arrivals {
                for event in polled.events {
                    // The receiver is gone when the measurement is over; following goes on for the check.
                    let _ = arrivals.send(Arrival { event, at: polled.answered }).await;
                }
            }
        }
        self.poll(Duration::ZERO).await?;
        Ok(self)
    }
}

/// The tracked events between the last one seen and a limited timeline, oldest first.
async fn fill_gap(session: &mut Session, followed: &Followed, from: &str) -> Result<Vec<EventId>, Failure> {
    let mut missed = Vec::new();
    let mut from = from.to_owned();
    for _ in 0..MAX_GAP_PAGES {
        let answer = session.messages(&followed.room, Some(&from), PAGE_LIMIT).await?;
        let page: Page = parse("GET /messages", &answer)?;
        for event in &page.chunk {
            if followed.last.as_deref() == Some(&*event.event_id) {
                missed.reverse();
                return Ok(missed);
            }
            if event.is_tracked() {
                missed.push(EventId::from(&*event.event_id));
            }
        }
        match page.end {
            Some(end) if end != from => from = end,
            _ => break,
        }
    }
    missed.reverse();
    Ok(missed)
}

fn last_event(timeline: &Timeline) -> Option<EventId> {
    timeline.events.last().map(|event| EventId::from(&*event.event_id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::connection::Address;

    /// A server that gives these answers in turn, whatever is asked; `None` never answers. It ends with the paths it was asked for.
    async fn scripted(answers: Vec<Option<String>>) -> (Address, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let serving = async move {
            let mut answers = answers.into_iter();
            let mut asked = Vec::new();
            while answers.len() > 0 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut lines = BufReader::new(stream);
                let mut line = String::new();
                while answers.len() > 0 && lines.read_line(&mut line).await.unwrap() > 0 {
                    if line == "\r\n" {
                        let Some(body) = answers.next().unwrap() else { break };
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        lines.write_all(answer.as_bytes()).await.unwrap();
                    } else if let Some(path) = line.strip_prefix("GET ") {
                        asked.push(path.split(' ').next().unwrap().to_owned());
                    }
                    line.clear();
                }
            }
            asked
        };
        (address, tokio::spawn(serving))
    }

    /// Events "a b" as JSON; one that ends with * is of a type that is not tracked.
    fn events(ids: &str) -> String {
        let event = |id: &str| match id.strip_suffix('*') {
            Some(id) => format!(r#"{{"event_id":"{id}","type":"m.room.member"}}"#),
            None => format!(r#"{{"event_id":"{id}","type":"m.room.message"}}"#),
        };
        ids.split_whitespace().map(event).collect::<Vec<_>>().join(",")
    }

    fn sync(token: &str, ids: &str, limited: bool) -> Option<String> {
        let events = events(ids);
        let timeline = format!(r#"{{"events":[{events}],"limited":{limited},"prev_batch":"before-{token}"}}"#);
        Some(format!(r#"{{"next_batch":"{token}","rooms":{{"join":{{"!r:h":{{"timeline":{timeline}}}}}}}}}"#))
    }

    fn page(ids: &str, end: Option<&str>) -> Option<String> {
        Some(serde_json::json!({ "chunk": [], "end": end }).to_string().replace("[]", &format!("[{}]", events(ids))))
    }

    async fn follower(answers: Vec<Option<String>>) -> (Follower, JoinHandle<Vec<String>>) {
        let (address, asked) = scripted(answers).await;
        let session = Session::of(&address, "@u:h");
        (Follower::start(session, &[Room::new("!r:h")]).await.unwrap(), asked)
    }

    fn seen(follower: Follower) -> String {
        follower.into_seen().next().unwrap().1.join(" ")
    }

    #[tokio::test]
    async fn what_was_there_before_does_not_count() {
        let (mut follower, asked) = follower(vec![sync("1", "old", true), sync("2", "join* a b", false)]).await;
        let polled = follower.poll(Duration::ZERO).await.unwrap();
        assert_eq!(polled.events.len(), 2);
        assert_eq!(seen(follower), "a b");
        let asked = asked.await.unwrap();
        assert!(!asked[0].contains("since=") && asked[1].ends_with("&since=1"), "{asked:?}");
    }

    #[tokio::test]
    async fn gaps_are_filled_up_to_the_last_event_seen() {
        let answers = vec![
            sync("1", "old*", true),
            sync("2", "a", false),
            sync("3", "f g", true),
            page("e d*", Some("more")),
            page("c b a old*", None),
        ];
        let (mut follower, asked) = follower(answers).await;
        follower.poll(Duration::ZERO).await.unwrap();
        follower.poll(Duration::ZERO).await.unwrap();
        assert_eq!(seen(follower), "a b c e f g");
        let asked = asked.await.unwrap();
        assert!(asked[3].ends_with("&from=before-3") && asked[4].ends_with("&from=more"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_repeated_event_is_kept_for_the_check() {
        let (mut follower, _) = follower(vec![sync("1", "", false), sync("2", "a", false), sync("3", "a b", false)]).await;
        follower.poll(Duration::ZERO).await.unwrap();
        follower.poll(Duration::ZERO).await.unwrap();
        assert_eq!(seen(follower), "a a b");
    }

    #[tokio::test]
    async fn following_ends_when_all_is_there_though_a_sync_waits() {
        let answers = vec![sync("1", "", false), sync("2", "a b", false), None, sync("3", "late", false)];
        let (follower, asked) = follower(answers).await;
        let (target, known) = watch::channel(None);
        let (sender, mut arrivals) = mpsc::channel(8);
        let following = tokio::spawn(follower.follow(Some(sender), known));
        let arrived = [arrivals.recv().await.unwrap().event, arrivals.recv().await.unwrap().event];
        assert_eq!(arrived.join(" "), "a b");
        target.send_replace(Some(2));
        // The last sync is on a new connection and goes on from the same token as the abandoned one.
        assert_eq!(seen(following.await.unwrap().unwrap()), "a b late");
        let asked = asked.await.unwrap();
        assert_eq!(asked.iter().filter(|path| path.ends_with("&since=2")).count(), asked.len() - 2, "{asked:?}");
    }
}
