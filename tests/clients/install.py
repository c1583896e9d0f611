"""Puts what the client tests need below the user's cache folder; does nothing where it is there already.

Each thing lives in a folder named after what it was made from, and counts only once its `ready` file is written, so an
interrupted installation is made again and a changed pin gets a new folder.
"""

import fcntl
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "hearth" / "clients"
NODE_VERSION = "24.21.0"
OLDEST_NODE = 22  # matrix-js-sdk 43 says so


def python(pins=HERE / "requirements.txt"):
    """The interpreter of a virtual environment with what the file pins: matrix-nio and the needs of conform.py by default."""

    def make(folder):
        _run(sys.executable, "-m", "venv", folder)
        _run(folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins)

    return _once(f"python-{_digest(pins.read_bytes(), sys.version.encode())}", make) / "bin" / "python"


def node():
    """A Node.js that is new enough: the system's, else one from an npm package."""
    system = shutil.which("node")
    if system and int(subprocess.check_output([system, "--version"], text=True)[1:].split(".")[0]) >= OLDEST_NODE:
        return pathlib.Path(system)
    package = "node-linux-" + {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    folder = _once(f"node-{NODE_VERSION}", lambda f: _run("npm", "install", "--silent", "--prefix", f, f"{package}@{NODE_VERSION}"))
    return folder / "node_modules" / package / "bin" / "node"


def javascript(node_binary):
    """Installs the pinned npm packages and links js/node_modules to them."""
    sources = [HERE / "js" / name for name in ("package.json", "package-lock.json", ".npmrc")]

    def make(folder):
        folder.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, folder)
        env = os.environ | {"PATH": f"{node_binary.parent}:{os.environ['PATH']}"}
        _run("npm", "ci", "--silent", "--ignore-scripts", cwd=folder, env=env)

    modules = _once(f"js-{_digest(*(s.read_bytes() for s in sources))}", make) / "node_modules"
    link = HERE / "js" / "node_modules"
    if link.is_symlink() and link.readlink() != modules:
        link.unlink()
    if not link.exists():
        link.symlink_to(modules)


def chromium():
    """The path of a Chromium, installed from Debian's packages where that is possible; None where it is not."""
    named = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not named and os.geteuid() == 0 and shutil.which("apt-get"):
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        _run("apt-get", "update", "-q", env=env, stdout=subprocess.DEVNULL)
        _run("apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium", env=env, stdout=subprocess.DEVNULL)
        named = shutil.which("chromium")
    return named


def _once(name, make):
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / name
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at the same time share one installation
        if not (folder / "ready").exists():
            print(f"installing {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / "ready").touch()
    return folder


def _digest(*parts):
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _run(*command, **options):
    subprocess.run([str(c) for c in command], check=True, **options)
