"""Waiting for what another thread or process brings about, while this process serves others where it can.

A sync worker has one thread. Where that thread can leave one request for another (``meinheld_worker``), whoever waits
here makes room; elsewhere, and outside of requests, the calling thread waits.
"""

import heapq
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import Final, NamedTuple, Self

_READ_BYTES: Final = 64
# How late a deadline may be noticed, so that many that come close together cost one look.
_LATE_S: Final = 0.02


class EventLoop(NamedTuple):
    """What can serve others meanwhile. ``suspend`` gets a descriptor and returns when that has something to read."""

    suspend: Callable[[int], object]
    can_suspend: Callable[[], bool]
    """Whether the caller is somebody whom the loop could leave for another."""
    soon: Callable[[Callable[[], object]], object]
    """Calls something when everybody has had their turn who is ready by now. For whom ``can_suspend`` is true."""


_loops: Final[list[EventLoop]] = []


def use(loop: EventLoop) -> None:
    """Wait with ``loop`` in this process from now on."""
    _loops[:] = [loop]


def can_suspend() -> bool:
    """Return whether others would be served while the caller waits here."""
    return bool(_loops) and _loops[0].can_suspend()


def soon(call: Callable[[], object]) -> None:
    """Call something after the others who are ready now; not waiting itself. For whom ``can_suspend`` is true."""
    _loops[0].soon(call)


class Wait:
    """One thread waits for another. A context manager, in the thread that waits.

    It is a pipe out of a pool, because a descriptor is what an event loop can watch.
    """

    __slots__ = ("_ends", "is_over")

    def __enter__(self) -> Self:
        self.is_over = False
        # Pipes are never closed: who comes too late may still write to one, and then only wakes the next user for
        # nothing.
        try:
            self._ends = _idle_pipes.pop()
        except IndexError:
            self._ends = os.pipe()
            os.set_blocking(self._ends[0], False)
            os.set_blocking(self._ends[1], False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, ex: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _idle_pipes.append(self._ends)

    def end(self, *_: object) -> None:
        """End the wait. From any thread, early, late or more than once; arguments of callbacks are ignored."""
        self.is_over = True
        self.wake()

    def until_over(self, deadline: float) -> bool:
        """Wait until ``end`` was called; return False at ``deadline`` (``time.monotonic``)."""
        while not self.is_over:
            if time.monotonic() >= deadline:
                return False
            if can_suspend():
                _deadlines.wake(self, deadline)
                _loops[0].suspend(self._ends[0])
            else:
                poll = select.poll()
                poll.register(self._ends[0], select.POLLIN)
                poll.poll(max(deadline - time.monotonic(), 0.0) * 1000)
            with suppress(BlockingIOError):
                os.read(self._ends[0], _READ_BYTES)
        return True

    def wake(self) -> None:
        """Let the waiting thread look again."""
        with suppress(BlockingIOError):
            os.write(self._ends[1], b"\0")


class _Deadlines:
    """One thread that wakes those whose time is over; it sleeps until then, however many come and go meanwhile."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: list[tuple[float, int, Wait]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def wake(self, wait: Wait, deadline: float) -> None:
        """Wake this one at ``deadline``; for nothing, if it is over by then."""
        with self._changed:
            heapq.heappush(self._waits, (deadline, next(self._numbers), wait))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif deadline + _LATE_S < self._wakes_at:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                while self._waits and self._waits[0][0] <= now:
                    wait = heapq.heappop(self._waits)[2]
                    if not wait.is_over:
                        wait.wake()
                self._wakes_at = self._waits[0][0] + _LATE_S if self._waits else float("inf")
                self._changed.wait(self._wakes_at - now if self._waits else None)


_idle_pipes: Final[list[tuple[int, int]]] = []
_deadlines: Final = _Deadlines()
