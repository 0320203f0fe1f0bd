"""What an instance tells about itself: ``/metrics`` for Prometheus, ``/status.json`` for the status page, ``/version``.

APPSEC: none of it is for the public: it has a port of its own (ADMIN_PORT), or the proxy in front hides it
(docs/telemetry.md).
"""

import platform
import time
from importlib.metadata import version
from typing import Any, Final

import falcon
import ujson
from falcon import Request, Response

from todo_api import api_metrics as metrics
from todo_api.breaker import Condition
from todo_api.core.exposition import CONTENT_TYPE, exposition
from todo_api.core.metrics import Metric, Series
from todo_api.health import Readiness
from todo_api.telemetry import Telemetry

FIGURES: Final = frozenset({"/metrics", "/status.json", "/version"})
# The page shows one state for all processes. A process that never wrote is CONNECTING, and says nothing.
_BREAKER_STATES: Final = (Condition.OPEN, Condition.CLOSED, Condition.CONNECTING)


def add_figures(app: falcon.App[Any, Any], telemetry: Telemetry, readiness: Readiness) -> None:
    """Let ``app`` answer all of these."""
    app.add_route("/metrics", Metrics(telemetry))
    app.add_route("/status.json", Status(telemetry, readiness))
    app.add_route("/version", Version())


class Version:
    """``/version``: which release answers, and on which Python."""

    def on_get(self, _req: Request, resp: Response) -> None:
        resp.data = ujson.dumps(
            {"name": "todo-api", "version": version("todo-api"), "python": platform.python_version()}
        ).encode()
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


class Metrics:
    """``/metrics``"""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def on_get(self, _req: Request, resp: Response) -> None:
        resp.data = exposition(self._telemetry.read())
        resp.content_type = CONTENT_TYPE
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


class Status:
    """``/status.json``: figures of the whole instance that only grow, and how far the workers are."""

    def __init__(self, telemetry: Telemetry, readiness: Readiness) -> None:
        self._telemetry = telemetry
        self._readiness = readiness

    def on_get(self, _req: Request, resp: Response) -> None:
        series = self._telemetry.read()
        state, progress = self._telemetry.state, self._telemetry.progress
        now_s = time.time()
        breakers = {one.labels[0] for one in series if one.metric is metrics.BREAKERS and one.values[0] > 0}
        resp.data = ujson.dumps(
            {
                "time_s": now_s,
                "epoch": state.epoch if state else None,
                "generation": state.generation if state else None,
                "processes": self._telemetry.processes,
                "requests_total": _sum(series, metrics.REQUESTS),
                "list_requests_total": _sum(series, metrics.REQUESTS, "/todos", "GET"),
                "page_hits_total": _sum(series, metrics.PAGE_HITS),
                "lag_commands": progress.lag_commands,
                "applied_age_s": _age_s(now_s, progress.issued_at_us),
                "applied_delay_s": None if progress.delay_us is None else progress.delay_us / 1e6,
                "breaker": next((state for state in _BREAKER_STATES if state in breakers), None),
                "ready": self._readiness.report(),
            }
        ).encode()
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


def _sum(series: list[Series], metric: Metric, *labels: str) -> int:
    """Return the sum over all series of ``metric`` whose first labels are these."""
    return int(
        sum(one.values[0] for one in series if one.metric is metric and one.labels[: len(labels)] == labels)
    )


def _age_s(now_s: float, issued_at_us: int | None) -> float | None:
    # Clocks of two machines may disagree by a little.
    return None if issued_at_us is None else max(0.0, round(now_s - issued_at_us / 1e6, 3))
