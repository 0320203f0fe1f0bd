"""An event loop for ``core.waiting`` whose requests are threads: each stands still while it is suspended."""

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from todo_api.core import waiting


class Request:
    """A thread that may be suspended."""

    def __init__(self) -> None:
        self._resumed = threading.Semaphore(0)
        self.suspensions = 0

    def suspend(self) -> None:
        self.suspensions += 1
        assert self._resumed.acquire(timeout=60)

    def resume(self) -> None:
        self._resumed.release()


@contextmanager
def thread_loop() -> Iterator[None]:
    """Suspend whoever waits meanwhile, in any thread."""
    threads = threading.local()
    stop, stopped = os.pipe()
    watchers: list[threading.Thread] = []

    def running() -> Request:
        if not hasattr(threads, "request"):
            threads.request = Request()
        request: Request = threads.request
        return request

    def watch(fd: int, callback: Callable[[], object]) -> None:
        def run() -> None:
            while stop not in select.select([fd, stop], [], [])[0]:
                callback()

        watchers.append(threading.Thread(target=run))
        watchers[-1].start()

    loop = waiting.EventLoop(running, lambda: running().suspend(), Request.resume, lambda call: call(), watch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "_loops", [])
        patch.setattr(waiting, "_wakes", waiting._Wakes())
        waiting.use(loop)
        ends = waiting._wakes._ends
        try:
            yield
        finally:
            os.write(stopped, b"\0")
            for watcher in watchers:
                watcher.join(10)
            for fd in (stop, stopped, *ends):
                os.close(fd)
