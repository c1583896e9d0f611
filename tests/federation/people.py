"""People who use a homeserver: the client API as plain requests, and all that /sync has told them so far.

Nothing sleeps to wait for something: `Person.until` and `Person.eventually` look again whenever the server has news, and fail
after LIMIT_S seconds with a sentence that says what did not come.
"""

import asyncio
import collections
import json
import secrets
import urllib.parse

import aiohttp

LIMIT_S = 40
REQUEST_LIMIT_S = 60
POLL_MS = 300
PAGES_MAX = 50
PASSWORD = "correct horse battery staple"
SYNC_FILTER = json.dumps({"room": {"timeline": {"limit": 100}}})


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, request, status, body):
        self.status, self.body = status, body
        self.errcode = body.get("errcode") if isinstance(body, dict) else None
        super().__init__(f"{request}: {status} {body}")


class Room:
    """What one person knows of a room."""

    def __init__(self):
        self.membership, self.timeline, self.state, self.ephemeral = None, [], {}, []

    def content(self, kind, key=""):
        event = self.state.get((kind, key))
        return event["content"] if event else None

    def member(self, user_id):
        return (self.content("m.room.member", user_id) or {}).get("membership")

    def texts(self):
        return [e["content"].get("body") for e in self.timeline if e["type"] == "m.room.message"]


