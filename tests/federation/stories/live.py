"""What is not an event of a room: typing, receipts, presence, messages to devices, device lists and keys."""

import base64
import secrets
import tempfile

import signedjson.key
import signedjson.sign
from nio_test import Cast, joined
from nio_test import ok as accepted

from book import story
from people import refused


@story()
async def typing_is_seen(stage):
    alice, bob, room = await stage.shared_room()
    for writer, watcher in ((bob, alice), (alice, bob)):
        typing = lambda: [e["content"]["user_ids"] for e in watcher.rooms[room].ephemeral if e["type"] == "m.typing"]
        await writer.put("/client/v3/rooms/{}/typing/{}", room, writer.id, body={"typing": True, "timeout": 20_000})
        await watcher.until("somebody to type", lambda: [writer.id] in typing())
        await writer.put("/client/v3/rooms/{}/typing/{}", room, writer.id, body={"typing": False})
        await watcher.until("nobody to type", lambda: typing()[-1] == [])


def receipts(person, room, event_id):
    """Who has read the event, as person, kind and thread."""
    return {
        (user, kind, data.get("thread_id"))
        for event in person.rooms[room].ephemeral
        if event["type"] == "m.receipt"
        for kind, users in event["content"].get(event_id, {}).items()
        for user, data in users.items()
    }


@story()
async def receipts_are_seen(stage):
    alice, bob, room = await stage.shared_room()
    first, second, third = [await alice.says(room, f"read this {n}") for n in range(3)]
    await bob.sees(room, third)
    await bob.post("/client/v3/rooms/{}/receipt/m.read/{}", room, first)
    await alice.until("a receipt", lambda: (bob.id, "m.read", None) in receipts(alice, room, first))
    await bob.post("/client/v3/rooms/{}/receipt/m.read.private/{}", room, second)
    await bob.post("/client/v3/rooms/{}/receipt/m.read/{}", room, third, body={"thread_id": "main"})
    await alice.until("a receipt in the main thread", lambda: (bob.id, "m.read", "main") in receipts(alice, room, third))
    assert not receipts(alice, room, second), "private receipts are told to nobody"


@story()
async def presence_is_seen(stage):
    alice, bob, _ = await stage.shared_room()
    for shown, watcher in ((bob, alice), (alice, bob)):
        status = {"presence": "online", "status_msg": f"at the fire of {shown.id}"}

        async def is_seen():
            await shown.put("/client/v3/presence/{}/status", shown.id, body=status)
            await shown.sync()
            return watcher.presence.get(shown.id, {}).get("status_msg") == status["status_msg"]

        await watcher.eventually("the new status", is_seen)
        assert watcher.presence[shown.id]["presence"] == "online"


@story()
async def messages_to_devices_arrive_once(stage):
    alice, bob, _ = await stage.shared_room()
    laptop = await stage.further_device(bob)

    async def tell(device, n):
        messages = {bob.id: {device: {"n": n}}}
        await alice.put("/client/v3/sendToDevice/{}/{}", "test.note", secrets.token_hex(8), body={"messages": messages})

    numbers = lambda device: [e["content"]["n"] for e in device.to_device if e["type"] == "test.note"]
    await tell(bob.device_id, 1)
    await tell(laptop.device_id, 2)
    await tell("*", 3)
    await bob.until("messages to the first device", lambda: numbers(bob)[-1:] == [3])
    await laptop.until("messages to the second device", lambda: numbers(laptop)[-1:] == [3])
    assert (numbers(bob), numbers(laptop)) == ([1, 3], [2, 3])
    assert {e["sender"] for e in bob.to_device} == {alice.id}


async def upload_keys(person, one_time_keys=0):
    """Makes and uploads keys of a device, signed as they must be; returns the signing key."""
    key = signedjson.key.generate_signing_key(person.device_id)
    own = {
        "user_id": person.id,
        "device_id": person.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"ed25519:{person.device_id}": public(key), f"curve25519:{person.device_id}": random_key()},
    }
    body = {"device_keys": signedjson.sign.sign_json(own, person.id, key)}
    if one_time_keys:
        fresh = lambda: signedjson.sign.sign_json({"key": random_key()}, person.id, key)
        body["one_time_keys"] = {f"signed_curve25519:{n}": fresh() for n in range(one_time_keys)}
    await person.post("/client/v3/keys/upload", body=body)
    return key


def random_key():
    return base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def public(key):
    return signedjson.key.encode_verify_key_base64(key.verify_key)


async def devices_of(person, asker):
    answer = await asker.post("/client/v3/keys/query", body={"device_keys": {person.id: []}})
    assert not answer.get("failures"), answer
    return answer["device_keys"].get(person.id, {})


@story()
async def a_new_device_is_told_and_shown(stage):
    alice, bob, _ = await stage.shared_room()
    await upload_keys(bob)
    await alice.until("news of Bob's devices", lambda: bob.id in alice.changed_devices)

    async def knows(*devices):
        found = await devices_of(bob, alice)
        assert set(found) == {d.device_id for d in devices}, set(found)
        return found

    await alice.eventually("the first device", lambda: knows(bob))
    alice.changed_devices.clear()
    laptop = await stage.further_device(bob)
    key = await upload_keys(laptop)
    await alice.until("news of the second device", lambda: bob.id in alice.changed_devices)
    found = await alice.eventually("both devices", lambda: knows(bob, laptop))
    assert found[laptop.device_id]["keys"][f"ed25519:{laptop.device_id}"] == public(key)
    alice.changed_devices.clear()
    await laptop.post("/client/v3/logout")
    await alice.until("news of the device's end", lambda: bob.id in alice.changed_devices)
    await alice.eventually("the first device alone", lambda: knows(bob))


