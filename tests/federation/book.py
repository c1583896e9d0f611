"""The book of stories: what a story is, in which room versions it is told, and the stage on which it is acted out."""

import dataclasses
import re
import secrets
import ssl
from collections.abc import Callable

from people import Person

NEWEST = "12"
EVERY = ("1", "6", "9", "10", "11", "12")
WITH_KNOCKING = ("9", "10", "11", "12")
WITH_RESTRICTED = ("9", "10", "11", "12")
WITH_KNOCK_RESTRICTED = ("10", "11", "12")


@dataclasses.dataclass
class Story:
    name: str
    tell: Callable
    versions: tuple | None  # None: the room version does not matter
    alone: bool


STORIES = []


def story(versions=None, alone=False):
    """Puts a function into the book. `alone`: it stops servers or parts them, so no other story runs beside it."""

    def enter(tell):
        name = re.sub("_", " ", tell.__name__)
        STORIES.append(Story(name, tell, versions, alone))
        return tell

    return enter


class Stage:
    """Two servers and one story's people: Alice lives on server A, Bob on server B."""

    def __init__(self, a, b, version, session, limit_s):
        self.a, self.b, self.version, self._session, self._limit_s = a, b, version, session, limit_s
        self.people = []

    async def person(self, server, name):
        """Somebody newly registered."""
        person = Person(server, self._session, self._limit_s)
        await person.register(f"{name}-{secrets.token_hex(4)}")
        self.people.append(person)
        return person

    async def alice(self):
        return await self.person(self.a, "alice")

    async def bob(self):
        return await self.person(self.b, "bob")

    async def further_device(self, person):
        device = Person(person.server, self._session, self._limit_s)
        await device.log_in(person.id)
        return device

    async def asks_server(self, server, path, **query):
        """Status and JSON of a request to the port where other servers call, without a signature."""
        believes = ssl.create_default_context(cafile=server.authority.path)
        async with self._session.get(f"https://{server.name}{path}", params=query, ssl=believes) as answer:
            return answer.status, await answer.json(content_type=None)

    async def shared_room(self, **settings):
        """Alice and Bob in a public room of Alice's."""
        alice, bob = await self.alice(), await self.bob()
        room = await alice.creates(self.version, **settings)
        await bob.joins(room, self.a)
        await alice.sees_member(room, bob, "join")
        return alice, bob, room
