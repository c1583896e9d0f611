//! The numbers of the authorisation rules: one table, since each room version numbers them differently.

use std::borrow::Cow;

use super::{Allowed, Denied};
use crate::version::RoomVersion;

/// A rule that can reject an event, by what it says. The comments in the code give the numbers of version 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    CreatePrevEvents,
    CreateRoomId,
    CreateVersion,
    CreateCreator,
    NoCreate,
    AuthDuplicate,
    AuthUnselected,
    AuthRejected,
    AuthRoom,
    Federate,
    AliasesStateKey,
    AliasesDomain,
    MemberShape,
    JoinSender,
    JoinBanned,
    JoinRestricted,
    JoinOtherwise,
    ThirdPartyBanned,
    ThirdPartySigned,
    ThirdPartyFields,
    ThirdPartyMxid,
    ThirdPartyToken,
    ThirdPartySender,
    ThirdPartySignature,
    InviteSender,
    InviteTarget,
    InvitePower,
    LeaveOwn,
    LeaveSender,
    LeaveBanned,
    LeavePower,
    BanSender,
    BanPower,
    KnockForbidden,
    KnockSender,
    KnockMembership,
    MembershipUnknown,
    SenderJoined,
    ThirdPartyInvitePower,
    RequiredPower,
    StateKeyOwner,
    LevelsNamed,
    LevelsMaps,
    LevelsUsers,
    LevelsCreators,
    LevelsNamedCurrent,
    LevelsNamedNew,
    LevelsEntryCurrent,
    LevelsEntryNew,
    LevelsUserCurrent,
    LevelsUserNew,
    Redaction,
}

