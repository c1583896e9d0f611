//! What each server holds of each event, for who looks for the cause of a seed that failed.

use std::collections::BTreeMap;

use rooms::{EventNo, events, numbers, state};
use ruma::RoomId;
use store::{RoomNo, Snapshot};

use super::{
    script::Stage,
    world::{NAMES, World},
};

/// Notes the events of all rooms, by their depth: first what an event says, then how it stands at each server, and in which state it came and left the room there.
pub(super) fn note(world: &World, stage: &Stage) {
    for room in stage.rooms.lock().iter() {
        world.note(format!("the events of {room}:"));
        let mut told: BTreeMap<(u64, String), Vec<String>> = BTreeMap::new();
        for (at, name) in NAMES.iter().enumerate() {
            let db = world.machines[at].store.snapshot();
            let Some(room) = numbers::number(&db, <&RoomId>::try_from(room.as_str()).unwrap()).unwrap() else { continue };
            for no in (1..).map(EventNo) {
                let Ok(stored) = events::event(&db, room, no) else { break };
                let (event, header) = (&stored.event, &stored.header);
                let lines = told.entry((event.depth, header.id.to_string())).or_insert_with(|| vec![event.json.clone().into()]);
                let (pos, standing) = (header.pos.map(|pos| pos.0), &header.standing);
                let (before, current) = (members(&db, room, header.before), members(&db, room, header.current));
                lines.push(format!("{name}: {} at {pos:?}, {standing:?}, before it {before}, then {current}", no.0));
            }
        }
        told.into_iter().for_each(|((depth, id), lines)| world.note(format!("{depth} {id} {}", lines.join("\n    "))));
    }
}

/// A state, as far as it says who may do what.
fn members(db: &Snapshot, room: RoomNo, root: state::Root) -> String {
    let mut told = Vec::new();
    for no in state::all(db, room, root).unwrap() {
        let stored = events::event(db, room, no).unwrap();
        let (kind, key) = stored.event.state_pair().unwrap();
        if ["m.room.member", "m.room.power_levels", "m.room.join_rules"].contains(&kind) {
            told.push(format!("{kind} {key} {}", stored.header.id));
        }
    }
    format!("{told:?}")
}
