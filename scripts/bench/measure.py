"""What every benchmark needs: servers that end with it, the CPU time of processes, and the name of the machine."""

import os
import platform
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from scripts.stack.server import LocalServer, ServerProcess, StackError


class Servers:
    """Servers in one folder, stopped in the opposite order when ``servers`` is left."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.processes: dict[str, ServerProcess] = {}
        """Those started, by name, for who wants to break one."""
        self._stack = stack

    def start(self, server: LocalServer) -> int:
        """Start it, wait until it is ready, and return its process id. Its output goes to ``<folder>/<name>.out``.

        Raises StackError when it ends instead, or is not ready within a minute.
        """
        self.processes[server.name] = process = ServerProcess(server, self.folder)
        # Before the start: one that never becomes ready is stopped as well.
        self._stack.callback(process.stop)
        try:
            process.start()
        except TimeoutError as ex:
            raise StackError(f"{server.name} did not become ready: {ex}.") from ex
        return process.pid


@contextmanager
def servers() -> Iterator[Servers]:
    """Yield a temporary folder for servers; stop them and remove it in the end, also on SIGTERM and SIGHUP.

    Inside, those two raise KeyboardInterrupt, as Ctrl-C does. Only the main thread may call this.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        with TemporaryDirectory(prefix="todo-bench-") as name, ExitStack() as stack:
            folder = Path(name)
            # PostgreSQL and nginx leave root's identity and must still reach their files.
            folder.chmod(0o755)
            yield Servers(folder, stack)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def cpu_s(process: psutil.Process) -> float:
    """Return the user and system time that the process and its descendants have taken so far."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # A child that ended is in its parent's children times.
        total += times.user + times.system + times.children_user + times.children_system
    return total


def machine() -> str:
    """Return the number of cores and what the kernel calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = named[0] if named else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {model}"
