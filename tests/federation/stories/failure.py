"""Servers that stop, die, lag or cannot reach each other: nothing that was acknowledged is lost.

No other story runs beside one of these.
"""

import asyncio
import secrets
import time

from book import story
from people import Refused, agree_on_state
from stories.live import devices_of, upload_keys

MANY = 500
AT_ONCE = 10
LONG_S = 120
SOON_S = 5
ANSWER_S = 40


async def say_many(person, room, count, word="message"):
    """Says something many times, some at once, and returns the texts."""
    texts = [f"{word} {n}" for n in range(count)]
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(person.says(room, text) for text in texts[start : start + AT_ONCE]))
    return texts


async def has_them_all(person, room, texts):
    """Waits until the history has every text, and each once."""

    async def complete():
        found = await person.texts(room)
        missing = set(texts) - set(found)
        assert not missing, f"{len(missing)} of {len(texts)} missing, such as {sorted(missing)[:3]}"
        twice = {text for text in texts if found.count(text) > 1}
        assert not twice, f"twice: {twice}"
        return True

    await person.eventually("all that was said", complete, LONG_S)


@story(alone=True)
async def comes_back_after_a_stop_and_misses_nothing(stage):
    alice, bob, room = await stage.shared_room()
    assert await stage.b.stop(), "the server ends when asked to"
    texts = await say_many(alice, room, MANY)
    await alice.sets(room, "m.room.topic", {"topic": "while you were out"})
    await stage.b.start()
    await alice.sees(room, await bob.says(room, "I am back"))
    await has_them_all(bob, room, texts)
    await agree_on_state(room, alice, bob)


@story(alone=True)
async def comes_back_after_a_kill_and_misses_nothing(stage):
    alice, bob, room = await stage.shared_room()
    saying = asyncio.create_task(say_many(alice, room, MANY))
    await bob.until("some of the messages", lambda: len(bob.rooms[room].texts()) > 20)
    await stage.b.kill()
    texts = await saying
    await stage.b.start()
    await alice.sees(room, await bob.says(room, "I am back"))
    await has_them_all(bob, room, texts)
    await bob.sees(room, await alice.says(room, "good to see you"))
    await agree_on_state(room, alice, bob)


@story(alone=True)
async def what_a_killed_server_had_accepted_arrives(stage):
    alice, bob, room = await stage.shared_room()
    stage.b.line.cut()
    texts = await say_many(alice, room, 50)
    await stage.a.kill()
    stage.b.line.mend()
    await stage.a.start()
    await alice.sees(room, await bob.says(room, "are you there?"))
    if stage.a.kind == "synapse":
        # It tells one of a room's last events after a kill, and of those beside it when the next cites them.
        await alice.says(room, "here")
    await has_them_all(bob, room, texts)
    await has_them_all(alice, room, texts)


@story(alone=True)
async def a_server_that_lags_delays_nobody_and_misses_nothing(stage):
    alice, bob, room = await stage.shared_room()
    stage.b.line.silence()
    texts = []
    for n in range(20):
        began = time.monotonic()
        await alice.says(room, f"message {n}")
        texts.append(f"message {n}")
        assert time.monotonic() - began < SOON_S, "sending waits for no other server"
    began = time.monotonic()
    await alice.sync()
    assert time.monotonic() - began < SOON_S, "sync waits for no other server"
    stage.b.line.mend()
    await bob.until("the last message", lambda: texts[-1] in bob.rooms[room].texts(), LONG_S)
    await has_them_all(bob, room, texts)


@story(versions=("1", "10", "12"), alone=True)
async def servers_agree_after_they_were_parted(stage):
    alice, bob, room = await stage.shared_room()
    carol, dave = await stage.person(stage.a, "carol"), await stage.person(stage.b, "dave")
    await carol.joins(room)
    await dave.joins(room, stage.a)
    await bob.sees_member(room, carol, "join")
    await alice.sees_member(room, dave, "join")
    await alice.empowers(room, bob, 90 if stage.version == "12" else 100)
    stage.a.line.cut()
    stage.b.line.cut()
    texts = []
    for person, banned in ((alice, dave), (bob, carol)):
        for n in range(10):
            await person.says(room, f"{person.id} says {n}")
            texts.append(f"{person.id} says {n}")
            await person.sets(room, "m.room.topic", {"topic": f"{n} of {person.id}"})
            await person.sets(room, "test.note", {"by": person.id}, key=f"{n % 3}")
        await person.bans(room, banned)
        await person.sets(room, "m.room.name", {"name": f"the room of {person.id}"})
    stage.a.line.mend()
    stage.b.line.mend()
    await bob.until("the other side", lambda: f"{alice.id} says 9" in bob.rooms[room].texts(), LONG_S)
    await alice.until("the other side", lambda: f"{bob.id} says 9" in alice.rooms[room].texts(), LONG_S)
    await bob.sees(room, await alice.says(room, "together again"))
    await alice.sees(room, await bob.says(room, "so we are"))
    await has_them_all(alice, room, texts)
    await has_them_all(bob, room, texts)
    state = await agree_on_state(room, alice, bob)
    for person, banned in ((alice, carol), (alice, dave)):
        event = await person.event(room, state["m.room.member", banned.id])
        assert event["content"]["membership"] == "ban", event


@story(alone=True)
async def what_is_no_event_waits_for_a_server_that_is_away(stage):
    alice, bob, room = await stage.shared_room()
    await upload_keys(alice)
    await bob.until("news of Alice's devices", lambda: alice.id in bob.changed_devices)
    await bob.eventually("Alice's device", lambda: devices_of(alice, bob))
    bob.changed_devices.clear()
    await stage.b.stop()
    for n in range(3):
        messages = {bob.id: {bob.device_id: {"n": n}}}
        await alice.put("/client/v3/sendToDevice/{}/{}", "test.note", secrets.token_hex(8), body={"messages": messages})
    laptop = await stage.further_device(alice)
    await upload_keys(laptop)
    await stage.b.start()
    await alice.sees(room, await bob.says(room, "I am back"))
    numbers = lambda: [e["content"]["n"] for e in bob.to_device]
    await bob.until("the messages to the device", lambda: len(numbers()) >= 3, LONG_S)
    await bob.sees(room, await alice.says(room, "that was all"))
    assert numbers() == [0, 1, 2], numbers()
    await bob.until("news of Alice's devices", lambda: alice.id in bob.changed_devices, LONG_S)

    async def knows_both():
        return set(await devices_of(alice, bob)) == {alice.device_id, laptop.device_id}

    await bob.eventually("both devices", knows_both)


@story(alone=True)
async def joins_once_the_other_server_is_back(stage):
    alice, bob = await stage.alice(), await stage.bob()
    room = await alice.creates(stage.version)
    await stage.a.stop()
    began = time.monotonic()
    try:
        await bob.joins(room, stage.a)
        raise AssertionError("nobody can join through a server that is away")
    except Refused as refusal:
        assert refusal.status in (400, 403, 404, 500, 502, 503, 504), refusal
    assert time.monotonic() - began < ANSWER_S, "a client is told soon that it did not work"
    await stage.a.start()
    await bob.eventually("to be let in", lambda: bob.joins(room, stage.a), LONG_S)
    await alice.sees_member(room, bob, "join")
