//! Room versions: one table of what each version demands. No other module compares version numbers.
//!
//! Specification: "Room Versions" (`rooms/`). A rule of the specification that differs between versions is
//! a field here, and the code that applies it reads the field.

/// The room version of rooms whose creator names none, where the operator chose none ("Room Versions": the recommended one).
pub const DEFAULT: &RoomVersion = &V12;

/// How an event gets its id ("Event IDs" of each version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdFormat {
    /// Versions 1 and 2: chosen by the sending server, `$opaque:server`, part of the event.
    Chosen,
    /// Version 3: the reference hash in standard unpadded base64.
    Base64,
    /// Version 4 on: the reference hash in URL-safe unpadded base64.
    UrlSafe,
}

/// Which state resolution algorithm a version uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateResolution {
    /// Room version 1.
    V1,
    /// Room versions 2 to 11.
    V2,
    /// Room version 12: v2 from an empty base, with the conflicted state subgraph.
    V2_1,
}

/// What a room version demands. Each field is a difference between versions that some rule reads.
#[derive(Debug)]
pub struct RoomVersion {
    /// The identifier as in `m.room.create`, `"1"` to `"12"`.
    pub id: &'static str,
    /// Where event ids come from.
    pub event_ids: EventIdFormat,
    /// The state resolution algorithm.
    pub resolution: StateResolution,
    /// From 3 on: redactions are authorised like other events, and applied only where the sender may redact.
    /// Before: an authorisation rule of their own.
    pub redactions_checked_on_apply: bool,
    /// From 5 on: signing keys must be valid at the event's `origin_server_ts`.
    pub key_validity: bool,
    /// From 6 on: canonical JSON is enforced (no floats, integers within 53 bits).
    pub strict_json: bool,
    /// Until 5: `m.room.aliases` has authorisation and redaction rules of its own.
    pub special_aliases: bool,
    /// From 6 on: the `notifications` of power levels are checked like the others.
    pub notification_levels_checked: bool,
    /// From 7 on: users may knock.
    pub knocking: bool,
    /// From 8 on: the join rule `restricted`.
    pub restricted_joins: bool,
    /// From 10 on: the join rule `knock_restricted`.
    pub knock_restricted: bool,
    /// From 10 on: power levels must be integers, not strings.
    pub integer_power_levels: bool,
    /// From 8 on: redaction keeps `allow` of `m.room.join_rules`.
    pub redaction_keeps_allow: bool,
    /// From 9 on: redaction keeps `join_authorised_via_users_server` of `m.room.member`.
    pub redaction_keeps_join_authorised: bool,
    /// From 11 on: the redaction algorithm of MSC2174, MSC2176 and MSC3821, `redacts` within `content`,
    /// and the creator is the sender of the create event.
    pub version_11: bool,
    /// From 11 on: sizes of an event's keys are counted in bytes, as the specification says. Before, servers counted characters, and rooms
    /// have such events.
    pub sizes_in_bytes: bool,
    /// From 12 on: the room id is the hash of the create event, which is in no `auth_events`, creators have
    /// infinite power, and `auth_events` must be of the same room.
    pub version_12: bool,
}

const V1: RoomVersion = RoomVersion {
    id: "1",
    event_ids: EventIdFormat::Chosen,
    resolution: StateResolution::V1,
    redactions_checked_on_apply: false,
    key_validity: false,
    strict_json: false,
    special_aliases: true,
    notification_levels_checked: false,
    knocking: false,
    restricted_joins: false,
    knock_restricted: false,
    integer_power_levels: false,
    redaction_keeps_allow: false,
    redaction_keeps_join_authorised: false,
    version_11: false,
    sizes_in_bytes: false,
    version_12: false,
};
const V2: RoomVersion = RoomVersion { id: "2", resolution: StateResolution::V2, ..V1 };
const V3: RoomVersion = RoomVersion { id: "3", event_ids: EventIdFormat::Base64, redactions_checked_on_apply: true, ..V2 };
const V4: RoomVersion = RoomVersion { id: "4", event_ids: EventIdFormat::UrlSafe, ..V3 };
const V5: RoomVersion = RoomVersion { id: "5", key_validity: true, ..V4 };
const V6: RoomVersion =
    RoomVersion { id: "6", strict_json: true, special_aliases: false, notification_levels_checked: true, ..V5 };
const V7: RoomVersion = RoomVersion { id: "7", knocking: true, ..V6 };
const V8: RoomVersion = RoomVersion { id: "8", restricted_joins: true, redaction_keeps_allow: true, ..V7 };
const V9: RoomVersion = RoomVersion { id: "9", redaction_keeps_join_authorised: true, ..V8 };
const V10: RoomVersion = RoomVersion { id: "10", knock_restricted: true, integer_power_levels: true, ..V9 };
const V11: RoomVersion = RoomVersion { id: "11", version_11: true, sizes_in_bytes: true, ..V10 };
const V12: RoomVersion = RoomVersion { id: "12", resolution: StateResolution::V2_1, version_12: true, ..V11 };

static ALL: [RoomVersion; 12] = [V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12];

impl RoomVersion {
    /// The version of this identifier, or `None` where Hearth does not know it.
    #[must_use]
    pub fn named(id: &str) -> Option<&'static RoomVersion> {
        ALL.iter().find(|version| version.id == id)
    }

    /// The greatest `depth` of an event: what integers of canonical JSON allow, and before that was enforced, 2^63 - 1.
    #[must_use]
    pub fn max_depth(&self) -> u64 {
        if self.strict_json { (1 << 53) - 1 } else { (1 << 63) - 1 }
    }

    /// All versions, oldest first.
    #[must_use]
    pub fn all() -> &'static [RoomVersion] {
        &ALL
    }
}

impl PartialEq for RoomVersion {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_by_name_and_in_order() {
        let ids: Vec<_> = RoomVersion::all().iter().map(|version| version.id).collect();
        assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]);
        assert!(RoomVersion::named("13").is_none());
        assert_eq!(DEFAULT.id, "12");
    }
}
