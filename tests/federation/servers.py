"""Homeservers as processes: a Hearth or a Synapse with one interface, to be started, stopped, killed and called by others."""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys

import aiohttp

from line import Line
from ports import reserve_port

START_LIMIT_S = 60
STOP_LIMIT_S = 20
LOG_LINES = 40
LOG_LINE_MAX = 500


class NotRunning(Exception):
    """A server ended, or does not answer in time."""


class Server:
    """A homeserver with a folder of its own. `name` is what follows the colon in its users' ids."""

    kind = ""

    def __init__(self, folder, authority, host):
        self.folder, self.authority, self.host = folder, authority, host
        self.folder.mkdir(parents=True)
        self.log = self.folder / f"{self.kind}.log"
        self.client_port, self.federation_port = reserve_port(), reserve_port()
        self.base_url = f"http://127.0.0.1:{self.client_port}"
        self.line = Line(self.federation_port)
        self.name = None
        self.process = None

    async def prepare(self):
        """Gives the server its name and writes its configuration."""
        self.name = f"{self.host}:{await self.line.start()}"
        self.configure(*self.authority.certify(self.folder))

    def configure(self, certificate, key):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    async def start(self):
        """Starts the process and waits until it serves clients."""
        with open(self.log, "a") as out:
            self.process = subprocess.Popen(
                [str(c) for c in self.command()], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            async with asyncio.timeout(START_LIMIT_S), aiohttp.ClientSession() as session:
                while not await self._answers(session):
                    if not self.runs():
                        raise NotRunning(f"{self.name} ended; its log:\n{self.recent_log()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NotRunning(f"{self.name} does not answer after {START_LIMIT_S} s; its log:\n{self.recent_log()}") from None

    async def _answers(self, session):
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{self.base_url}/_matrix/client/versions", timeout=aiohttp.ClientTimeout(5)) as answer:
                return answer.status == 200
        return False

    def runs(self):
        return self.process is not None and self.process.poll() is None

    async def stop(self):
        """Asks the process to end; True where it did so in time and without complaint."""
        if self.process is None:
            return True
        if self.runs():
            self.process.terminate()
        status = await self._ended(STOP_LIMIT_S)
        if status is None:
            await self.kill()
        return status == 0

    async def kill(self):
        """Ends the process as `kill -9` does: it has no time for anything."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self._ended(STOP_LIMIT_S)

    async def _ended(self, limit_s):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.process.poll() is None:
                    await asyncio.sleep(0.02)
        return self.process.poll()

    def log_size(self):
        return self.log.stat().st_size if self.log.exists() else 0

    def recent_log(self, since=0, about=()):
        """The last lines since a size of the log: those with one of the words, and complaints."""
        if not self.log.exists():
            return ""
        with open(self.log, errors="replace") as log:
            log.seek(since)
            lines = log.read().splitlines()
        lines = [line for line in lines if "/_matrix/client/v3/sync" not in line]
        told = [line for line in lines if not about or any(w in line for w in about) or any(w in line for w in ("WARN", "ERROR", "panicked"))]
        return "\n".join(line[:LOG_LINE_MAX] for line in told[-LOG_LINES:])

    def complaints(self):
        """What the log says that must never happen."""
        return []


class Hearth(Server):
    kind = "hearth"

    def __init__(self, folder, authority, host, binary):
        super().__init__(folder, authority, host)
        self.binary = binary

    def configure(self, certificate, key):
        (self.folder / "hearth.toml").write_text(f"""
server_name = "{self.name}"
data = "{self.folder / 'data'}"
log = {{ filter = "info,hearth_federation=debug" }}
registration = {{ mode = "open" }}

[federation]
enabled = true
ca_certificates = "{self.authority.path}"
allowed_networks = ["127.0.0.0/8"]
trusted_key_servers = []
send_presence = true

[[http.listeners]]
kind = "client"
address = "127.0.0.1:{self.client_port}"

[[http.listeners]]
kind = "federation"
address = "127.0.0.1:{self.federation_port}"
tls = {{ certificate = "{certificate}", key = "{key}" }}

[http.limits]
enabled = false
""")

    def command(self):
        return [self.binary, "serve", "--config", self.folder / "hearth.toml"]

    def complaints(self):
        return [line for line in self.log.read_text(errors="replace").splitlines() if "panicked at" in line]


class Synapse(Server):
    kind = "synapse"

    def configure(self, certificate, key):
        unlimited = {"per_second": 1_000_000, "burst_count": 1_000_000}
        resources = lambda *names: [{"names": list(names), "compress": False}]
        listener = {"type": "http", "bind_addresses": ["127.0.0.1"]}
        settings = {
            "server_name": self.name,
            "listeners": [
                listener | {"port": self.client_port, "resources": resources("client")},
                listener | {"port": self.federation_port, "tls": True, "resources": resources("federation")},
            ],
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(self.authority.path)],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
            # Who was away is called again soon: its defaults wait for ten minutes.
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_retry_multiplier": 1,
                "destination_max_retry_interval": "2s",
                "client_timeout": "20s",
                "max_long_retry_delay": "2s",
                "max_short_retry_delay": "1s",
            },
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "synapse.db")}},
            "media_store_path": str(self.folder / "media"),
            "signing_key_path": str(self.folder / "signing.key"),
            "log_config": str(self.folder / "log.yaml"),
            "pid_file": str(self.folder / "synapse.pid"),
            "macaroon_secret_key": "a secret of a test",
            "form_secret": "another secret of a test",
            "report_stats": False,
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "bcrypt_rounds": 4,
            "presence": {"enabled": True},
            "allow_public_rooms_over_federation": True,
            "allow_device_name_lookup_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "dynamic_thumbnails": True,
            "rc_federation": {"window_size": 1000, "sleep_limit": 100_000, "sleep_delay": 1, "reject_limit": 100_000, "concurrent": 100},
            "rc_login": {name: unlimited for name in ("address", "account", "failed_attempts")},
            "rc_joins": {"local": unlimited, "remote": unlimited},
            "rc_invites": {name: unlimited for name in ("per_room", "per_user", "per_issuer")},
            "rc_presence": {"per_user": unlimited},
            "remote_media_download_per_second": "1G",
            "remote_media_download_burst_count": "1G",
        }
        single = ("message", "registration", "joins_per_room", "admin_redaction", "room_creation", "key_requests", "media_create", "reports")
        settings |= {f"rc_{name}": unlimited for name in (*single, "user_directory", "profile", "delayed_event_mgmt", "third_party_invite")}
        logging = {
            "version": 1,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}},
            "root": {"level": "INFO", "handlers": ["out"]},
            "loggers": {name: {"level": "WARNING"} for name in ("synapse.storage", "synapse.util", "synapse.metrics", "synapse.handlers.profile")},
            "disable_existing_loggers": False,
        }
        # JSON is YAML too.
        (self.folder / "synapse.yaml").write_text(json.dumps(settings, indent=1))
        (self.folder / "log.yaml").write_text(json.dumps(logging, indent=1))
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        (self.folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")

    def command(self):
        return [sys.executable, "-m", "synapse.app.homeserver", "--config-path", self.folder / "synapse.yaml"]
