"""Runs stories on pairs of servers, several pairs and stories at once, and tells how they came out. Started by `run`."""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

import aiohttp

from authority import Authority
from book import EVERY, NEWEST, STORIES, Stage
from people import LIMIT_S
from servers import Hearth, NotRunning, Synapse
from stories import directory, failure, live, membership, messages  # noqa: F401 (they fill the book)

HERE = pathlib.Path(__file__).resolve().parent
PAIRS = ("hearth-synapse", "synapse-hearth", "hearth-hearth", "synapse-synapse")
PROVING_HEARTH = PAIRS[:3]
STORY_LIMIT_S = 300
# How long a person waits in a story that is expected to fail.
PENDING_WAIT_S = 6
# A is called by a name, B by an address: both kinds of server names are spoken.
HOSTS = {"a": "localhost", "b": "127.0.0.1"}


@dataclasses.dataclass
class Outcome:
    pair: str
    version: str
    story: str
    outcome: str  # ok, FAIL or skip
    seconds: float
    told: str = ""

    def line(self):
        told = f": {self.told}" if self.told else ""
        return f"{self.outcome} {self.pair} {self.version}: {self.story} ({self.seconds:.1f} s){told}"


class Pending:
    """Stories that Hearth cannot act out yet, with the reason: they count as skipped, and fail once they succeed."""

    def __init__(self, path):
        self.entries = json.loads(path.read_text())

    def reason(self, pair, version, story):
        def holds(entry):
            return entry["story"] == story and pair in entry.get("pairs", [pair]) and version in entry.get("versions", [version])

        return next((entry["reason"] for entry in self.entries if holds(entry)), None)

    def judged(self, outcome):
        reason = self.reason(outcome.pair, outcome.version, outcome.story)
        if reason is None:
            return outcome
        if outcome.outcome == "FAIL":
            return dataclasses.replace(outcome, outcome="skip", told=reason)
        return dataclasses.replace(outcome, outcome="FAIL", told="it succeeds now, so take it out of pending_stories.json")


class Pair:
    """Two servers, and all stories on them."""

    def __init__(self, name, work, args, pending):
        self.name, self.args, self.pending = name, args, pending
        self.folder = work / name
        self.folder.mkdir(parents=True)
        authority = Authority(self.folder)
        kinds = name.split("-")
        self.a, self.b = (self._server(kind, role, authority) for kind, role in zip(kinds, "ab"))
        self.outcomes = []

    def _server(self, kind, role, authority):
        folder = self.folder / f"{role}-{kind}"
        return Hearth(folder, authority, HOSTS[role], self.args.hearth) if kind == "hearth" else Synapse(folder, authority, HOSTS[role])

    async def run(self, plan):
        try:
            for server in (self.a, self.b):
                await server.prepare()
            await asyncio.gather(self.a.start(), self.b.start())
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await self._tell_all(plan, session)
            await self._judge_ends()
        except NotRunning as error:
            self._note(Outcome(self.name, "-", "the servers run", "FAIL", 0.0, str(error)))
        finally:
            for server in (self.a, self.b):
                await server.stop()
                await server.line.stop()

    async def _tell_all(self, plan, session):
        room_for = asyncio.Semaphore(self.args.at_once)

        async def tell(story, version):
            async with room_for:
                await self._tell(story, version, session)

        await asyncio.gather(*(tell(story, version) for story, version in plan if not story.alone))
        for story, version in plan:
            if story.alone:
                await self._tell(story, version, session)

    async def _tell(self, story, version, session):
        pending = self.pending.reason(self.name, version, story.name)
        began, stage = time.monotonic(), Stage(self.a, self.b, version, session, PENDING_WAIT_S if pending else LIMIT_S)
        logs = {server: server.log_size() for server in (self.a, self.b)}
        failure = None
        try:
            async with asyncio.timeout(STORY_LIMIT_S):
                await story.tell(stage)
        except Exception:  # whatever a story ends with is its outcome
            failure = traceback.format_exc(limit=-4)
        outcome = Outcome(self.name, version, story.name, "FAIL" if failure else "ok", time.monotonic() - began)
        self._note(self.pending.judged(outcome), failure and self._report(failure, stage, logs))
        await self._revive()

    def _report(self, failure, stage, logs):
        words = [p.id for p in stage.people] + [room for p in stage.people for room in p.rooms]
        parts = [failure]
        for server, since in logs.items():
            parts.append(f"--- {server.kind} {server.name}, {server.log}:\n{server.recent_log(since, words)}")
        return "\n".join(parts)

    async def _revive(self):
        """A server that a story left stopped, or that ended by itself, must not fail the others."""
        for server in (self.a, self.b):
            server.line.mend()
            if not server.runs():
                await server.start()

    async def _judge_ends(self):
        for server in (self.a, self.b):
            ended_well = await server.stop()
            complaints = server.complaints()
            told = "" if ended_well else f"it did not end well when asked to; its log:\n{server.recent_log()}"
            if complaints:
                told = f"{len(complaints)} panics, the first: {complaints[0]}"
            self._note(Outcome(self.name, "-", f"{server.kind} ends well", "FAIL" if told else "ok", 0.0, told))

    def _note(self, outcome, report=None):
        self.outcomes.append(outcome)
        print(outcome.line(), flush=True)
        if report and outcome.outcome == "FAIL":
            print(report, flush=True)


def plan_of(args):
    """Which stories are told in which room versions. What does not depend on the version is told once, in the newest."""
    told = []
    for story in STORIES:
        versions = args.version or (NEWEST,) if story.versions is None else [v for v in story.versions if not args.version or v in args.version]
        told += [(story, version) for version in versions if args.only is None or args.only in story.name]
    return told


def arguments():
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    parser.add_argument("--hearth", type=lambda p: pathlib.Path(p).resolve(), help="the binary of Hearth")
    parser.add_argument("--pair", action="append", choices=PAIRS, help="only this pair, server A first (may be given again)")
    parser.add_argument("--only", nargs="+", help="only the stories whose name contains these words")
    parser.add_argument("--version", action="append", choices=EVERY, help="only this room version (may be given again)")
    parser.add_argument("--at-once", type=int, default=8, help="how many stories a pair tells at one time (default: 8)")
    parser.add_argument("--work", type=pathlib.Path, help="where the servers' folders go (default: a temporary folder, kept on failure)")
    parser.add_argument("--json", type=pathlib.Path, help="write the outcomes into this file")
    args = parser.parse_args()
    args.only = " ".join(args.only).replace("_", " ") if args.only else None
    args.pair = args.pair or PROVING_HEARTH
    if not args.hearth and any("hearth" in pair for pair in args.pair):
        parser.error("--hearth is needed for these pairs")
    return args


async def main():
    args = arguments()
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    work = (args.work or pathlib.Path(tempfile.mkdtemp(prefix="hearth-federation-"))).resolve()
    plan, pending = plan_of(args), Pending(HERE / "pending_stories.json")
    pairs = [Pair(name, work, args, pending) for name in args.pair]
    running = asyncio.gather(*(pair.run(plan) for pair in pairs))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    began = time.monotonic()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    outcomes = list(itertools.chain.from_iterable(pair.outcomes for pair in pairs))
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(o) for o in outcomes], indent=1))
    return closing(outcomes, work, args, time.monotonic() - began)


def closing(outcomes, work, args, seconds):
    counts = collections.Counter(o.outcome for o in outcomes)
    failed = counts["FAIL"] > 0 or counts["ok"] == 0
    if failed or args.work:
        print(f"the servers' folders are in {work}")
    else:
        shutil.rmtree(work)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped in {seconds:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
