#!/usr/bin/env python3
"""Stories of people who use the server through matrix-nio, an independent client library.

usage: nio_test.py BASE_URL [PART_OF_A_STORY_NAME]

Every story registers people of its own, so stories can run alone, in any order, and again on a server that already
has data. Nothing sleeps: `Person.until` syncs until what it waits for has come, and fails after LIMIT_S seconds.
"""

import asyncio
import io
import logging
import secrets
import struct
import sys
import tempfile
import time
import traceback
import zlib

from nio import (
    Api,
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    InviteMemberEvent,
    MessageDirection,
    ReactionEvent,
    ReceiptEvent,
    RedactedEvent,
    RedactionEvent,
    ResizingMethod,
    RoomMessageImage,
    RoomMessageText,
    RoomMemberEvent,
    RoomPreset,
    TypingNoticeEvent,
)
from nio.api import RelationshipType

LIMIT_S = 20
STORY_LIMIT_S = 90
PASSWORD = "correct horse battery staple"


class Person:
    """One logged-in device of a user, and everything it has been told by /sync so far."""

    def __init__(self, base, folder, device_name="nio"):
        config = AsyncClientConfig(
            encryption_enabled=True, store_sync_tokens=False, max_limit_exceeded=0, max_timeouts=0, request_timeout=LIMIT_S
        )
        self.base, self.folder, self.device_name = base, folder, device_name
        self.client = AsyncClient(base, "", store_path=folder, config=config)
        self.events, self.ephemeral = [], []
        self.client.add_event_callback(lambda room, event: self.events.append((room.room_id, event)), (object,))
        self.client.add_ephemeral_callback(lambda room, event: self.ephemeral.append((room.room_id, event)), (object,))

    @property
    def id(self):
        return self.client.user_id

    async def sync(self, timeout_ms=0):
        """One /sync, then the upkeep of the encryption keys that it asks for."""
        client = self.client
        ok(await client.sync(timeout=timeout_ms))
        if client.should_upload_keys:
            ok(await client.keys_upload())
        if client.should_query_keys:
            ok(await client.keys_query())
        if client.should_claim_keys:
            ok(await client.keys_claim(client.get_users_for_key_claiming()))
        await client.send_to_device_messages()

    async def until(self, what, condition):
        """Syncs until the condition gives something true, and returns that."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while not (found := condition()):
                    await self.sync(timeout_ms=5000)
                return found
        except TimeoutError:
            raise AssertionError(f"{self.id} waited {LIMIT_S} s in vain for {what}") from None

    async def sees(self, room, kind, where=lambda event: True):
        """Waits for an event of this class in the room's timeline (or invitation) and returns it."""
        return await self.until(
            f"a {kind.__name__} in {room}", lambda: next((e for r, e in self.events if r == room and type(e) is kind and where(e)), None)
        )

    async def sees_ephemeral(self, room, kind, where):
        return await self.until(
            f"a {kind.__name__} in {room}", lambda: next((e for r, e in self.ephemeral if r == room and type(e) is kind and where(e)), None)
        )

    async def reads(self, room, body):
        """Waits for a text message with this body and returns its event."""
        return await self.sees(room, RoomMessageText, lambda e: e.body == body)

    async def says(self, room, body, **content):
        """Sends a text message and returns its event id."""
        content = {"msgtype": "m.text", "body": body, **content}
        return ok(await self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)).event_id


class Cast:
    """Makes the people of one story and sends them home at its end."""

    def __init__(self, base, folder):
        self.base, self.folder, self.people = base, folder, []

    def stranger(self, device_name="nio"):
        """A client that is not logged in yet."""
        person = Person(self.base, tempfile.mkdtemp(dir=self.folder), device_name)
        self.people.append(person)
        return person

    async def person(self, name):
        """Somebody newly registered, logged in, with keys uploaded."""
        person = self.stranger()
        ok(await person.client.register(f"{name}-{secrets.token_hex(4)}", PASSWORD, device_name=person.device_name))
        await person.sync()
        return person

    async def room_of(self, owner, *guests, **settings):
        """A private room of the owner that all guests have joined."""
        created = ok(await owner.client.room_create(preset=RoomPreset.private_chat, invite=[g.id for g in guests], **settings))
        for guest in guests:
            await guest.sees(created.room_id, InviteMemberEvent, lambda e: e.state_key == guest.id)
            ok(await guest.client.join(created.room_id))
        for one in (owner, *guests):
            await one.until("everyone in the room", lambda: joined(one, created.room_id) == {p.id for p in (owner, *guests)})
        return created.room_id

    async def go_home(self):
        for person in self.people:
            await person.client.close()


