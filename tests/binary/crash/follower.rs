//! A user's second device: it only syncs, from token to token over all crashes, and must be given each event once and in order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::{
    Wire,
    worker::{Member, Sent, Worker},
};

const CLIENT: &str = "/_matrix/client/v3";
/// Fewer than a round sends, so that gaps arise and must be filled.
const TIMELINE_LIMIT: u64 = 20;

pub struct Follower {
    wire: Wire,
    user_id: String,
    filter: String,
    since: Option<String>,
    /// The events of each room, in the order of their delivery.
    delivered: BTreeMap<String, Vec<String>>,
    /// How many of them were compared with the room's history.
    compared: HashMap<String, usize>,
    to_device: Vec<String>,
    /// How many of them were expected.
    expected: usize,
}

impl Follower {
    pub fn new(wire: Wire, member: &Member) -> Self {
        let user_id = member.user_id.clone();
        let filter = json!({ "room": { "timeline": { "limit": TIMELINE_LIMIT } } });
        let filter = wire.ok("POST", &format!("{CLIENT}/user/{user_id}/filter"), &filter);
        let filter = filter["filter_id"].as_str().unwrap().to_owned();
        let (delivered, compared) = (BTreeMap::new(), HashMap::new());
        Self { wire, user_id, filter, since: None, delivered, compared, to_device: Vec::new(), expected: 0 }
    }

    /// Syncs until there is no answer.
    pub fn follow(&mut self, address: &str, killed: &AtomicBool) {
        self.wire.address = address.to_owned();
        while self.sync(1_000).is_some() {}
        assert!(killed.load(Ordering::SeqCst), "no answer from a server that lives");
    }

    /// Takes what one sync says, all or nothing, as a client does. `Some(true)`: there was something new.
    fn sync(&mut self, timeout_ms: u64) -> Option<bool> {
        let since = self.since.as_ref().map_or(String::new(), |since| format!("&since={since}"));
        let path = format!("{CLIENT}/sync?filter={}&timeout={timeout_ms}{since}", self.filter);
        let (status, answer) = self.wire.ask("GET", &path, &[])?;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        let rooms = answer["rooms"]["join"].as_object().cloned().unwrap_or_default();
        let mut news = Vec::new();
        for (room, part) in &rooms {
            let mut events = ids(&part["timeline"]["events"]);
            if part["timeline"]["limited"] == true {
                let until = self.since.as_deref().filter(|_| self.delivered.contains_key(room));
                let mut gap = self.gap(room, part["timeline"]["prev_batch"].as_str().unwrap(), until)?;
                gap.append(&mut events);
                events = gap;
            }
            news.push((room.clone(), events));
        }
        for (room, mut events) in news {
            self.delivered.entry(room).or_default().append(&mut events);
        }
        let messages = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
        self.to_device.extend(messages.iter().map(|message| message["content"]["body"].as_str().unwrap().to_owned()));
        self.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
        Some(!rooms.is_empty() || !messages.is_empty())
    }

    /// The events between two tokens, oldest first.
    fn gap(&self, room: &str, from: &str, until: Option<&str>) -> Option<Vec<String>> {
        let until = until.map_or(String::new(), |until| format!("&to={until}"));
        let (mut events, mut from) = (Vec::new(), from.to_owned());
        loop {
            let path = format!("{CLIENT}/rooms/{room}/messages?dir=b&limit=100&from={from}{until}");
            let (status, page) = self.wire.ask("GET", &path, &[])?;
            let page: Value = serde_json::from_slice(&page).unwrap();
            assert_eq!(status, 200, "{path}: {page}");
            events.extend(ids(&page["chunk"]));
            match page["end"].as_str() {
                Some(end) => end.clone_into(&mut from),
                None => break,
            }
        }
        events.reverse();
        Some(events)
    }

    /// After a crash: it goes on from its last token, and has then been given all there is, once and in the rooms' order.
    pub fn check(&mut self, address: &str, workers: &[Worker], sent: &[Sent], to_devices: &[(String, String)]) {
        self.wire.address = address.to_owned();
        while self.sync(0).expect("the server answers") {}
        for (room, delivered) in &self.delivered {
            let known = self.compared.get(room).copied().unwrap_or(0);
            let timeline = self.wire.timeline(room, known.checked_sub(1).map(|last| delivered[last].as_str()));
            let bodies: HashMap<_, _> = timeline.iter().map(|event| (&event["content"]["body"], &event["event_id"])).collect();
            for Sent { event_id, body, .. } in sent.iter().filter(|sent| sent.room == *room) {
                assert_eq!(bodies.get(&json!(body)), Some(&&json!(event_id)), "{body} in {room}");
            }
            let written: Vec<_> = timeline.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
            let given: Vec<_> = delivered[known..].iter().map(String::as_str).collect();
            assert_eq!(given, written, "{}: what came by sync is not the history of {room}", self.user_id);
            self.compared.insert(room.clone(), delivered.len());
        }
        let mut expected: Vec<_> = to_devices.iter().filter(|(to, _)| *to == self.user_id).map(|(_, body)| body).collect();
        let mut given: Vec<_> = self.to_device[self.expected..].iter().collect();
        self.expected += given.len();
        expected.sort_unstable();
        given.sort_unstable();
        assert_eq!(given, expected, "messages to the device of {}", self.user_id);
        self.check_receipts(workers);
    }

    /// A sync from the beginning has everybody's last receipt.
    fn check_receipts(&self, workers: &[Worker]) {
        let whole = self.wire.ok("GET", &format!("{CLIENT}/sync?filter={}", self.filter), &Value::Null);
        for (worker, room, event) in
            workers.iter().flat_map(|worker| worker.acknowledged.receipts.iter().map(move |(room, event)| (worker, room, event)))
        {
            let ephemeral = whole["rooms"]["join"][room]["ephemeral"]["events"].as_array().unwrap();
            let receipts = ephemeral.iter().find(|event| event["type"] == "m.receipt").expect("receipts");
            let read = &receipts["content"][event]["m.read"][&worker.user_id];
            assert!(read["ts"].is_u64(), "{}'s receipt in {room} is not on {event}: {receipts}", worker.user_id);
        }
    }

    /// At the end: each room's whole history again, and nothing was given twice.
    pub fn check_all(&mut self) {
        for (room, delivered) in &self.delivered {
            let timeline = self.wire.timeline(room, None);
            let written: Vec<_> = timeline.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
            assert_eq!(written, *delivered, "{room}");
            let bodies: Vec<_> = timeline.iter().filter_map(|event| event["content"]["body"].as_str()).collect();
            assert_eq!(bodies.iter().collect::<HashSet<_>>().len(), bodies.len(), "{room}: something was said twice");
        }
    }
}

fn ids(events: &Value) -> Vec<String> {
    events.as_array().into_iter().flatten().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}
