"""What counting costs a request: ``python -m scripts.bench.telemetry``. The figures are in docs/telemetry.md.

In this process alone, without any server: the same objects that gunicorn's workers use, called in a loop.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

import falcon
from falcon.testing import create_environ

from todo_api import api_metrics as metrics
from todo_api.core.exposition import exposition
from todo_api.core.tracing import NoTracing
from todo_api.page_table import Entry
from todo_api.pages import Page, PageKey
from todo_api.request_trace import RequestTrace
from todo_api.telemetry import Telemetry

_ROUNDS: Final = 200_000


def costs(rounds: int) -> dict[str, float]:
    """Return the microseconds of CPU time that each takes, by what it is."""
    entry = Entry(Page(PageKey(100), "e", 1, b"[]", b"", '"e.1"', None), 0.0)
    telemetry, trace = Telemetry(), RequestTrace(NoTracing())
    req = falcon.Request(create_environ("/todos/x", method="GET"))
    resp = falcon.Response()

    def hit() -> None:
        entry.hits += 1

    def count() -> None:
        telemetry.process_request(req, resp)
        telemetry.process_response(req, resp, None, True)

    def count_and_trace() -> None:
        telemetry.process_request(req, resp)
        trace.process_request(req, resp)
        trace.process_response(req, resp, None, True)
        telemetry.process_response(req, resp, None, True)

    for number in range(30):
        telemetry.slot.observe(metrics.REQUEST_SECONDS, f"/route{number}", "GET", values=(0.1,))
        telemetry.slot.add(metrics.REQUESTS, f"/route{number}", "GET", "2xx")
    empty = _cpu_us(lambda: None, rounds)
    return {
        "a hit of the hit path": max(0.0, _cpu_us(hit, rounds) - empty),
        "any other request: counted and timed": _cpu_us(count, rounds) - empty,
        "any other request: counted, timed and given its trace": _cpu_us(count_and_trace, rounds) - empty,
        "writing what a process counted, twice a second": _cpu_us(telemetry.flush, max(1, rounds // 1000)),
        "one scrape": _cpu_us(lambda: exposition(telemetry.read()), max(1, rounds // 1000)),
    }


def _cpu_us(call: Callable[[], Any], rounds: int) -> float:
    began = time.process_time()
    for _ in range(rounds):
        call()
    return (time.process_time() - began) / rounds * 1e6


if __name__ == "__main__":
    for what, cost_us in costs(int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS).items():
        print(f"{cost_us:10.2f} us  {what}")
