"""Freezing, waking and killing a process with all that it started, for tests and benchmarks.

Its process group would not do: each process of PostgreSQL has one of its own. Nor would a signal alone: a process acts
on it when it is next given a processor, and may serve until then.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import psutil

from scripts.stack.server import wait_until

_STOPPED_S: Final = 30.0
_DEAD: Final = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def freeze(pid: int) -> None:
    """SIGSTOP the process and everything below it, and wait until none of them runs.

    Raises TimeoutError after 30 s.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        _suspend([process])
        # From here on it starts no more of them.
        _suspend(process.children(recursive=True))


def resume(pid: int) -> None:
    """SIGCONT the process and everything below it."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def kill(pid: int) -> None:
    """SIGKILL the process and everything below it, and wait until none of them runs. Raises TimeoutError after 30 s."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        killed = [process, *process.children(recursive=True)]
        for each in killed:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        wait_until(lambda: all(_is(each, _DEAD) for each in killed), _STOPPED_S, "killed")


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Keep these processes frozen during the body of ``with``."""
    try:
        for pid in pids:
            freeze(pid)
        yield
    finally:
        for pid in pids:
            resume(pid)


def _suspend(processes: Sequence[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.suspend()
    still = _DEAD | {psutil.STATUS_STOPPED}
    wait_until(lambda: all(_is(each, still) for each in processes), _STOPPED_S, "frozen")


def _is(process: psutil.Process, states: set[str]) -> bool:
    """Say whether it is in one of these states, or gone."""
    try:
        return process.status() in states
    except psutil.NoSuchProcess:
        return True