def joined(person, room):
    known = person.client.rooms.get(room)
    return {u.user_id for u in known.users.values() if not u.invited} if known else set()


def ok(response):
    """The response, which must not be an error."""
    assert not isinstance(response, ErrorResponse), f"the server refused: {response}"
    return response


def refused(response, code):
    assert isinstance(response, ErrorResponse), f"expected {code}, but the server accepted: {response}"
    assert response.status_code == code, f"expected {code}, got {response}"


def relates(rel_type, event_id, **more):
    return {"m.relates_to": {"rel_type": rel_type, "event_id": event_id, **more}}


def png(width, height):
    """A PNG picture with a colour gradient."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in (x * 255 // width, y * 255 // height, 128)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_size(data):
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), "not a PNG"
    return struct.unpack(">II", data[16:24])


# ---------------------------------------------------------------- stories


async def registers_and_logs_in_on_a_second_device(cast):
    alice = await cast.person("alice")
    laptop = cast.stranger("laptop")
    laptop.client.user = alice.id
    refused(await laptop.client.login("wrong password", device_name="laptop"), "M_FORBIDDEN")
    ok(await laptop.client.login(PASSWORD, device_name="laptop"))
    me = ok(await laptop.client.whoami())
    assert (me.user_id, me.device_id) == (alice.id, laptop.client.device_id)
    devices = {d.id: d.display_name for d in ok(await alice.client.devices()).devices}
    assert devices == {alice.client.device_id: "nio", laptop.client.device_id: "laptop"}, devices


async def a_taken_name_cannot_be_registered_again(cast):
    alice = await cast.person("alice")
    name = alice.id[1:].split(":")[0]
    refused(await cast.stranger().client.register(name, PASSWORD), "M_USER_IN_USE")


async def invites_and_joins(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = ok(await alice.client.room_create(name="Hearth", topic="Fireside", invite=[bob.id])).room_id
    invitation = await bob.sees(room, InviteMemberEvent, lambda e: e.state_key == bob.id)
    assert (invitation.sender, invitation.membership) == (alice.id, "invite")
    assert bob.client.invited_rooms[room].name == "Hearth"
    ok(await bob.client.join(room))
    arrival = await alice.sees(room, RoomMemberEvent, lambda e: (e.state_key, e.membership) == (bob.id, "join"))
    assert arrival.prev_membership == "invite"
    await bob.until("the joined room", lambda: joined(bob, room) == {alice.id, bob.id})
    assert (bob.client.rooms[room].name, bob.client.rooms[room].topic) == ("Hearth", "Fireside")
    assert {m.user_id for m in ok(await bob.client.joined_members(room)).members} == {alice.id, bob.id}


async def sends_edits_reacts_and_redacts(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = await cast.room_of(alice, bob)
    first = await alice.says(room, "helo")
    assert (await bob.reads(room, "helo")).event_id == first
    await bob.says(room, "hello to you")
    assert (await alice.reads(room, "hello to you")).sender == bob.id

    edit = await alice.says(room, "* hello", **relates("m.replace", first), **{"m.new_content": {"msgtype": "m.text", "body": "hello"}})
    assert (await bob.reads(room, "* hello")).source["content"]["m.new_content"]["body"] == "hello"
    edits = [e async for e in bob.client.room_get_event_relations(room, first, RelationshipType.replacement)]
    assert [e.event_id for e in edits] == [edit]
    bundled = ok(await bob.client.room_get_event(room, first)).event.source
    assert bundled["content"]["body"] == "helo", "an edit does not change the original event"
    assert bundled["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit

    thumbs_up = relates("m.annotation", first, key="👍")
    reaction = ok(await bob.client.room_send(room, "m.reaction", thumbs_up)).event_id
    seen = await alice.sees(room, ReactionEvent)
    assert (seen.event_id, seen.reacts_to, seen.key) == (reaction, first, "👍")
    refused(await bob.client.room_send(room, "m.reaction", thumbs_up), "M_DUPLICATE_ANNOTATION")

    ok(await alice.client.room_redact(room, first, reason="typo"))
    assert (await bob.sees(room, RedactionEvent)).redacts == first
    gone = ok(await bob.client.room_get_event(room, first)).event
    assert isinstance(gone, RedactedEvent) and gone.source["content"] == {} and gone.reason == "typo"


async def the_same_transaction_is_sent_once(cast):
    alice = await cast.person("alice")
    room = await cast.room_of(alice)
    content = {"msgtype": "m.text", "body": "once"}
    first = ok(await alice.client.room_send(room, "m.room.message", content, tx_id="t1")).event_id
    again = ok(await alice.client.room_send(room, "m.room.message", content, tx_id="t1")).event_id
    assert first == again
    await alice.says(room, "twice")
    await alice.reads(room, "twice")
    assert [e.body for r, e in alice.events if type(e) is RoomMessageText] == ["once", "twice"]


async def pages_back_through_history_and_forth_again(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = await cast.room_of(alice, bob)
    said = [await alice.says(room, f"message {n}") for n in range(25)]
    await bob.reads(room, "message 24")

    async def walk(direction, start):
        events, steps = [], 0
        while start and steps < 20:
            page = ok(await bob.client.room_messages(room, start, direction=direction, limit=10))
            assert len(page.chunk) <= 10
            events, start, steps = events + page.chunk, page.end, steps + 1
            if not page.chunk:
                break
        return events

    back = await walk(MessageDirection.back, bob.client.next_batch)
    assert [e.event_id for e in back if type(e) is RoomMessageText] == said[::-1]
    assert back[-1].source["type"] == "m.room.create"
    assert len({e.event_id for e in back}) == len(back), "no event comes twice"
    oldest = ok(await bob.client.room_messages(room, None, direction=MessageDirection.front, limit=1)).start
    forth = await walk(MessageDirection.front, oldest)
    assert [e.event_id for e in forth if type(e) is RoomMessageText] == said


async def shows_the_context_of_a_message(cast):
    alice = await cast.person("alice")
    room = await cast.room_of(alice)
    said = [await alice.says(room, f"message {n}") for n in range(5)]
    context = ok(await alice.client.room_context(room, said[2], limit=4))
    assert context.event.event_id == said[2]
    assert [e.event_id for e in context.events_before] == [said[1], said[0]]
    assert [e.event_id for e in context.events_after] == [said[3], said[4]]


async def uploads_and_shows_a_picture(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = await cast.room_of(alice, bob)
    picture = png(800, 600)
    uploaded, _ = await alice.client.upload(io.BytesIO(picture), "image/png", "fire place.png", filesize=len(picture))
    mxc = ok(uploaded).content_uri
    info = {"mimetype": "image/png", "size": len(picture), "w": 800, "h": 600}
    content = {"msgtype": "m.image", "body": "fire place.png", "url": mxc, "info": info}
    ok(await alice.client.room_send(room, "m.room.message", content))

    shown = await bob.sees(room, RoomMessageImage)
    assert shown.url == mxc
    downloaded = ok(await bob.client.download(shown.url))
    assert (downloaded.body, downloaded.content_type) == (picture, "image/png")
    assert downloaded.filename == "fire place.png", downloaded.filename

    server, media_id = mxc.removeprefix("mxc://").split("/")
    for width, height, method in ((320, 240, ResizingMethod.scale), (96, 96, ResizingMethod.crop)):
        thumbnail = ok(await bob.client.thumbnail(server, media_id, width, height, method))
        assert thumbnail.content_type in ("image/png", "image/jpeg", "image/webp"), thumbnail.content_type
        assert thumbnail.body != picture, "a thumbnail of this size is not the picture itself"
        if thumbnail.content_type == "image/png":
            assert png_size(thumbnail.body) == (width, height), png_size(thumbnail.body)

    anonymous = cast.stranger()
    assert isinstance(await anonymous.client.download(mxc), ErrorResponse), "media needs an access token"


async def typing_and_receipts_reach_the_other(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = await cast.room_of(alice, bob)
    message = await alice.says(room, "read this")
    await bob.reads(room, "read this")
    ok(await bob.client.room_typing(room, True))
    await alice.sees_ephemeral(room, TypingNoticeEvent, lambda e: e.users == [bob.id])
    ok(await bob.client.room_typing(room, False))
    await alice.sees_ephemeral(room, TypingNoticeEvent, lambda e: e.users == [])
    ok(await bob.client.room_read_markers(room, message, message))
    is_bobs = lambda r: (r.event_id, r.user_id, r.receipt_type) == (message, bob.id, "m.read")
    await alice.sees_ephemeral(room, ReceiptEvent, lambda e: any(is_bobs(r) for r in e.receipts))


async def encrypted_direct_messages_go_both_ways(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = await cast.room_of(alice, bob, is_direct=True, initial_state=[encryption])
    await alice.until("encryption to be on", lambda: alice.client.rooms[room].encrypted)
    secret = await alice.says(room, "a secret")
    read = await bob.reads(room, "a secret")
    assert read.decrypted and read.event_id == secret
    raw = await bob.client.send(*Api.room_get_event(bob.client.access_token, room, secret))
    on_the_server = await raw.json()
    assert on_the_server["type"] == "m.room.encrypted" and "a secret" not in str(on_the_server)
    await bob.says(room, "another secret")
    assert (await alice.reads(room, "another secret")).decrypted


async def a_new_name_and_avatar_reach_the_other(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = await cast.room_of(alice, bob)
    picture = png(32, 32)
    uploaded, _ = await alice.client.upload(io.BytesIO(picture), "image/png", filesize=len(picture))
    avatar = ok(uploaded).content_uri
    ok(await alice.client.set_displayname("Alice of the Hearth"))
    ok(await alice.client.set_avatar(avatar))
    await bob.until("the new name and avatar", lambda: (known := bob.client.rooms[room].users[alice.id])
        and (known.display_name, known.avatar_url) == ("Alice of the Hearth", avatar))
    profile = ok(await bob.client.get_profile(alice.id))
    assert (profile.displayname, profile.avatar_url) == ("Alice of the Hearth", avatar)


async def leaves_and_forgets_a_room(cast):
    alice, bob = await cast.person("alice"), await cast.person("bob")
    room = await cast.room_of(alice, bob)
    ok(await bob.client.room_leave(room))
    await alice.sees(room, RoomMemberEvent, lambda e: (e.state_key, e.membership) == (bob.id, "leave"))
    refused(await bob.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "still here?"}), "M_FORBIDDEN")
    ok(await bob.client.room_forget(room))
    assert room not in ok(await bob.client.joined_rooms()).rooms


async def a_token_is_dead_after_logging_out(cast):
    alice = await cast.person("alice")
    token = alice.client.access_token
    ok(await alice.client.logout())
    alice.client.access_token = token
    refused(await alice.client.whoami(), "M_UNKNOWN_TOKEN")
    refused(await alice.client.sync(), "M_UNKNOWN_TOKEN")


STORIES = [
    registers_and_logs_in_on_a_second_device,
    a_taken_name_cannot_be_registered_again,
    invites_and_joins,
    sends_edits_reacts_and_redacts,
    the_same_transaction_is_sent_once,
    pages_back_through_history_and_forth_again,
    shows_the_context_of_a_message,
    uploads_and_shows_a_picture,
    typing_and_receipts_reach_the_other,
    encrypted_direct_messages_go_both_ways,
    a_new_name_and_avatar_reach_the_other,
    leaves_and_forgets_a_room,
    a_token_is_dead_after_logging_out,
]


async def tell(story, base, folder):
    """Runs one story; True where it came to a good end."""
    cast, name, began = Cast(base, folder), story.__name__.replace("_", " "), time.monotonic()
    try:
        async with asyncio.timeout(STORY_LIMIT_S):
            await story(cast)
        print(f"ok nio: {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True
    except Exception:
        print(f"FAIL nio: {name}\n{traceback.format_exc()}", flush=True)
        return False
    finally:
        await cast.go_home()


async def main():
    base, part = sys.argv[1].rstrip("/"), " ".join(sys.argv[2:]).replace("_", " ")
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        results = [await tell(s, base, folder) for s in STORIES if part in s.__name__.replace("_", " ")]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
