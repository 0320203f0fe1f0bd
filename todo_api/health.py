"""Liveness, which touches nothing, and readiness, which only reads what a background monitor found last."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import ujson
from falcon import MEDIA_TEXT, Request, Response

from todo_api.core.errors import Unavailable
from todo_api.problems import NOT_READY, Problem

State = Literal["up", "down", "unknown"]

_INTERVAL_S: Final = 1.0
_BELIEVED_S: Final = 5.0

_logger = logging.getLogger(__name__)


class _Finding(NamedTuple):
    is_up: bool
    found_at: float


class Monitor:
    """Asks each dependency about once a second, each in a thread of its own, and remembers the answers.

    A check is a callable that returns when the dependency answers and raises Unavailable when it does not; its waits
    are bounded. A finding that is older than ``believed_s`` (the check hangs all the same) counts as unknown.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], None]],
        *,
        interval_s: float = _INTERVAL_S,
        believed_s: float = _BELIEVED_S,
    ) -> None:
        self._checks = dict(checks)
        self._interval_s = interval_s
        self._believed_s = believed_s
        self._findings: dict[str, _Finding] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin checking in the background and return at once. Call it after the fork, once."""
        self._threads = [
            threading.Thread(target=self._run, args=(name, check), name=f"check-{name}", daemon=True)
            for name, check in self._checks.items()
        ]
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop checking, within ``timeout_s`` in all."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def states(self) -> dict[str, State]:
        """Return the state of each dependency, without asking anybody."""
        now = time.monotonic()
        return {name: self._state(name, now) for name in self._checks}

    def _state(self, name: str, now: float) -> State:
        finding = self._findings.get(name)
        if finding is None or now - finding.found_at > self._believed_s:
            return "unknown"
        return "up" if finding.is_up else "down"

    def _run(self, name: str, check: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            self._find(name, check)
            self._stopping.wait(self._interval_s)

    def _find(self, name: str, check: Callable[[], None]) -> None:
        before = self._findings.get(name)
        reason = ""
        try:
            check()
        except Unavailable as ex:
            reason = str(ex) or type(ex).__name__
        # A mistake in a check must not end the thread: the state would be unknown for ever.
        except Exception as ex:
            _logger.exception("check failed", extra={"event": "dependency.check_failed", "dependency": name})
            reason = type(ex).__name__
        self._findings[name] = _Finding(not reason, time.monotonic())
        if before is None or before.is_up == bool(reason):
            _log_change(name, reason, is_first=before is None)


def _log_change(name: str, reason: str, *, is_first: bool) -> None:
    if reason:
        fields = {"event": "dependency.down", "dependency": name}
        _logger.warning("%s is away: %s", name, reason, extra=fields)
    elif not is_first:
        _logger.info("%s is back", name, extra={"event": "dependency.up", "dependency": name})


class Readiness:
    """Whether this process should get requests: what it requires is up, and it is not on its way out."""

    def __init__(self, monitor: Monitor, requires: Sequence[str], breaker_state: Callable[[], str]) -> None:
        self._monitor = monitor
        self._requires = requires
        self._breaker_state = breaker_state
        self._draining = False

    def drain(self) -> None:
        """Be not ready from now on. Safe in a signal handler."""
        self._draining = True

    def report(self) -> dict[str, Any]:
        """Return ``ready``, ``draining`` and the state of every dependency, as /ready shows them. Asks nobody."""
        states = self._monitor.states()
        missing = [name for name in self._requires if states.get(name) != "up"]
        dependencies: dict[str, dict[str, Any]] = {
            name: {"state": state, "required": name in self._requires} for name, state in states.items()
        }
        if "log" in dependencies:
            dependencies["log"]["breaker"] = self._breaker_state()
        return {
            "ready": not missing and not self._draining,
            "draining": self._draining,
            "missing": missing,
            "dependencies": dependencies,
        }


class Health:
    """``/health``: this process answers. Nothing else is asked, so that no restart is caused by a server elsewhere."""

    def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = MEDIA_TEXT
        resp.text = "OK"
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


class Ready:
    """``/ready``: for the load balancer."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def on_get(self, _req: Request, resp: Response) -> None:
        report = self._readiness.report()
        if not report["ready"]:
            why = "on its way out" if report["draining"] else f"without {', '.join(report['missing'])}"
            raise Problem(NOT_READY, f"this process is {why}", headers={"Retry-After": "1"}, members=report)
        resp.data = ujson.dumps(report).encode()
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get
