"""Servers of others to compare with: what one would write first in FastAPI and in Fastify, over the same Redis.

Each is installed into a folder of its own, with pip or npm, when it is first wanted.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import redis

from scripts.bench.product import get
from scripts.stack.server import StackError

_HERE: Final = Path(__file__).parent
_INSTALL_TIMEOUT_S: Final = 300
# None of the product's keys; our API uses database 0.
DATABASE: Final = 1


def store_pages(redis_url: str, pages: Mapping[int | None, bytes]) -> None:
    """Put the bodies by limit (None: all) where the peers look for them."""
    with redis.Redis.from_url(redis_url) as client:
        for limit, body in pages.items():
            client.set("todos:all" if limit is None else f"todos:limit:{limit}", body)


class Peer(Protocol):
    name: str

    @property
    def version(self) -> str:
        """Name and version of what is compared with."""

    def install(self, folder: Path) -> None:
        """Install it into ``folder`` unless it is there. Blocks up to minutes. Raises StackError with the reason."""

    def server(self, folder: Path, port: int, redis_url: str, processes: int) -> "PeerServer": ...


class PeerServer:
    """A peer as a LocalServer, ready when it answers ``ready_target`` with 200."""

    stop_signal = signal.SIGTERM
    stop_timeout_s = 10.0

    def __init__(
        self,
        name: str,
        port: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        ready_target: str = "/todos?limit=100",
    ) -> None:
        self.name = name
        self.port = port
        self._ready_target = ready_target
        self._command = list(command)
        self._environment = dict(environment)

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        return self._command

    def environment(self) -> dict[str, str]:
        return self._environment

    def is_ready(self) -> bool:
        try:
            return get(self.port, self._ready_target, timeout_s=1.0)[0] == 200
        except OSError:
            return False


class FastApi:
    name = "FastAPI"

    @property
    def version(self) -> str:
        lines = (_HERE / "fastapi" / "requirements.txt").read_text().split()
        return ", ".join(line.replace("==", " ") for line in lines if line.startswith(("fastapi", "uvicorn")))

    def install(self, folder: Path) -> None:
        _install_python(folder, _HERE / "fastapi" / "requirements.txt")

    def server(self, folder: Path, port: int, redis_url: str, processes: int) -> PeerServer:
        command = _uvicorn(folder, "fastapi", port, processes)
        return PeerServer(self.name, port, command, {"REDIS_URL": redis_url})


class FastApiWrites:
    """The peer of ``todo bench writes``: FastAPI that appends through aiokafka and waits for the acknowledgement."""

    name = "FastAPI + aiokafka"

    @property
    def version(self) -> str:
        lines = (_HERE / "fastapi_writes" / "requirements.txt").read_text().split()
        return ", ".join(
            line.replace("==", " ") for line in lines if line.startswith(("aiokafka", "fastapi", "uvicorn"))
        )

    def install(self, folder: Path) -> None:
        """See ``Peer.install``."""
        _install_python(folder, _HERE / "fastapi_writes" / "requirements.txt")

    def server(self, folder: Path, port: int, environment: Mapping[str, str], processes: int) -> PeerServer:
        """``environment`` holds KAFKA_BROKERS, KAFKA_TODO_TOPIC and JWT_SECRET."""
        command = _uvicorn(folder, "fastapi_writes", port, processes)
        return PeerServer("fastapi-writes", port, command, environment, "/health")


def _install_python(folder: Path, requirements: Path) -> None:
    with _Installation(folder, requirements.read_bytes()) as installation:
        if installation.is_needed:
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(folder / "bin" / "pip"), "install", "-q", "-r", str(requirements)])


def _uvicorn(folder: Path, peer: str, port: int, processes: int) -> list[str]:
    command = [str((folder / "bin" / "python").absolute()), "-m", "uvicorn", "peer:app"]
    command += ["--app-dir", str(_HERE / peer), "--port", str(port), "--workers", str(processes)]
    return [*command, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]


class Fastify:
    name = "Fastify"

    @property
    def version(self) -> str:
        package = json.loads((_HERE / "fastify" / "package.json").read_text())
        return f"fastify {package['dependencies']['fastify']}"

    def install(self, folder: Path) -> None:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise StackError("node and npm are not installed")
        package = _HERE / "fastify" / "package.json"
        with _Installation(folder, package.read_bytes()) as installation:
            if installation.is_needed:
                shutil.copy(package, folder)
                _run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund"])
        # Node looks for packages beside the program.
        shutil.copy(_HERE / "fastify" / "peer.mjs", folder)

    def server(self, folder: Path, port: int, redis_url: str, processes: int) -> PeerServer:
        environment = {"PORT": str(port), "WORKERS": str(processes), "REDIS_URL": redis_url}
        return PeerServer(self.name, port, ["node", str((folder / "peer.mjs").absolute())], environment)


PEERS: Final[tuple[Peer, ...]] = (FastApi(), Fastify())


class _Installation:
    """Remembers in ``folder`` what was installed there; an interrupted installation is not remembered."""

    def __init__(self, folder: Path, wanted: bytes) -> None:
        self._mark = folder / "installed"
        self._wanted = wanted
        self.is_needed = not self._mark.exists() or self._mark.read_bytes() != wanted
        if self.is_needed:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def __enter__(self) -> "_Installation":
        return self

    def __exit__(self, kind: object, _ex: object, _traceback: object) -> None:
        if kind is None:
            self._mark.write_bytes(self._wanted)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as ex:
        raise StackError(f"{command[0]}: {ex}") from ex
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise StackError(f"{' '.join(command[:3])} failed: {lines[-1] if lines else done.returncode}")
