//! The published rooms of other servers ("Published Room Directory").

use ruma::{
    ServerName,
    directory::{Filter, PublicRoomsChunk},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Ask, Federation, Result, path, query};

/// The largest page, in bytes: a thousand rooms with long topics.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// The longest token of a page that is handed on, in bytes.
const TOKEN_MAX: usize = 1024;

/// Which of another server's rooms are asked for.
#[derive(Clone, Copy, Debug)]
pub struct RoomsWanted<'a> {
    /// At most so many.
    pub limit: usize,
    /// The page, by the token that the server gave for it.
    pub since: Option<&'a str>,
    /// Which of them.
    pub filter: &'a Filter,
}

/// A page of another server's directory.
#[derive(Clone, Debug, Default)]
pub struct RoomsPage {
    /// The rooms.
    pub chunk: Vec<PublicRoomsChunk>,
    /// The token of the next page.
    pub next_batch: Option<String>,
    /// The token of the page before.
    pub prev_batch: Option<String>,
    /// How many there are in all, as the server guesses.
    pub total: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    chunk: Vec<Value>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    total_room_count_estimate: Option<u64>,
}

impl Federation {
    /// A page of the rooms that another server publishes. Rooms that are told wrongly are left out.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn public_rooms(&self, server: &ServerName, wanted: RoomsWanted<'_>) -> Result<RoomsPage> {
        let place = path(&["_matrix", "federation", "v1", "publicRooms"]);
        let limit = wanted.limit.to_string();
        let is_filtered = wanted.filter.generic_search_term.is_some() || !wanted.filter.room_types.is_empty();
        let ask = if is_filtered {
            let mut body = json!({ "limit": wanted.limit, "filter": wanted.filter });
            if let Some(since) = wanted.since {
                body["since"] = since.into();
            }
            Ask::post(place, &body)?
        } else {
            let mut pairs = vec![("limit", limit.as_str())];
            pairs.extend(wanted.since.map(|since| ("since", since)));
            Ask::get(query(place, &pairs))
        };
        let answer: Answer = self.call(server, ask.body_max(PAGE_BYTES_MAX)).await?;
        let rooms = answer.chunk.into_iter().filter_map(|room| serde_json::from_value(room).ok());
        let token = |token: Option<String>| token.filter(|token| token.len() <= TOKEN_MAX);
        Ok(RoomsPage {
            chunk: rooms.take(wanted.limit).collect(),
            next_batch: token(answer.next_batch),
            prev_batch: token(answer.prev_batch),
            total: answer.total_room_count_estimate,
        })
    }
}
