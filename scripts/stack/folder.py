"""The data folder of the embedded stack: who holds it, which ports it keeps, how its servers are reached."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from scripts.stack.secret_file import write_private
from scripts.stack.server import StackError, free_port, port_is_taken, wait_until

DEFAULT_FOLDER: Final = Path(".todo")
# Longer than an orderly stop may take.
_LEFTOVER_TIMEOUT_S: Final = 30.0


@contextmanager
def held(folder: Path, url: str, announce: Callable[[str], None]) -> Iterator[int]:
    """Hold ``folder`` for us alone and give the descriptor that holds it, for children to inherit.

    Makes the folder. Raises StackError naming the process and ``url`` of a holder that is alive; a stack that is
    still being stopped after its holder was killed is waited for, up to 30 s.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as ex:
        raise StackError(f"{folder} cannot be used as data folder: {ex.strerror}.") from ex
    try:
        if not _lock(descriptor):
            _refuse_if_alive(folder, _holder(descriptor))
            announce("Waiting for a stack that was killed here to finish stopping")
            try:
                wait_until(lambda: _lock(descriptor), _LEFTOVER_TIMEOUT_S, f"{folder} free")
            except TimeoutError as ex:
                raise StackError(f"{folder} is still held by programs of a stack that was killed.") from ex
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as ex:
        if ex.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _refuse_if_alive(folder: Path, holder: dict[str, Any]) -> None:
    pid = holder.get("pid", 0)
    try:
        if pid:
            os.kill(pid, 0)
    except ProcessLookupError:
        return
    except PermissionError:
        pass
    raise StackError(
        f"`todo up` is already running on {folder} (process {pid or 'unknown'}, {holder.get('url', 'starting')}); "
        "stop it first, or take another `--data-dir` and `--port`."
    )


def kept_ports(folder: Path, *names: str) -> dict[str, int]:
    """Return a free port for each name, the same as last time where it is still free. Remembered in ``folder``."""
    file = folder / "ports.json"
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    ports: dict[str, int] = {}
    for name in names:
        port = known.get(name)
        while port is None or port in ports.values() or port_is_taken(port):
            port = free_port()
        ports[name] = port
    file.write_text(json.dumps(known | ports))
    return ports


def publish_environment(folder: Path, environment: dict[str, str]) -> None:
    """Write down how the stack is reached, secrets included, for the tools of its owner."""
    draft = folder / "environment.json.new"
    write_private(draft, json.dumps(environment))
    draft.rename(folder / "environment.json")


def published_environment(folder: Path) -> dict[str, str]:
    """Return how the stack that runs or last ran in ``folder`` is reached; nothing when none ever did."""
    try:
        environment = json.loads((folder / "environment.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in environment.items()}