class Person:
    """One logged-in device of a user, and everything it has been told by /sync so far."""

    def __init__(self, server, session, limit_s=LIMIT_S):
        self.server, self._session, self._limit_s = server, session, limit_s
        self.id = self.device_id = self._token = self._since = None
        self.rooms = collections.defaultdict(Room)
        self.presence, self.to_device, self.changed_devices = {}, [], set()

    # ------------------------------------------------------------ requests

    async def request(self, method, path, *parts, body=None, query=None):
        """The JSON answer. `parts` replace the `{}` of the path, quoted; `body` is JSON, or bytes with their type."""
        path = "/_matrix" + path.format(*(urllib.parse.quote(p, safe="") for p in parts))
        async with self._send(method, path, body, query) as answer:
            found = await answer.json(content_type=None)
        if answer.status != 200:
            raise Refused(f"{self.id}: {method} {path}", answer.status, found)
        return found

    async def fetch(self, path, *parts, query=None):
        """The bytes of an answer, its content type, and its headers."""
        path = "/_matrix" + path.format(*(urllib.parse.quote(p, safe="") for p in parts))
        async with self._send("GET", path, None, query) as answer:
            if answer.status != 200:
                raise Refused(f"{self.id}: GET {path}", answer.status, await answer.json(content_type=None))
            return await answer.read(), answer.content_type, answer.headers

    def _send(self, method, path, body, query):
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = {} if body is None else {"json": body}
        if isinstance(body, tuple):
            data = {"data": body[0]}
            headers["Content-Type"] = body[1]
        # The path is quoted already.
        url = aiohttp.client.URL(self.server.base_url + path, encoded=True)
        if query:
            url = url.extend_query(query)
        return self._session.request(method, url, headers=headers, timeout=aiohttp.ClientTimeout(REQUEST_LIMIT_S), **data)

    async def get(self, path, *parts, **query):
        return await self.request("GET", path, *parts, query=query)

    async def put(self, path, *parts, body):
        return await self.request("PUT", path, *parts, body=body)

    async def post(self, path, *parts, body=None, query=None):
        return await self.request("POST", path, *parts, body={} if body is None else body, query=query)

    # ------------------------------------------------------------ accounts

    async def register(self, name):
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        self._logged_in(await self.post("/client/v3/register", body=body))
        await self.sync()

    async def log_in(self, user_id):
        """A further device of somebody who is registered."""
        body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user_id}, "password": PASSWORD}
        self._logged_in(await self.post("/client/v3/login", body=body))
        await self.sync()

    def _logged_in(self, answer):
        self.id, self.device_id, self._token = answer["user_id"], answer["device_id"], answer["access_token"]

    # ------------------------------------------------------------ sync and waiting

    async def sync(self, timeout_ms=0):
        query = {"timeout": str(timeout_ms), "filter": SYNC_FILTER}
        if self._since:
            query["since"] = self._since
        answer = await self.get("/client/v3/sync", **query)
        self._since = answer["next_batch"]
        self._take(answer)

    def _take(self, answer):
        for membership, parts in (("join", ("state", "timeline")), ("leave", ("state", "timeline")), ("invite", ("invite_state",)), ("knock", ("knock_state",))):
            for room_id, told in answer.get("rooms", {}).get(membership, {}).items():
                room = self.rooms[room_id]
                room.membership = membership
                for event in (e for part in parts for e in told.get(part, {}).get("events", [])):
                    if "state_key" in event:
                        room.state[event["type"], event["state_key"]] = event
                room.timeline += told.get("timeline", {}).get("events", [])
                room.ephemeral += told.get("ephemeral", {}).get("events", [])
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        self.to_device += answer.get("to_device", {}).get("events", [])
        self.changed_devices.update(answer.get("device_lists", {}).get("changed", []))

    async def until(self, what, condition, limit_s=None):
        """Syncs until the condition gives something true, and returns that."""
        limit_s = limit_s or self._limit_s
        try:
            async with asyncio.timeout(limit_s):
                while not (found := condition()):
                    await self.sync(timeout_ms=5000)
                return found
        except TimeoutError:
            raise AssertionError(f"{self.id} waited {limit_s} s in vain for {what}") from None

    async def eventually(self, what, ask, limit_s=None):
        """Asks until the answer is true, and returns it; an error or a failed assertion counts as not yet."""
        limit_s, last = limit_s or self._limit_s, None
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    try:
                        if found := await ask():
                            return found
                    except (Refused, AssertionError) as error:
                        last = error
                    await self.sync(timeout_ms=POLL_MS)
        except TimeoutError:
            raise AssertionError(f"{self.id} waited {limit_s} s in vain for {what}" + (f"; at last: {last}" if last else "")) from None

    # ------------------------------------------------------------ rooms

    async def creates(self, version, **settings):
        """A room that anybody may join, if the settings say nothing else."""
        body = {"preset": "public_chat", "room_version": version} | settings
        return (await self.post("/client/v3/createRoom", body=body))["room_id"]

    async def joins(self, room, *via):
        """Joins by id or alias, and returns once /sync shows the room."""
        room_id = (await self.post("/client/v3/join/{}", room, query=[("via", server.name) for server in via]))["room_id"]
        await self.until(f"the joined room {room_id}", lambda: self.rooms[room_id].membership == "join")
        return room_id

    async def knocks(self, room, *via):
        return (await self.post("/client/v3/knock/{}", room, query=[("via", server.name) for server in via]))["room_id"]

    async def leaves(self, room):
        await self.post("/client/v3/rooms/{}/leave", room)

    async def invites(self, room, person):
        await self.post("/client/v3/rooms/{}/invite", room, body={"user_id": person.id})

    async def kicks(self, room, person):
        await self.post("/client/v3/rooms/{}/kick", room, body={"user_id": person.id, "reason": "too loud"})

    async def bans(self, room, person):
        await self.post("/client/v3/rooms/{}/ban", room, body={"user_id": person.id, "reason": "far too loud"})

    async def unbans(self, room, person):
        await self.post("/client/v3/rooms/{}/unban", room, body={"user_id": person.id})

    async def is_invited(self, room):
        await self.until(f"an invitation to {room}", lambda: self.rooms[room].membership == "invite")

    async def sees_member(self, room, person, membership):
        """Waits until the person has this membership, and returns their member event."""
        await self.until(f"{person.id} as {membership} in {room}", lambda: self.rooms[room].member(person.id) == membership)
        return self.rooms[room].state["m.room.member", person.id]

    async def finds_member(self, room, person, membership):
        """Waits until the room's state says so. Unlike /sync, Synapse tells here of invitations to its own users by others."""

        async def is_there():
            return (await self.get("/client/v3/rooms/{}/state/m.room.member/{}", room, person.id))["membership"] == membership

        await self.eventually(f"{person.id} as {membership} in {room}", is_there)

    async def has_left(self, room):
        await self.until(f"the end of membership in {room}", lambda: self.rooms[room].membership == "leave")

    # ------------------------------------------------------------ events

    async def sends(self, room, kind, content):
        return (await self.put("/client/v3/rooms/{}/send/{}/{}", room, kind, secrets.token_hex(8), body=content))["event_id"]

    async def says(self, room, body, **content):
        return await self.sends(room, "m.room.message", {"msgtype": "m.text", "body": body, **content})

    async def sets(self, room, kind, content, key=""):
        return (await self.put("/client/v3/rooms/{}/state/{}/{}", room, kind, key, body=content))["event_id"]

    async def redacts(self, room, event_id):
        return (await self.put("/client/v3/rooms/{}/redact/{}/{}", room, event_id, secrets.token_hex(8), body={"reason": "oops"}))["event_id"]

    async def sees(self, room, event_id):
        """Waits for an event in the room's timeline and returns it."""
        return await self.until(f"{event_id} in {room}", lambda: next((e for e in self.rooms[room].timeline if e["event_id"] == event_id), None))

    async def event(self, room, event_id):
        return await self.get("/client/v3/rooms/{}/event/{}", room, event_id)

    async def state(self, room):
        """The room's state as the server holds it: event ids by type and state key."""
        return {(e["type"], e["state_key"]): e["event_id"] for e in await self.get("/client/v3/rooms/{}/state", room)}

    async def history(self, room):
        """All events that /messages gives, the oldest first."""
        events, query = [], {"dir": "b", "limit": "100"}
        for _ in range(PAGES_MAX):
            page = await self.get("/client/v3/rooms/{}/messages", room, **query)
            events += page["chunk"]
            if "end" not in page:
                return events[::-1]
            query["from"] = page["end"]
        raise AssertionError(f"{self.id}: the history of {room} has no end after {PAGES_MAX} pages")

    async def texts(self, room):
        """What was said, the oldest first."""
        return [e["content"].get("body") for e in await self.history(room) if e["type"] == "m.room.message"]

    async def empowers(self, room, person, level):
        content = await self.get("/client/v3/rooms/{}/state/{}/", room, "m.room.power_levels")
        content.setdefault("users", {})[person.id] = level
        event_id = await self.sets(room, "m.room.power_levels", content)
        await person.sees(room, event_id)


async def agree_on_state(room, one, other):
    """Waits until the servers of two members hold the same state, and returns it."""

    async def same():
        ours, theirs = await one.state(room), await other.state(room)
        differing = {key: (ours.get(key), theirs.get(key)) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        assert not differing, f"{one.server.name} and {other.server.name} hold different state: {differing}"
        return ours

    return await one.eventually(f"the same state of {room} on both servers", same)


async def refused(doing, *errcodes):
    """The request must be refused with one of these codes."""
    try:
        await doing
    except Refused as refusal:
        assert refusal.errcode in errcodes, f"expected {' or '.join(errcodes)}, got {refusal}"
        return refusal
    raise AssertionError(f"expected {' or '.join(errcodes)}, but the server accepted")
