"""What readers notice when the command log goes away, in the process that also takes the writes; and what it costs."""

import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import psutil

from config.settings import load_settings
from scripts.bench.load import Load, Plan, check_load, ignore
from scripts.bench.measure import servers
from scripts.bench.own_client import OwnClient
from scripts.bench.product import Api, start_product
from scripts.bench.tables import Table
from scripts.stack.server import ServerProcess, free_port, wait_until
from scripts.tokens import sign_token

READS_PER_S: Final = 200
WRITES_PER_S: Final = 10
# So many may wait at once; were there fewer, a read could be late for want of a connection.
CONNECTIONS: Final = 32
FAULTS: Final = ("stopped", "frozen")
TODOS: Final = 10_000
_TARGET: Final = "/todos?limit=100"
_TIMEOUT_S: Final = 10.0
_RECOVERED_S: Final = 60.0
_BODY: Final = json.dumps({"title": "outage"})


@dataclass
class Writes:
    """The answers to writes: status and seconds of each; 0 is none at all."""

    answers: list[tuple[int, float]] = field(default_factory=list)

    @property
    def slowest_s(self) -> float:
        return max((seconds for _, seconds in self.answers), default=0.0)

    def count(self, status: int) -> int:
        return sum(answer == status for answer, _ in self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Reads while the log was there and then while it was away, from its last moment on, and what writes met.

    ``recovered_s`` is from the log's return to the first 202. ``growth_bytes`` is what the resident memory of the API
    process was larger at the end of the outage than at its begin.
    """

    there: Load
    away: Load
    writes: Writes
    recovered_s: float
    growth_bytes: int

    @property
    def ratio(self) -> float:
        return self.away.p99_s / self.there.p99_s


class Bench:
    """The product with one API process, and the server of its command log."""

    def __init__(self, port: int, api_pid: int, log: ServerProcess, token: str) -> None:
        self._port = port
        self._api = psutil.Process(api_pid)
        self._log = log
        self._token = token
        self._url = f"http://127.0.0.1:{port}{_TARGET}"

    def warm_up(self) -> None:
        """Bring pages, caches and connections into the state of every day."""
        self._load(2, Writes())

    def round(self, fault: str, seconds: int) -> Round:
        """Measure with the log there, then while it is away. Raises Refused when reads fail."""
        take, bring = {
            "stopped": (self._log.stop, self._log.start),
            "frozen": (self._log.freeze, self._log.resume),
        }[fault]
        there = self._load(seconds, Writes())
        before, writes = self._memory_bytes(), Writes()

        def go_away() -> None:
            writes.answers.clear()
            take()

        away = self._load(seconds, writes, go_away)
        growth = self._memory_bytes() - before
        bring()
        began = time.monotonic()
        wait_until(lambda: self._write()[0] == http.HTTPStatus.ACCEPTED, _RECOVERED_S, "a write accepted")
        return Round(
            there=there,
            away=away,
            writes=writes,
            recovered_s=time.monotonic() - began,
            growth_bytes=growth,
        )

    def _load(self, seconds: int, writes: Writes, begun: Callable[[], None] = ignore) -> Load:
        plan = Plan(url=self._url, duration_s=seconds, connections=CONNECTIONS, rate=READS_PER_S)
        with self._writing(writes):
            load = OwnClient(1).load(plan, begun)
        check_load(load, plan.url)
        return load

    @contextmanager
    def _writing(self, writes: Writes) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                writes.answers.append(self._write())
                due = max(due + 1 / WRITES_PER_S, time.monotonic())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_TIMEOUT_S)

    def _write(self) -> tuple[int, float]:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/todos", _BODY, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        return status, time.monotonic() - began

    def _memory_bytes(self) -> int:
        return sum(child.memory_info().rss for child in self._api.children())


@contextmanager
def bench(*, kafka: bool, todos: int = TODOS) -> Iterator[Bench]:
    """Start the product over ``todos`` todos; stop it in the end. Raises StackError when something does not start."""
    with servers() as started:
        environment = start_product(started, todos=todos, kafka=kafka)
        api = Api(free_port(), environment, 1)
        pid = started.start(api)
        token = sign_token(load_settings("api", environment), "bench", timedelta(hours=1))
        yield Bench(api.port, pid, started.processes["kafka" if kafka else "valkey"], token)


def outage_table(rounds: Mapping[str, Sequence[Round]]) -> Table:
    """Return a line for each fault: medians over its rounds, and the smallest and largest."""

    def spread(figures: Sequence[float], form: str, unit: str = "") -> str:
        return f"{statistics.median(figures):{form}}{unit} ({min(figures):{form}}-{max(figures):{form}})"

    rows = []
    for fault, same in rounds.items():
        refused = sum(each.writes.count(http.HTTPStatus.SERVICE_UNAVAILABLE) for each in same)
        sent = sum(len(each.writes.answers) for each in same)
        rows.append(
            [
                fault,
                spread([each.there.p99_s * 1000 for each in same], ".2f", " ms"),
                spread([each.away.p99_s * 1000 for each in same], ".2f", " ms"),
                spread([each.ratio for each in same], ".2f"),
                spread([each.away.latency_s[100.0] * 1000 for each in same], ".0f", " ms"),
                f"{refused} of {sent}",
                f"{max(each.writes.slowest_s for each in same) * 1000:.0f} ms",
                spread([each.recovered_s for each in same], ".1f", " s"),
                f"{max(each.growth_bytes for each in same) / 1e6:+.1f} MB",
            ]
        )
    columns = (
        "log", "reads' p99, there", "p99, away", "ratio", "slowest read, away", "writes refused", "slowest write",
        "recovered", "memory",
    )  # fmt: skip
    return Table(columns, rows)