/// The versions that number alike: 1 to 5, 6, 7, 8 and 9, 10 and 11, 12.
type Numbers = [&'static str; 6];

fn column(version: &RoomVersion) -> usize {
    match version {
        _ if version.version_12 => 5,
        _ if version.integer_power_levels => 4,
        _ if version.restricted_joins => 3,
        _ if version.knocking => 2,
        _ if !version.special_aliases => 1,
        _ => 0,
    }
}

/// What stands where a version has no such rule.
const NONE: &str = "";

impl Rule {
    /// Denies by this rule.
    pub(super) fn denies(self, version: &RoomVersion, reason: impl Into<Cow<'static, str>>) -> Denied {
        Denied { rule: self.number(version), reason: reason.into() }
    }

    fn number(self, version: &RoomVersion) -> &'static str {
        self.numbers()[column(version)]
    }

    fn numbers(self) -> Numbers {
        match self {
            Rule::CreatePrevEvents => ["1.1"; 6],
            Rule::CreateRoomId => ["1.2"; 6],
            Rule::CreateVersion => ["1.3"; 6],
            // Of `creator` until version 10, of `additional_creators` in 12.
            Rule::CreateCreator => ["1.4"; 6],
            Rule::NoCreate => ["2.4", "2.4", "2.4", "2.4", "2.4", "2"],
            Rule::AuthDuplicate => ["2.1", "2.1", "2.1", "2.1", "2.1", "3.1"],
            Rule::AuthUnselected => ["2.2", "2.2", "2.2", "2.2", "2.2", "3.2"],
            Rule::AuthRejected => ["2.3", "2.3", "2.3", "2.3", "2.3", "3.3"],
            Rule::AuthRoom => ["2.5", "2.5", "2.5", "2.5", "2.5", "3.5"],
            Rule::Federate => ["3", "3", "3", "3", "3", "4"],
            Rule::AliasesStateKey => ["4.1", NONE, NONE, NONE, NONE, NONE],
            Rule::AliasesDomain => ["4.2", NONE, NONE, NONE, NONE, NONE],
            Rule::SenderJoined => ["6", "5", "5", "5", "5", "6"],
            Rule::ThirdPartyInvitePower => ["7.1", "6.1", "6.1", "6.1", "6.1", "7.1"],
            Rule::RequiredPower => ["8", "7", "7", "7", "7", "8"],
            Rule::StateKeyOwner => ["9", "8", "8", "8", "8", "9"],
            // Only versions 1 and 2.
            Rule::Redaction => ["11.3", NONE, NONE, NONE, NONE, NONE],
            _ => self.member_numbers().unwrap_or_else(|| self.power_levels_numbers()),
        }
    }

    fn member_numbers(self) -> Option<Numbers> {
        Some(match self {
            Rule::MemberShape => ["5.1", "4.1", "4.1", "4.1", "4.1", "5.1"],
            Rule::JoinSender => ["5.2.2", "4.2.2", "4.2.2", "4.3.2", "4.3.2", "5.3.2"],
            Rule::JoinBanned => ["5.2.3", "4.2.3", "4.2.3", "4.3.3", "4.3.3", "5.3.3"],
            Rule::JoinRestricted => [NONE, NONE, NONE, "4.3.5.2", "4.3.5.2", "5.3.5.2"],
            Rule::JoinOtherwise => ["5.2.6", "4.2.6", "4.2.6", "4.3.7", "4.3.7", "5.3.7"],
            Rule::ThirdPartyBanned => ["5.3.1.1", "4.3.1.1", "4.3.1.1", "4.4.1.1", "4.4.1.1", "5.4.1.1"],
            Rule::ThirdPartySigned => ["5.3.1.2", "4.3.1.2", "4.3.1.2", "4.4.1.2", "4.4.1.2", "5.4.1.2"],
            Rule::ThirdPartyFields => ["5.3.1.3", "4.3.1.3", "4.3.1.3", "4.4.1.3", "4.4.1.3", "5.4.1.3"],
            Rule::ThirdPartyMxid => ["5.3.1.4", "4.3.1.4", "4.3.1.4", "4.4.1.4", "4.4.1.4", "5.4.1.4"],
            Rule::ThirdPartyToken => ["5.3.1.5", "4.3.1.5", "4.3.1.5", "4.4.1.5", "4.4.1.5", "5.4.1.5"],
            Rule::ThirdPartySender => ["5.3.1.6", "4.3.1.6", "4.3.1.6", "4.4.1.6", "4.4.1.6", "5.4.1.6"],
            Rule::ThirdPartySignature => ["5.3.1.8", "4.3.1.8", "4.3.1.8", "4.4.1.8", "4.4.1.8", "5.4.1.8"],
            Rule::InviteSender => ["5.3.2", "4.3.2", "4.3.2", "4.4.2", "4.4.2", "5.4.2"],
            Rule::InviteTarget => ["5.3.3", "4.3.3", "4.3.3", "4.4.3", "4.4.3", "5.4.3"],
            Rule::InvitePower => ["5.3.5", "4.3.5", "4.3.5", "4.4.5", "4.4.5", "5.4.5"],
            Rule::LeaveOwn => ["5.4.1", "4.4.1", "4.4.1", "4.5.1", "4.5.1", "5.5.1"],
            Rule::LeaveSender => ["5.4.2", "4.4.2", "4.4.2", "4.5.2", "4.5.2", "5.5.2"],
            Rule::LeaveBanned => ["5.4.3", "4.4.3", "4.4.3", "4.5.3", "4.5.3", "5.5.3"],
            Rule::LeavePower => ["5.4.5", "4.4.5", "4.4.5", "4.5.5", "4.5.5", "5.5.5"],
            Rule::BanSender => ["5.5.1", "4.5.1", "4.5.1", "4.6.1", "4.6.1", "5.6.1"],
            Rule::BanPower => ["5.5.3", "4.5.3", "4.5.3", "4.6.3", "4.6.3", "5.6.3"],
            Rule::KnockForbidden => [NONE, NONE, "4.6.1", "4.7.1", "4.7.1", "5.7.1"],
            Rule::KnockSender => [NONE, NONE, "4.6.2", "4.7.2", "4.7.2", "5.7.2"],
            Rule::KnockMembership => [NONE, NONE, "4.6.4", "4.7.4", "4.7.4", "5.7.4"],
            Rule::MembershipUnknown => ["5.6", "4.6", "4.7", "4.8", "4.8", "5.8"],
            _ => return None,
        })
    }

    fn power_levels_numbers(self) -> Numbers {
        match self {
            // Before version 10 a malformed level fails only when it is compared.
            Rule::LevelsNamed => ["10.3", "9.3", "9.3", "9.3", "9.1", "10.1"],
            Rule::LevelsMaps => ["10.4", "9.4", "9.4", "9.4", "9.2", "10.2"],
            Rule::LevelsUsers => ["10.1", "9.1", "9.1", "9.1", "9.3", "10.3"],
            Rule::LevelsCreators => [NONE, NONE, NONE, NONE, NONE, "10.4"],
            Rule::LevelsNamedCurrent => ["10.3.1", "9.3.1", "9.3.1", "9.3.1", "9.5.1", "10.6.1"],
            Rule::LevelsNamedNew => ["10.3.2", "9.3.2", "9.3.2", "9.3.2", "9.5.2", "10.6.2"],
            Rule::LevelsEntryCurrent => ["10.4.1", "9.4.1", "9.4.1", "9.4.1", "9.6.1", "10.7.1"],
            Rule::LevelsEntryNew => ["10.5.1", "9.5.1", "9.5.1", "9.5.1", "9.7.1", "10.8.1"],
            Rule::LevelsUserCurrent => ["10.6.1", "9.6.1", "9.6.1", "9.6.1", "9.8.1", "10.9.1"],
            Rule::LevelsUserNew => ["10.7.1", "9.7.1", "9.7.1", "9.7.1", "9.9.1", "10.10.1"],
            _ => [NONE; 6],
        }
    }
}

