"""What counting costs a request: ``python -m scripts.bench.telemetry``. The figures are in docs/telemetry.md.

In this process alone, without any server: the objects that gunicorn's workers and the worker use, called in a loop.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import falcon
from falcon.testing import create_environ

from todo_api import api_metrics as metrics
from todo_api.core.command_log import Message
from todo_api.core.commands import Command, Kind
from todo_api.core.exposition import exposition
from todo_api.core.ids import uuid7
from todo_api.core.tracing import NoTracing
from todo_api.page_table import Entry
from todo_api.pages import Page, PageKey
from todo_api.request_trace import RequestTrace
from todo_api.telemetry import Telemetry
from todo_worker.applier import Applied, PartitionBatch, Progress
from todo_worker.telemetry import WorkerTelemetry

_ROUNDS: Final = 200_000
_BATCH: Final = 1000


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
    worker = WorkerTelemetry(lambda _lags, _newest: None)
    command = Command(
        kind=Kind.DELETE, command_id=uuid7(), todo_id=uuid7(), user_id="ann", issued_at=datetime.now(UTC)
    )
    messages = [Message(0, offset, b"", b"") for offset in range(_BATCH)]
    batch = PartitionBatch(
        0, Progress(0, 0), Progress(_BATCH, 0), [(offset, command) for offset in range(_BATCH)]
    )

    def apply() -> None:
        worker.applied({0: messages}, [batch], Applied(_BATCH, 0, 0), 0.1)

    empty = _cpu_us(lambda: None, rounds)
    return {
        "a hit of the hit path": max(0.0, _cpu_us(hit, rounds) - empty),
        "any other request: counted and timed": _cpu_us(count, rounds) - empty,
        "any other request: counted, timed and given its trace": _cpu_us(count_and_trace, rounds) - empty,
        "a command in the worker": _cpu_us(apply, max(1, rounds // _BATCH)) / _BATCH,
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
