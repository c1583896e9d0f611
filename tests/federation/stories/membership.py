"""Coming, going, and being made to go. Rooms are Alice's, on server A; Bob comes from server B."""

import asyncio

from book import EVERY, WITH_KNOCK_RESTRICTED, WITH_KNOCKING, WITH_RESTRICTED, story
from people import agree_on_state, refused

KNOCKING = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]


@story(EVERY)
async def joins_by_an_alias(stage):
    alice, bob = await stage.alice(), await stage.bob()
    name = alice.id[1:].split(":")[0]
    room = await alice.creates(stage.version, room_alias_name=name, name="Hearth", topic="Fireside")
    assert await bob.joins(f"#{name}:{stage.a.name}") == room
    await alice.sees_member(room, bob, "join")
    assert bob.rooms[room].content("m.room.name") == {"name": "Hearth"}
    assert bob.rooms[room].content("m.room.create").get("room_version", "1") == stage.version
    assert bob.rooms[room].member(alice.id) == "join"
    await bob.sees(room, await alice.says(room, "welcome"))
    await alice.sees(room, await bob.says(room, "thank you"))
    await agree_on_state(room, alice, bob)


@story(EVERY)
async def joins_by_an_id_and_a_server_to_ask(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version)
    await bob.joins(room, stage.a)
    await alice.sees_member(room, bob, "join")
    state = await agree_on_state(room, alice, bob)
    assert {key for kind, key in state if kind == "m.room.member"} == {alice.id, bob.id}


@story(("10", "12"))
async def several_come_at_the_same_time(stage):
    alice = await stage.alice()
    room = await alice.creates(stage.version)
    guests = [await stage.person(stage.b, "guest") for _ in range(5)]
    await asyncio.gather(*(guest.joins(room, stage.a) for guest in guests))
    for guest in guests:
        await alice.sees_member(room, guest, "join")
        await guest.sees(room, await alice.says(room, f"welcome {guest.id}"))
        await alice.sees(room, await guest.says(room, "thank you"))
    state = await agree_on_state(room, alice, guests[0])
    assert {key for kind, key in state if kind == "m.room.member"} == {alice.id, *(g.id for g in guests)}