/// A rule that can allow an event, by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Create,
    Aliases,
    FirstJoin,
    JoinInvited,
    JoinInvitedRestricted,
    JoinAuthorised,
    JoinPublic,
    ThirdPartySigned,
    Invite,
    LeaveOwn,
    Leave,
    Ban,
    Knock,
    ThirdPartyInvite,
    LevelsFirst,
    Levels,
    RedactionPower,
    RedactionServer,
    Otherwise,
}

impl Grant {
    /// Allows by this rule.
    pub(super) fn allows(self, version: &RoomVersion) -> Allowed {
        let (numbers, reason) = self.rule();
        let rule = match self {
            // Version 11 asks nothing of `creator` any more, and 12 something of `additional_creators`.
            Self::Create if version.version_11 && !version.version_12 => "1.4",
            // Versions 1 and 2 have a rule for redactions before the last one.
            Self::Otherwise if !version.redactions_checked_on_apply => "12",
            _ => numbers[column(version)],
        };
        Allowed { rule, reason }
    }

    fn rule(self) -> (Numbers, &'static str) {
        match self {
            Self::Create => (["1.5"; 6], "it makes the room"),
            Self::Aliases => (["4.3", NONE, NONE, NONE, NONE, NONE], "a server lists its aliases"),
            Self::FirstJoin => (["5.2.1", "4.2.1", "4.2.1", "4.3.1", "4.3.1", "5.3.1"], "the creator joins first"),
            Self::JoinInvited => {
                (["5.2.4", "4.2.4", "4.2.4", "4.3.4", "4.3.4", "5.3.4"], "the sender was invited or joined already")
            }
            Self::JoinInvitedRestricted => {
                ([NONE, NONE, NONE, "4.3.5.1", "4.3.5.1", "5.3.5.1"], "the sender was invited or joined already")
            }
            Self::JoinAuthorised => {
                ([NONE, NONE, NONE, "4.3.5.3", "4.3.5.3", "5.3.5.3"], "a member who may invite authorised the join")
            }
            Self::JoinPublic => (["5.2.5", "4.2.5", "4.2.5", "4.3.6", "4.3.6", "5.3.6"], "the join rule is public"),
            Self::ThirdPartySigned => (
                ["5.3.1.7", "4.3.1.7", "4.3.1.7", "4.4.1.7", "4.4.1.7", "5.4.1.7"],
                "it is signed by a key of a third-party invite",
            ),
            Self::Invite => (["5.3.4", "4.3.4", "4.3.4", "4.4.4", "4.4.4", "5.4.4"], "the sender's power suffices to invite"),
            Self::LeaveOwn => {
                (["5.4.1", "4.4.1", "4.4.1", "4.5.1", "4.5.1", "5.5.1"], "who is joined, invited or knocking may leave")
            }
            Self::Leave => (
                ["5.4.4", "4.4.4", "4.4.4", "4.5.4", "4.5.4", "5.5.4"],
                "the sender's power suffices to kick, and is above the target's",
            ),
            Self::Ban => (
                ["5.5.2", "4.5.2", "4.5.2", "4.6.2", "4.6.2", "5.6.2"],
                "the sender's power suffices to ban, and is above the target's",
            ),
            Self::Knock => {
                ([NONE, NONE, "4.6.3", "4.7.3", "4.7.3", "5.7.3"], "who is neither banned, invited nor joined may knock")
            }
            _ => self.rule_of_members(),
        }
    }

    /// The rules of what only members send.
    fn rule_of_members(self) -> (Numbers, &'static str) {
        match self {
            Self::ThirdPartyInvite => (["7.1", "6.1", "6.1", "6.1", "6.1", "7.1"], "the sender's power suffices to invite"),
            Self::LevelsFirst => (["10.2", "9.2", "9.2", "9.2", "9.4", "10.5"], "the room has no power levels yet"),
            Self::Levels => {
                (["10.8", "9.8", "9.8", "9.8", "9.10", "10.11"], "it changes no level that the sender's power does not reach")
            }
            Self::RedactionPower => (["11.1", NONE, NONE, NONE, NONE, NONE], "the sender's power suffices to redact"),
            Self::RedactionServer => (["11.2", NONE, NONE, NONE, NONE, NONE], "the redacted event is of the same server"),
            _ => (["11", "10", "10", "10", "10", "11"], "the sender is joined and their power suffices"),
        }
    }
}
