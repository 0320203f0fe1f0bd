"""What this process counts and measures, in memory it shares with the other processes of the instance."""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from falcon import Request, Response

from todo_api import api_metrics as metrics
from todo_api.core.cache import Progress
from todo_api.core.errors import Unavailable
from todo_api.core.metrics import Memory, Series, Slot
from todo_api.core.store import State

logger = logging.getLogger(__name__)

# How old the figures of other processes are at most.
_FLUSH_EVERY_S: Final = 0.5
_PROGRESS_EVERY_S: Final = 1.0
# APPSEC: a client can send any word as its method; each would be a series for ever.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Where in a WSGI environ an earlier layer says since when (``time.perf_counter``) it has had the request.
BEGAN_AT: Final = "todo_api.began_at"

Report = Callable[[Slot], None]
_NOTHING_KNOWN: Final = Progress(None, None, None)


class Telemetry:
    """Counts requests (as a Falcon middleware) and writes, twice a second, what reports tell.

    A report gets the slot of this process and sets what it knows; it must not wait. ``read_progress`` asks how far
    the workers are, once a second; it must be bounded.
    """

    def __init__(
        self,
        *,
        read_state: Callable[[], State | None] = lambda: None,
        read_progress: Callable[[], Progress] = lambda: _NOTHING_KNOWN,
    ) -> None:
        self._reports: list[Report] = [_process_report]
        self._read_state = read_state
        self._read_progress = read_progress
        self._memory = Memory(metrics.METRICS)
        self._progress = _NOTHING_KNOWN
        self._seen: set[tuple[str, str]] = set()
        self._flushing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add_reports(self, *reports: Report) -> None:
        """Let these tell, too."""
        self._reports.extend(reports)

    def join(self, memory: memoryview, slots: int, own: int) -> None:
        """Count in memory that other processes read. Call it before ``start``."""
        self._memory = Memory(metrics.METRICS, memory, slots, own)

    def start(self) -> None:
        """Start writing in the background and return at once. Call it after the fork, once."""
        slot = self._memory.slot
        slot.add(metrics.PROCESS_STARTS)
        slot.set(metrics.BUILD, version("todo-api"), platform.python_version(), value=1)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Write the last figures."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self.flush()

    @property
    def slot(self) -> Slot:
        return self._memory.slot

    @property
    def processes(self) -> int:
        return self._memory.processes

    @property
    def progress(self) -> Progress:
        """How far the workers are, as of the last second."""
        return self._progress

    @property
    def state(self) -> State | None:
        """The state of the todos that this process knows."""
        return self._read_state()

    def read(self) -> list[Series]:
        """Return what all processes of the instance counted: this one's as of now. Takes some milliseconds."""
        self.flush()
        return self._memory.read()

    def flush(self) -> None:
        with self._flushing:
            for report in self._reports:
                try:
                    report(self._memory.slot)
                except Exception:
                    # One broken report must not silence the others.
                    logger.exception("report failed", extra={"event": "telemetry.report_failed"})

    def process_request(self, req: Request, _resp: Response) -> None:
        req.context["began_at"] = req.env.get(BEGAN_AT) or time.perf_counter()

    def process_response(self, req: Request, resp: Response, _resource: object, _succeeded: bool) -> None:
        route = req.uri_template or "other"
        method = method_label(req.method)
        began_at = req.context["began_at"]
        assert began_at is not None
        self.answered(route, method, f"{resp.status_code // 100}xx", time.perf_counter() - began_at)

    def answered(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count a request. ``status`` is its class, such as 2xx; all three are of closed sets."""
        slot = self._memory.slot
        slot.add(metrics.REQUESTS, route, method, status)
        if (route, method) not in self._seen:
            # Prometheus sees an increase only in what was there before.
            slot.add(metrics.REQUESTS, route, method, "5xx", amount=0)
            self._seen.add((route, method))
        slot.observe(metrics.REQUEST_SECONDS, route, method, values=(seconds,))

    def _run(self) -> None:
        next_progress = 0.0
        while not self._stopping.wait(_FLUSH_EVERY_S):
            self.flush()
            if time.monotonic() >= next_progress:
                next_progress = time.monotonic() + _PROGRESS_EVERY_S
                try:
                    self._progress = self._read_progress()
                except Unavailable:
                    self._progress = _NOTHING_KNOWN
                except Exception:
                    logger.exception("progress not read", extra={"event": "telemetry.progress_failed"})


def method_label(method: str) -> str:
    """Return a method as metrics have it: of a closed set."""
    return method if method in _METHODS else "other"


def _process_report(slot: Slot) -> None:
    slot.raise_to(metrics.CPU_SECONDS, total=time.process_time())
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[1])
        slot.set(metrics.MEMORY_BYTES, value=pages * os.sysconf("SC_PAGE_SIZE"))
