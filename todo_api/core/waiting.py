"""Waiting for what another thread or process brings about, while this process serves others where it can.

A sync worker has one thread. Where that thread can leave one request for another (``meinheld_worker``), whoever waits
here makes room; elsewhere, and outside of requests, the calling thread waits.
"""

import heapq
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final, NamedTuple

_READ_BYTES: Final = 64
# How late a deadline may be noticed, so that many that come close together cost one look.
_LATE_S: Final = 0.02


class EventLoop(NamedTuple):
    """What can serve others meanwhile. All but ``running`` are for the thread of the loop."""

    running: Callable[[], object | None]
    """The request that calls, if the loop could leave it for another; else None. From any thread."""
    suspend: Callable[[], object]
    """Leaves the request that calls, and returns when it is resumed, which may be for nothing."""
    resume: Callable[[Any], object]
    """Goes on with a request that was suspended, until it waits again or ends. Not from a request."""
    soon: Callable[[Callable[[], object]], object]
    """Calls something when everybody has had their turn who is ready by now."""
    watch: Callable[[int, Callable[[], object]], object]
    """Calls something, not in a request, whenever there is something to read from a descriptor."""


_loops: Final[list[EventLoop]] = []


def use(loop: EventLoop) -> None:
    """Wait with ``loop`` in this process from now on. To be called in its thread."""
    _loops[:] = [loop]
    loop.watch(_wakes.open(), _wakes.take)


def can_suspend() -> bool:
    """Return whether others would be served while the caller waits here."""
    return bool(_loops) and _loops[0].running() is not None


def soon(call: Callable[[], object]) -> None:
    """Call something after the others who are ready now; not waiting itself. For whom ``can_suspend`` is true."""
    _loops[0].soon(call)


class Wait:
    """Any number of callers wait for another thread, once."""

    __slots__ = ("_lock", "_requests", "_wakes_at", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        # Who waits: requests that the loop has left, or a thread that stands still before a lock.
        self._requests: list[object] = []
        self._wakes_at = math.inf
        self._lock: threading.Lock | None = None

    def end(self, *_: object) -> None:
        """End the wait. From any thread, early, late or more than once; arguments of callbacks are ignored."""
        self.is_over = True
        self.wake()

    def until_over(self, deadline: float) -> bool:
        """Wait until ``end`` was called; return False at ``deadline`` (``time.monotonic``).

        Several requests may wait here at one time, but only one thread.
        """
        request = _loops[0].running() if _loops else None
        if request is None:
            return self._stand_still(deadline)
        while True:
            # Before the last look at ``is_over``: whoever ends the wait after that will find it.
            self._requests.append(request)
            if self.is_over or time.monotonic() >= deadline:
                # It is not there any more if the loop, in another thread, was about to resume it.
                with suppress(ValueError):
                    self._requests.remove(request)
                return self.is_over
            if deadline < self._wakes_at:
                self._wakes_at = deadline
                _deadlines.wake(self, deadline)
            _loops[0].suspend()

    def _stand_still(self, deadline: float) -> bool:
        self._lock = lock = threading.Lock()
        lock.acquire()
        while not self.is_over:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            lock.acquire(timeout=left_s)
        return True

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._requests:
            _wakes.put(self)
        elif self._lock is not None:
            # Nobody waits there any more, or it was woken already.
            with suppress(RuntimeError):
                self._lock.release()

    def resume(self) -> None:
        """Go on with the requests that wait here. In the thread of the loop, not in a request."""
        self._wakes_at = math.inf
        requests, self._requests = self._requests, []
        for request in requests:
            _loops[0].resume(request)


class _Wakes:
    """Those to be woken in the loop; one pipe for the whole process."""

    # PERF: with a pipe for each wait, which the loop had to watch and to forget again, a write cost 250 us of CPU, and
    # in a first version of this 149 (docs/adr/0021).

    def __init__(self) -> None:
        self._waits: deque[Wait] = deque()
        self._is_told = False
        self._ends = (-1, -1)

    def open(self) -> int:
        """Return what the loop shall watch: a new one, for the old one may be that of a process we were forked from."""
        self._ends = os.pipe()
        for fd in self._ends:
            os.set_blocking(fd, False)
        return self._ends[0]

    def put(self, wait: Wait) -> None:
        """Wake it, from any thread."""
        self._waits.append(wait)
        if not self._is_told:
            self._is_told = True
            os.write(self._ends[1], b"\0")

    def take(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._ends[0], _READ_BYTES)
        # Before looking: what is put from now on tells again.
        self._is_told = False
        while self._waits:
            self._waits.popleft().resume()


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
                self._wakes_at = self._waits[0][0] + _LATE_S if self._waits else math.inf
                self._changed.wait(self._wakes_at - now if self._waits else None)


_wakes: Final = _Wakes()
_deadlines: Final = _Deadlines()
