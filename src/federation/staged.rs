//! Events of other servers that cannot be placed yet, because what they cite or the keys of those who signed it could not be had: they are kept, and
//! tried again. Their sender was told that they arrived, and does not send them again.

use std::collections::BTreeSet;

use protocol::parse::RawPdu;
use rooms::acl;
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{Lead, Owner, Preset, Range, Read as _, RoomNo, Seq, Snapshot, Table};

use crate::{Error, Federation, Result, known::Known, verify::Unverified};

pub(crate) static STAGED: Table<(RoomNo, Seq), Staged> =
    Table::new("staged_events", "Events of other servers that are tried again: what they cite could not be had.")
        .owned_by(Owner::Room)
        .read_by(Preset::Scan);

/// The most events of one room that wait. Others are refused.
pub(crate) const STAGED_MAX: usize = 100;
/// Those of one server among them.
pub(crate) const STAGED_OF_ONE_MAX: usize = 20;
/// How long an event is tried again, in milliseconds.
const STAGED_FOR_MS: u64 = 60 * 60 * 1000;
/// Servers of the room that are asked in turn for what an event cites, besides the one that sent it.
const OTHERS_MAX: usize = 10;

/// An event that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// Who sent it.
    origin: OwnedServerName,
    /// The event, as JSON.
    pdu: String,
    /// When it came.
    since_ms: u64,
}

impl Federation {
    /// Keeps an event that cannot be placed yet. Returns whether there was room for it.
    pub(crate) fn stage(&self, origin: &ServerName, room: RoomNo, pdu: &RawValue) -> Result<bool> {
        let staged = Staged { origin: origin.to_owned(), pdu: pdu.get().to_owned(), since_ms: self.now_ms() };
        let put = |tx: &mut store::Tx<'_>| {
            let waiting: Vec<(_, Staged)> = tx.range(&STAGED, Range::of(&Lead((room,))))?.collect::<store::Result<_>>()?;
            let of_one = waiting.iter().filter(|(_, waiting)| waiting.origin == origin).count();
            if waiting.len() >= STAGED_MAX || of_one >= STAGED_OF_ONE_MAX {
                return Ok(false);
            }
            tx.put(&STAGED, &(room, tx.seq()), &staged)?;
            Ok::<_, Error>(true)
        };
        // The answer to the transaction waits for the disk once.
        let is_kept = self.store.transact(&[store::Lock::Room(room)], put)?.soft();
        if is_kept {
            self.resyncs.later(room, 1, self.clock.elapsed());
        }
        Ok(is_kept)
    }

    /// Tries the events of a room again that wait, and asks another server than the last time for what they cite. Of those that one server sent no more are
    /// tried after the first that must wait on: the next time it is another that is tried first.
    ///
    /// # Errors
    /// Where some wait still: why the last of them does.
    pub(crate) async fn receive_staged(&self, room: RoomNo, failures: u32) -> Result<()> {
        let db = self.store.snapshot();
        let rows = db.range(&STAGED, Range::of(&Lead((room,))))?;
        let mut rows: Vec<((RoomNo, Seq), Staged)> = rows.collect::<store::Result<_>>()?;
        if rows.is_empty() {
            return Ok(());
        }
        let first = failures as usize % rows.len();
        rows.rotate_left(first);
        let known = self.known(&db, &rooms::numbers::room(&db, room)?.id)?;
        let (mut last, mut failing) = (Ok(()), BTreeSet::new());
        for (key, staged) in rows {
            if failing.contains(&staged.origin) {
                continue;
            }
            let received = match &known {
                Some(known) => self.receive_again(&db, known, &staged, failures).await,
                // This server is no longer in the room.
                None => Ok(()),
            };
            match received {
                Err(error) if error.is_theirs() && self.now_ms() < staged.since_ms.saturating_add(STAGED_FOR_MS) => {
                    failing.insert(staged.origin);
                    last = Err(error);
                }
                Err(error) if !error.is_theirs() => return Err(error),
                received => {
                    if let Err(error) = received {
                        tracing::info!(%error, room = room.0, server = %staged.origin, "an event is given up, for what it cites is not to be had");
                    }
                    self.store.transact(&[store::Lock::Room(room)], |tx| tx.delete(&STAGED, &key))?.durable().await?;
                }
            }
        }
        last
    }

    async fn receive_again(&self, db: &Snapshot, known: &Known, staged: &Staged, failures: u32) -> Result<()> {
        let pdu = RawPdu::from_bytes(staged.pdu.as_bytes()).map_err(|error| Error::Internal(error.to_string()))?;
        let event = match self.verify(vec![pdu], known.version).await?.pop() {
            Some(Ok(event)) => event,
            Some(Err(error)) => return self.late(&error).map_or(Ok(()), |server| Err(Error::KeysLate(server))),
            None => return Ok(()),
        };
        let gate = self.rooms.at(known.no);
        let _alone = gate.lock().await;
        if !acl::allows(db, known.no, &staged.origin)? {
            return Ok(());
        }
        let from = self.whom_to_ask(db, known, &staged.origin, failures)?;
        self.receive(&from, known, event).await.map(drop)
    }

    /// The server that sent an event at first, and then others of its room in turn.
    fn whom_to_ask(&self, db: &Snapshot, known: &Known, origin: &ServerName, failures: u32) -> Result<OwnedServerName> {
        let servers = rooms::servers::servers(db, known.no)?.take(OTHERS_MAX).collect::<rooms::Result<Vec<_>>>()?;
        let others = servers.into_iter().filter(|server| server != self.name() && server != origin);
        let all: Vec<OwnedServerName> = std::iter::once(origin.to_owned()).chain(others).collect();
        let turn = (failures.saturating_sub(1) as usize).checked_rem(all.len()).unwrap_or(0);
        Ok(all.into_iter().nth(turn).unwrap_or_else(|| origin.to_owned()))
    }

    /// The server whose keys could not be had for an event, where they still may be.
    pub(crate) fn late(&self, error: &Unverified) -> Option<OwnedServerName> {
        match error {
            Unverified::Signature(protocol::verify::VerifyError::UnknownKey(server)) => {
                self.keys.may_come(server, self.clock.elapsed()).then(|| server.clone())
            }
            _ => None,
        }
    }

    /// Rooms in which events wait.
    pub(crate) fn rooms_with_staged(&self, db: &Snapshot) -> Result<Vec<RoomNo>> {
        let mut found = Vec::new();
        let mut from = Range::of(&());
        while let Some(((room, _), _)) = db.first(&STAGED, from)? {
            found.push(room);
            from = Range::of(&()).after(&(room, Seq(u64::MAX)));
        }
        Ok(found)
    }
}