@story()
async def keys_of_a_stranger_are_shown(stage):
    """Nobody shares a room: the keys are asked for at the other server each time."""
    alice, bob = await stage.alice(), await stage.bob()
    key = await upload_keys(bob)
    found = await devices_of(bob, alice)
    assert found[bob.device_id]["keys"][f"ed25519:{bob.device_id}"] == public(key)


@story()
async def one_time_keys_are_claimed_once(stage):
    alice, bob, _ = await stage.shared_room()
    await upload_keys(bob, one_time_keys=3)
    claimed = []
    for _ in range(4):
        body = {"one_time_keys": {bob.id: {bob.device_id: "signed_curve25519"}}}
        answer = await alice.post("/client/v3/keys/claim", body=body)
        assert not answer.get("failures"), answer
        claimed += [k["key"] for k in answer["one_time_keys"].get(bob.id, {}).get(bob.device_id, {}).values()]
    assert len(claimed) == len(set(claimed)) == 3, claimed


@story()
async def cross_signing_keys_are_told_and_shown(stage):
    alice, bob, _ = await stage.shared_room()
    device = await upload_keys(bob)
    await alice.eventually("Bob's device", lambda: devices_of(bob, alice))
    alice.changed_devices.clear()
    made = {usage: signedjson.key.generate_signing_key("0") for usage in ("master", "self_signing", "user_signing")}

    def described(usage):
        key = made[usage]
        shown = {"user_id": bob.id, "usage": [usage], "keys": {f"ed25519:{public(key)}": public(key)}}
        if usage != "master":
            made["master"].version = public(made["master"])
            shown = signedjson.sign.sign_json(shown, bob.id, made["master"])
        else:
            shown = signedjson.sign.sign_json(shown, bob.id, device)
        return shown

    body = {f"{usage}_key": described(usage) for usage in made}
    await bob.post("/client/v3/keys/device_signing/upload", body=body)
    await alice.until("news of Bob's keys", lambda: bob.id in alice.changed_devices)

    async def both_keys():
        answer = await alice.post("/client/v3/keys/query", body={"device_keys": {bob.id: []}})
        shown = [list(answer.get(f"{usage}_keys", {}).get(bob.id, {}).get("keys", {}).values()) for usage in ("master", "self_signing")]
        assert shown == [[public(made["master"])], [public(made["self_signing"])]], shown
        assert bob.id not in answer.get("user_signing_keys", {}), "user-signing keys are shown to their owner alone"
        return True

    await alice.eventually("Bob's cross-signing keys", both_keys)


@story()
async def a_token_for_others_tells_who_somebody_is(stage):
    bob = await stage.bob()
    token = await bob.post("/client/v3/user/{}/openid/request_token", bob.id)
    assert token["matrix_server_name"] == stage.b.name
    # As a service would ask that knows no more than the token.
    asks = lambda access_token: stage.asks_server(stage.b, "/_matrix/federation/v1/openid/userinfo", access_token=access_token)
    assert await asks(token["access_token"]) == (200, {"sub": bob.id})
    status, refusal = await asks("no such token")
    assert (status, refusal["errcode"]) == (401, "M_UNKNOWN_TOKEN")


@story()
async def encrypted_messages_go_both_ways(stage):
    with tempfile.TemporaryDirectory() as folder:
        on_a, on_b = Cast(stage.a.base_url, folder), Cast(stage.b.base_url, folder)
        try:
            await tell_secrets(on_a, on_b, stage.version)
        finally:
            await on_a.go_home()
            await on_b.go_home()


async def tell_secrets(on_a, on_b, version):
    alice, bob = await on_a.person("alice"), await on_b.person("bob")
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = await on_a.room_of(alice, bob, is_direct=True, initial_state=[encryption], room_version=version)
    for person in (alice, bob):
        await person.until("encryption to be on", lambda: person.client.rooms[room].encrypted)
    for n in range(2):
        await alice.says(room, f"secret {n}")
        read = await bob.reads(room, f"secret {n}")
        assert read.decrypted and read.sender == alice.id
        await bob.says(room, f"answer {n}")
        assert (await alice.reads(room, f"answer {n}")).decrypted
    # A device that comes later reads what is said from then on.
    laptop = on_b.stranger("laptop")
    laptop.client.user = bob.id
    accepted(await laptop.client.login("correct horse battery staple", device_name="laptop"))
    await laptop.sync()
    await laptop.until("the room", lambda: joined(laptop, room) == {alice.id, bob.id})
    known = lambda: laptop.client.device_id in alice.client.device_store[bob.id]
    await alice.until("the new device", known)
    await alice.says(room, "a secret for both devices")
    assert (await laptop.reads(room, "a secret for both devices")).decrypted
    assert (await bob.reads(room, "a secret for both devices")).decrypted
