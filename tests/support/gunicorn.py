"""A real gunicorn on a free port, for tests: started, watched, signalled, stopped, its output kept."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.stack.server import free_port, wait_until


class GunicornProcess:
    """One gunicorn master and its workers in a session of their own. Use it as a context manager.

    ``arguments`` is what follows ``gunicorn --bind ...`` on the command line, the application included.
    ``env`` is the whole environment; None means ours. The start folder is ``cwd``, and the output of all
    processes goes to ``<cwd>/gunicorn.out``, readable at any time as ``output``.
    """

    host = "127.0.0.1"

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._arguments = list(arguments)
        self._cwd = cwd
        self._env = env
        self._output_path = cwd / "gunicorn.out"
        self._process: subprocess.Popen[bytes] | None = None
        self._output_begins = 0
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def admin_port(self) -> int:
        """The second port, as the environment says."""
        return int((os.environ if self._env is None else self._env)["ADMIN_PORT"])

    @property
    def output(self) -> str:
        return self._output_path.read_text(errors="replace")

    @property
    def master_pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the master lives."""
        return self._process is not None and self._process.poll() is None

    def worker_pids(self) -> list[int]:
        """Return the living children of the master, the oldest first."""
        try:
            children = Path(f"/proc/{self.master_pid}/task/{self.master_pid}/children").read_text()
        except FileNotFoundError:
            return []
        return sorted(pid for pid in map(int, children.split()) if is_alive(pid))

    def start(self, workers: int = 1, timeout_s: float = 30.0) -> Self:
        """Start and wait until ``workers`` processes have said that they are about to serve.

        Started again it listens where it did before. Raises AssertionError with the output when the master ends
        first, TimeoutError after ``timeout_s``.
        """
        self.launch(workers)
        try:
            wait_until(lambda: self._has_booted(workers), timeout_s, "gunicorn answers")
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self, workers: int = 1) -> None:
        """Start it and return at once."""
        self.port = self.port or free_port(self.host)
        self._output_begins = self._output_path.stat().st_size if self._output_path.exists() else 0
        command = [
            *[sys.executable, "-m", "gunicorn", "--bind", f"{self.host}:{self.port}"],
            *["--workers", str(workers), "--no-control-socket", *self._arguments],
        ]
        env = dict(os.environ if self._env is None else self._env)
        with self._output_path.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._cwd,
                env=env | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _has_booted(self, workers: int) -> bool:
        assert self.is_running, f"gunicorn ended:\n{self.output}"
        return self.boots() >= workers and self.answers()

    def boots(self) -> int:
        """Return how many processes have begun since the start."""
        output = self._output_path.read_bytes()[self._output_begins :]
        return output.count(b"Booting worker with pid")

    def answers(self) -> bool:
        """Say whether a connection made now gets any answer within two seconds."""
        try:
            with socket.create_connection((self.host, self.port), 2) as client:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return client.recv(1) != b""
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master alone."""
        os.kill(self.master_pid, number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the master to end and return its exit code. Raises TimeoutError with the output."""
        assert self._process is not None, "not started"
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"gunicorn runs after {timeout_s} s:\n{self.output}") from None

    def stop(self, timeout_s: float = 40.0) -> int:
        """Stop it with SIGTERM, as an orchestrator does, and return its exit code."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL the master and every process it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, ex: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


def is_alive(pid: int) -> bool:
    """Say whether the process exists and has not ended: its first thread may be a zombie while others still have its
    sockets open."""
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list((process / "task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False
