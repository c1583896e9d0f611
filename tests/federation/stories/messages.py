"""What is said, changed and taken back, and what of it is readable where. Alice is on server A, Bob on server B."""

import asyncio

from book import EVERY, story
from people import agree_on_state, refused

# How long a history of hundreds of events may take on a busy machine.
LONG_S = 120


@story(EVERY)
async def messages_go_both_ways_in_order(stage):
    alice, bob, room = await stage.shared_room()
    said = []
    for n in range(5):
        said += [await alice.says(room, f"question {n}"), await bob.says(room, f"answer {n}")]
    for person in (alice, bob):
        for event_id in said:
            await person.sees(room, event_id)
        seen = [e["event_id"] for e in person.rooms[room].timeline if e["type"] == "m.room.message"]
        assert sorted(seen) == sorted(said), "every message comes once"
        own = [e for e in seen if e in said[0::2]]
        assert own == said[0::2], "what one person says comes in its order"


@story(EVERY)
async def edits_and_reactions_go_both_ways(stage):
    alice, bob, room = await stage.shared_room()
    for writer, reader in ((alice, bob), (bob, alice)):
        message = await writer.says(room, "helo")
        await reader.sees(room, message)
        replacement = {"m.new_content": {"msgtype": "m.text", "body": "hello"}}
        edit = await writer.says(room, "* hello", **{"m.relates_to": {"rel_type": "m.replace", "event_id": message}}, **replacement)
        await reader.sees(room, edit)
        bundled = await reader.event(room, message)
        assert bundled["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
        thumbs_up = {"m.relates_to": {"rel_type": "m.annotation", "event_id": message, "key": "👍"}}
        reaction = await reader.sends(room, "m.reaction", thumbs_up)
        await writer.sees(room, reaction)
        found = await writer.get("/client/v1/rooms/{}/relations/{}/m.annotation", room, message)
        assert [e["event_id"] for e in found["chunk"]] == [reaction]


@story(EVERY)
async def redactions_go_both_ways(stage):
    alice, bob, room = await stage.shared_room()
    for writer, redactor, reader in ((alice, alice, bob), (bob, bob, alice), (bob, alice, bob)):
        message = await writer.says(room, "a slip")
        await alice.sees(room, message)
        await bob.sees(room, message)
        redaction = await redactor.redacts(room, message)
        await reader.sees(room, redaction)

        async def is_gone():
            event = await reader.event(room, message)
            assert event["content"] == {}, event
            because = event["unsigned"]["redacted_because"]
            assert (because["event_id"], because["content"]["reason"]) == (redaction, "oops")
            return True

        await reader.eventually("the redacted message", is_gone)
    # Bob may redact what he said, and nothing of others.
    message = await alice.says(room, "this stays")
    await bob.sees(room, message)
    await refused(bob.redacts(room, message), "M_FORBIDDEN")
    assert (await alice.event(room, message))["content"]["body"] == "this stays"


@story(EVERY)
async def pages_back_over_the_join(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version)
    for n in range(30):
        await alice.says(room, f"message {n}")
        if n % 10 == 5:
            await alice.sets(room, "m.room.topic", {"topic": f"topic {n}"})
    await bob.joins(room, stage.a)
    await alice.sees_member(room, bob, "join")
    await bob.sees(room, await alice.says(room, "after the join"))
    whole = [e["event_id"] for e in await alice.history(room)]

    async def the_same_history():
        found = [e["event_id"] for e in await bob.history(room)]
        assert found == whole, f"{len(found)} of {len(whole)} events, or in another order: missing {set(whole) - set(found)}"
        return True

    await bob.eventually("the whole history in its order", the_same_history)


@story()
async def pages_back_through_a_long_history(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version)
    said = [f"message {n}" for n in range(150)]
    for text in said:
        await alice.says(room, text)
    await bob.joins(room, stage.a)

    async def all_of_it():
        found = await bob.texts(room)
        assert found == said, f"{len(found)} of {len(said)} messages, or in another order"
        return True

    await bob.eventually("all that was ever said", all_of_it, LONG_S)


@story()
async def who_left_reads_no_further(stage):
    alice, bob, room = await stage.shared_room()
    await bob.sees(room, await alice.says(room, "for both"))
    await bob.leaves(room)
    await bob.has_left(room)
    await alice.sees_member(room, bob, "leave")
    later = await alice.says(room, "between us")
    assert "between us" not in await bob.texts(room)
    await refused(bob.event(room, later), "M_NOT_FOUND", "M_FORBIDDEN")


@story()
async def moves_to_the_upgraded_room(stage):
    alice, bob = await stage.alice(), await stage.bob()
    name = alice.id[1:].split(":")[0]
    old = await alice.creates("10", name="the old room", room_alias_name=name)
    await bob.joins(old, stage.a)
    await alice.sees_member(old, bob, "join")
    new = (await alice.post("/client/v3/rooms/{}/upgrade", old, body={"new_version": stage.version}))["replacement_room"]
    await bob.until("the tombstone", lambda: (bob.rooms[old].content("m.room.tombstone") or {}).get("replacement_room") == new)
    assert await bob.joins(f"#{name}:{stage.a.name}") == new
    await alice.sees_member(new, bob, "join")
    assert bob.rooms[new].content("m.room.create")["predecessor"]["room_id"] == old
    await bob.sees(new, await alice.says(new, "here we are"))


@story(("1", "12"))
async def history_is_as_visible_as_the_room_says(stage):
    alice, bob = await stage.alice(), await stage.bob()
    readable = {
        "joined": ["after the join"],
        "invited": ["after the invitation", "after the join"],
        "shared": ["before", "after the invitation", "after the join"],
        "world_readable": ["before", "after the invitation", "after the join"],
    }
    for visibility, expected in readable.items():
        setting = [{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]
        room = await alice.creates(stage.version, preset="private_chat", initial_state=setting)
        before = await alice.says(room, "before")
        await alice.invites(room, bob)
        await bob.is_invited(room)
        await alice.says(room, "after the invitation")
        await bob.joins(room)
        await alice.sees_member(room, bob, "join")
        await bob.sees(room, await alice.says(room, "after the join"))

        async def reads_what_he_may():
            texts = await bob.texts(room)
            assert texts == expected, f"{visibility}: {texts}"
            return True

        await bob.eventually(f"the history that is {visibility}", reads_what_he_may)
        if "before" not in expected:
            await refused(bob.event(room, before), "M_NOT_FOUND", "M_FORBIDDEN")


@story(EVERY)
async def servers_agree_after_changes_at_the_same_time(stage):
    alice, bob, room = await stage.shared_room()
    carol, dave = await stage.person(stage.a, "carol"), await stage.person(stage.b, "dave")
    await carol.joins(room)
    await dave.joins(room, stage.a)
    await bob.sees_member(room, carol, "join")
    await alice.sees_member(room, dave, "join")
    await alice.empowers(room, bob, 90 if stage.version == "12" else 100)

    def changes(person, other, n):
        yield person.sets(room, "m.room.topic", {"topic": f"{n} of {person.id}"})
        yield person.sets(room, "m.room.name", {"name": f"{n} of {person.id}"})
        yield person.sets(room, "test.note", {"by": person.id, "n": n}, key=f"{n % 2}")
        yield person.kicks(room, other) if n == 1 else person.says(room, f"round {n}")

    for n in range(3):
        both = [*changes(alice, dave, n), *changes(bob, carol, n)]
        await asyncio.gather(*both)
    # Each sees a last word of the other, which stands on all that came before it.
    await bob.sees(room, await alice.says(room, "done"))
    await alice.sees(room, await bob.says(room, "done too"))
    state = await agree_on_state(room, alice, bob)
    assert {("m.room.topic", ""), ("test.note", "0"), ("test.note", "1")} <= state.keys()
    for person, kicked in ((alice, dave), (bob, carol)):
        event = await person.event(room, state["m.room.member", kicked.id])
        assert event["content"]["membership"] == "leave"