@story(EVERY)
async def cannot_join_an_invite_only_room(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat")
    await refused(bob.joins(room, stage.a), "M_FORBIDDEN")
    assert ("m.room.member", bob.id) not in await alice.state(room)


@story(EVERY)
async def is_invited_and_comes(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat", name="Hearth")
    await alice.invites(room, bob)
    await bob.is_invited(room)
    shown = bob.rooms[room]
    assert shown.state["m.room.member", bob.id]["sender"] == alice.id
    assert shown.content("m.room.name") == {"name": "Hearth"}, "an invitation shows the room's name"
    assert shown.content("m.room.join_rules") == {"join_rule": "invite"}
    await bob.joins(room)
    await alice.sees_member(room, bob, "join")
    await bob.sees(room, await alice.says(room, "welcome"))
    await agree_on_state(room, alice, bob)


@story(EVERY)
async def is_invited_and_declines(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat")
    await alice.invites(room, bob)
    await bob.is_invited(room)
    await bob.leaves(room)
    await bob.has_left(room)
    refusal = await alice.sees_member(room, bob, "leave")
    assert refusal["sender"] == bob.id
    await alice.invites(room, bob)
    await bob.is_invited(room)
    await bob.joins(room)
    await alice.sees_member(room, bob, "join")


@story(("1", "12"))
async def an_invitation_is_taken_back(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat")
    await alice.invites(room, bob)
    await bob.is_invited(room)
    await alice.kicks(room, bob)
    await bob.has_left(room)
    await refused(bob.joins(room, stage.a), "M_FORBIDDEN")


@story(WITH_KNOCKING)
async def knocks_and_is_let_in(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat", name="Hearth", initial_state=KNOCKING)
    await refused(bob.joins(room, stage.a), "M_FORBIDDEN")
    assert await bob.knocks(room, stage.a) == room
    await bob.until("the knock", lambda: bob.rooms[room].membership == "knock")
    assert bob.rooms[room].content("m.room.name") == {"name": "Hearth"}, "who knocks sees the room's name"
    await alice.sees_member(room, bob, "knock")
    await alice.invites(room, bob)
    await bob.is_invited(room)
    await bob.joins(room)
    await alice.sees_member(room, bob, "join")
    await agree_on_state(room, alice, bob)


@story(("9", "12"))
async def knocks_and_goes_away_again(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat", initial_state=KNOCKING)
    await bob.knocks(room, stage.a)
    await alice.sees_member(room, bob, "knock")
    await bob.leaves(room)
    withdrawal = await alice.sees_member(room, bob, "leave")
    assert withdrawal["sender"] == bob.id
    await bob.has_left(room)


@story(("12",))
async def knocks_and_is_sent_away(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version, preset="private_chat", initial_state=KNOCKING)
    await bob.knocks(room, stage.a)
    await alice.sees_member(room, bob, "knock")
    await alice.kicks(room, bob)
    await bob.has_left(room)


@story(("6",))
async def cannot_knock_where_the_version_has_no_knocking(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version)
    await refused(bob.knocks(room, stage.a), "M_FORBIDDEN", "M_INCOMPATIBLE_ROOM_VERSION", "M_UNSUPPORTED_ROOM_VERSION")


def restricted_to(room, rule="restricted"):
    allow = [{"type": "m.room_membership", "room_id": room}]
    return [{"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}]


@story(WITH_RESTRICTED)
async def joins_a_restricted_room(stage):
    alice, bob, carol = await stage.alice(), await stage.bob(), await stage.person(stage.b, "carol")
    club = await alice.creates(stage.version)
    room = await alice.creates(stage.version, preset="private_chat", initial_state=restricted_to(club))
    await bob.joins(club, stage.a)
    await alice.sees_member(club, bob, "join")
    await refused(carol.joins(room, stage.a), "M_FORBIDDEN")
    await bob.joins(room, stage.a)
    joined = await alice.sees_member(room, bob, "join")
    assert joined["content"]["join_authorised_via_users_server"] == alice.id
    # Now that Bob is in, his server can tell by itself that Carol may come.
    await carol.joins(club, stage.a)
    await carol.joins(room, stage.a)
    await alice.sees_member(room, carol, "join")
    await alice.sees(room, await carol.says(room, "so do I"))
    await agree_on_state(room, alice, bob)


@story(WITH_KNOCK_RESTRICTED)
async def joins_or_knocks_where_both_are_possible(stage):
    alice, bob, carol = await stage.alice(), await stage.bob(), await stage.person(stage.b, "carol")
    club = await alice.creates(stage.version)
    room = await alice.creates(stage.version, preset="private_chat", initial_state=restricted_to(club, "knock_restricted"))
    await bob.joins(club, stage.a)
    await alice.sees_member(club, bob, "join")
    await bob.joins(room, stage.a)
    await alice.sees_member(room, bob, "join")
    await carol.knocks(room, stage.a)
    await alice.sees_member(room, carol, "knock")
    await alice.invites(room, carol)
    await bob.finds_member(room, carol, "invite")
    await carol.is_invited(room)
    await carol.joins(room)
    await alice.sees_member(room, carol, "join")
    await agree_on_state(room, alice, bob)


@story(EVERY)
async def leaves_and_comes_back(stage):
    alice, bob, room = await stage.shared_room()
    await bob.leaves(room)
    await bob.has_left(room)
    await alice.sees_member(room, bob, "leave")
    missed = await alice.says(room, "where is everybody?")
    await bob.joins(room, stage.a)
    await alice.sees_member(room, bob, "join")
    await bob.sees(room, await alice.says(room, "welcome back"))
    await alice.sees(room, await bob.says(room, "here I am"))

    async def reads_what_was_missed():
        return missed in [e["event_id"] for e in await bob.history(room)]

    await bob.eventually("what was said meanwhile", reads_what_was_missed)
    await agree_on_state(room, alice, bob)


@story(EVERY)
async def is_kicked_and_comes_back(stage):
    alice, bob, room = await stage.shared_room()
    await alice.kicks(room, bob)
    await bob.has_left(room)
    kick = bob.rooms[room].state["m.room.member", bob.id]
    assert (kick["sender"], kick["content"]["reason"]) == (alice.id, "too loud")
    await refused(bob.says(room, "am I still here?"), "M_FORBIDDEN")
    await bob.joins(room, stage.a)
    await alice.sees_member(room, bob, "join")
    await agree_on_state(room, alice, bob)


@story(EVERY)
async def is_banned_until_the_ban_is_lifted(stage):
    alice, bob, room = await stage.shared_room()
    await alice.bans(room, bob)
    await bob.until("the ban", lambda: bob.rooms[room].member(bob.id) == "ban")
    await bob.has_left(room)
    await refused(bob.joins(room, stage.a), "M_FORBIDDEN")
    await alice.unbans(room, bob)
    await bob.eventually("to be let in again", lambda: bob.joins(room, stage.a))
    await alice.sees_member(room, bob, "join")
    await agree_on_state(room, alice, bob)


@story(EVERY)
async def moderates_from_afar(stage):
    alice, bob, room = await stage.shared_room()
    carol = await stage.person(stage.a, "carol")
    await carol.joins(room)
    await bob.sees_member(room, carol, "join")
    await refused(bob.sets(room, "m.room.topic", {"topic": "mine"}), "M_FORBIDDEN")
    await refused(bob.bans(room, carol), "M_FORBIDDEN")
    await alice.empowers(room, bob, 50)
    await alice.sees(room, await bob.sets(room, "m.room.topic", {"topic": "ours"}))
    await bob.bans(room, carol)
    ban = await alice.sees_member(room, carol, "ban")
    assert ban["sender"] == bob.id
    await carol.has_left(room)
    await refused(carol.joins(room), "M_FORBIDDEN", "M_BAD_STATE")
    await agree_on_state(room, alice, bob)


@story(("6", "12"))
async def a_server_is_kept_out_by_an_access_list(stage):
    alice, bob, common = await stage.shared_room()
    # A is called by a name, B by an address.
    lists = {denied: {"allow": ["*"], "deny": ["no.such.server"], "allow_ip_literals": not denied} for denied in (True, False)}
    kept_out = [{"type": "m.room.server_acl", "content": lists[True]}]
    room = await alice.creates(stage.version, initial_state=kept_out)
    await refused(bob.joins(room, stage.a), "M_FORBIDDEN")
    await alice.sets(room, "m.room.server_acl", lists[False])
    await bob.joins(room, stage.a)
    await alice.sees_member(room, bob, "join")
    await alice.sees(room, await bob.says(room, "allowed"))
    await bob.sees(room, await alice.sets(room, "m.room.server_acl", lists[True]))
    await bob.says(room, "denied")
    # Messages to one server go out in their order, so when this one is there, the other has been looked at.
    await alice.sees(common, await bob.says(common, "here everybody may speak"))
    assert await alice.texts(room) == ["allowed"]
