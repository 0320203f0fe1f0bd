"""What one core was measured to do: every measured number that ``todo plan`` counts with, and no other.

After a new measurement: put it into docs/benchmarks.md, correct the figures here, and replace the tables in
docs/scaling.md by what ``todo plan --markdown`` prints. Tests compare the three.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. ``section`` is the heading of docs/benchmarks.md that has it."""

    command: str
    section: str
    date: str
    machine: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run, as docs/benchmarks.md prints it: ``quoted``."""

    what: str
    quoted: str
    unit: str
    run: Run

    @property
    def value(self) -> float:
        return float(self.quoted.replace(",", ""))


_MACHINE: Final = "2 cores of a Linux VM"
_READS: Final = Run("todo bench compare", "Reads beside other servers", "2026-11-28", _MACHINE)
_WORKER: Final = Run("todo bench worker", "The worker's backlog", "2026-11-28", _MACHINE)
_WRITES: Final = Run("todo bench writes", "Durable writes", "2026-11-28", _MACHINE)

# Reads: how many answers an API process gives for a second of its CPU time.
PAGE_PLAIN: Final = Figure("`limit=100`, plain", "80,181", "answers per CPU second", _READS)
PAGE_GZIP: Final = Figure("`limit=100`, gzip", "106,444", "answers per CPU second", _READS)
LIST_PLAIN: Final = Figure("all 10,000 todos, plain", "4,393", "answers per CPU second", _READS)
NGINX_PAGE: Final = Figure("nginx, `limit=100` from a file", "67,542", "answers per CPU second", _READS)
NGINX_LIST: Final = Figure("nginx, all 10,000 todos from a file", "6,341", "answers per CPU second", _READS)

# What one answer has on the wire, headers included.
PAGE_PLAIN_BYTES: Final = Figure("`limit=100`, plain", "20,880", "bytes an answer", _READS)
PAGE_GZIP_BYTES: Final = Figure("`limit=100`, gzip", "3,715", "bytes an answer", _READS)
LIST_PLAIN_BYTES: Final = Figure("all 10,000 todos, plain", "2,048,071", "bytes an answer", _READS)
LIST_GZIP_BYTES: Final = Figure("all 10,000 todos, gzip", "323,015", "bytes an answer", _READS)

# The worker: the slowest of the rounds, and the dearest.
WORKER_COMMANDS: Final = Figure("one worker process", "16,726", "commands applied a second", _WORKER)
WORKER_CPU: Final = {
    client: Figure(f"worker, {client}", quoted, "CPU us a command applied", _WORKER)
    for client, quoted in (("kafka-python", "41"), ("librdkafka", "29"))
}
POSTGRES_CPU: Final = Figure("PostgreSQL, for the worker", "27", "CPU us a command applied", _WORKER)


@dataclass(frozen=True, slots=True)
class WriteCost:
    """CPU time for one durable ``POST /todos``; ``relay`` is None where there is none."""

    api: Figure
    relay: Figure | None
    broker: Figure


def _write_cost(way: str, api: str, relay: str | None, broker: str) -> WriteCost:
    unit = "CPU us a write accepted"
    return WriteCost(
        Figure(f"API, {way}", api, unit, _WRITES),
        Figure(f"relay, {way}", relay, unit, _WRITES) if relay else None,
        Figure(f"Kafka, {way}", broker, unit, _WRITES),
    )


# By client, and whether a relay appends.
WRITE_COSTS: Final[Mapping[tuple[str, bool], WriteCost]] = {
    ("kafka-python", False): _write_cost("kafka-python", "271", None, "57"),
    ("kafka-python", True): _write_cost("kafka-python with relay", "199", "109", "65"),
    ("librdkafka", False): _write_cost("librdkafka", "254", None, "69"),
    ("librdkafka", True): _write_cost("librdkafka with relay", "236", "47", "59"),
}

FIGURES: Final = (
    PAGE_PLAIN,
    PAGE_GZIP,
    LIST_PLAIN,
    NGINX_PAGE,
    NGINX_LIST,
    PAGE_PLAIN_BYTES,
    PAGE_GZIP_BYTES,
    LIST_PLAIN_BYTES,
    LIST_GZIP_BYTES,
    WORKER_COMMANDS,
    *WORKER_CPU.values(),
    POSTGRES_CPU,
    *(
        figure
        for cost in WRITE_COSTS.values()
        for figure in (cost.api, cost.relay, cost.broker)
        if figure is not None
    ),
)
