"""One round of one row: load, fault, healing, and what the ledger says afterwards."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from scripts.stack.server import wait_until
from tests.faults.fleet import Fleet, Log
from tests.support.ledger import OVERLOADED, Write
from tests.support.load import Load
from tests.support.observer import Observer, visible_after_s

AGREED_S: Final = 60.0
_RECOVERED_S: Final = 60.0
# In short runs, which other tests make busy: only bounds of so many seconds are asked for, and so many times them.
_LONG_S: Final = 15.0
_BUSY: Final = 4
_LISTS: Final = {"": None, "?limit=1": 1, "?limit=100": 100, "?limit=1000": 1000}
_SHOWN: Final = ("id", "title", "description", "completed", "user_id")
_ROUNDS: Final = count(1)
# Of one round; an outage has hundreds, all alike.
_UNKNOWN_KEPT: Final = 20

KAFKA: Final[tuple[Log, ...]] = ("kafka-python",)
KAFKA_CLIENTS: Final[tuple[Log, ...]] = ("kafka-python", "librdkafka")
EVERY_LOG: Final[tuple[Log, ...]] = ("kafka-python", "librdkafka", "streams")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What must hold besides Z. Shares are of 1; None asks for nothing."""

    reads: float | None = None
    writes: float | None = None
    answer_s: float | None = None
    read_p99_s: float | None = None
    recover_s: float | None = None
    visible_p50_s: float | None = None
    visible_p99_s: float | None = None
    visible_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long: the fault for ``seconds``, and half of that before and two thirds after it."""

    seconds: float
    writes_per_s: float

    @property
    def is_short(self) -> bool:
        """Whether times are too short, and machines too busy, for the bounds that are times."""
        return self.seconds < 10


class Scene:
    """What a fault has at hand: a fleet under load."""

    def __init__(self, fleet: Fleet, load: Load, pace: Pace) -> None:
        self.fleet = fleet
        self.load = load
        self.pace = pace
        self.notes: list[str] = []
        """What else is to be said in the table."""
        self.broken: list[str] = []
        """What must hold in this row alone, and did not."""

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)

    def go_on(self, share: float = 1.0) -> None:
        """Let the load run for this share of the fault's time."""
        self.load.go_on(self.pace.seconds * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: ``fault`` makes it and heals it again, under load.

    ``dead_letters`` is the number of those that it makes. A row that is ``short`` runs in every test run.
    """

    number: str
    name: str
    fault: Callable[[Scene], None]
    bounds: Bounds = Bounds()
    logs: tuple[Log, ...] = ("kafka-python", "streams")
    short: tuple[Log, ...] = ()
    reads_per_s: float = 10.0
    dead_letters: int = 0
    proxied: bool = False


@dataclass(slots=True)
class Result:
    """The figures of one round. Times in seconds."""

    row: Row
    log: Log
    writes: int = 0
    acked: int = 0
    unknown: int = 0
    unknown_answers: list[str] = field(default_factory=list)
    """What the first of them were."""
    reads: int = 0
    reads_answered: int = 0
    compared: int = 0
    answer_s: float = 0.0
    read_p99_s: float = 0.0
    recover_s: float | None = None
    visible: list[float] = field(default_factory=list)
    agreed_s: float | None = None
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def run(row: Row, fleet: Fleet, pace: Pace) -> Result:
    """Run one round of ``row``; blocks about 2.2 times the pace and the time to heal."""
    name = f"row{row.number}r{next(_ROUNDS)}"
    load = Load(name, fleet.client, writes_per_s=pace.writes_per_s, reads_per_s=row.reads_per_s, readers=4)
    observers = [Observer(fleet.direct(instance, 3.0), name) for instance in fleet.instances]
    dead_letters = fleet.dead_letters()
    scene = Scene(fleet, load, pace)
    result = Result(row, fleet.log, notes=scene.notes, broken=scene.broken)
    with ExitStack() as stack:
        for observer in observers:
            stack.enter_context(observer.running())
        with load.running():
            load.go_on(pace.seconds / 2)
            row.fault(scene)
            healed_at = time.monotonic()
            wait_until(lambda: load.recovered_at(healed_at) is not None, _RECOVERED_S, "20 writes in a row")
            load.go_on(pace.seconds * 2 / 3)
        _settle(result, fleet, load)
    _measure(result, load, observers, healed_at)
    written = fleet.dead_letters() - dead_letters
    if written != row.dead_letters:
        result.broken.append(f"{written} dead letters, not {row.dead_letters}")
    result.broken += broken_bounds(result, pace)
    return result


def _settle(result: Result, fleet: Fleet, load: Load) -> None:
    """Wait until the table agrees with the ledger and every process with the table, or the time is up."""
    since = time.monotonic()
    stale: list[str] = []

    def agree() -> bool:
        rows = fleet.rows()
        result.faults = load.ledger.faults(rows)
        stale[:] = [] if result.faults else _stale(result, fleet, rows)
        return not result.faults and not stale

    try:
        wait_until(agree, AGREED_S, "agreed")
        result.agreed_s = time.monotonic() - since
        # What was late once more (an old write, an old page) would come now.
        time.sleep(1.0)
        agree()
    except TimeoutError:
        pass
    if stale:
        result.faults["stale"] = stale


def _stale(result: Result, fleet: Fleet, rows: list[dict[str, object]]) -> list[str]:
    lines = []
    for number, instance in enumerate(fleet.instances):
        client = fleet.direct(instance)
        for query, limit in _LISTS.items():
            reply = client.get(f"/todos{query}")
            if reply.status != 200:
                lines.append(f"API {number}, {query or 'all'}: {reply.status}")
                continue
            shown = [[todo[name] for name in _SHOWN] for todo in reply.json()]
            table = [[row[name] for name in _SHOWN] for row in rows[:limit]]
            result.compared += len(table)
            if shown != table:
                lines.append(f"API {number}, {query or 'all'}: differs from the table")
    return lines


def _measure(result: Result, load: Load, observers: list[Observer], healed_at: float) -> None:
    writes = [write for write in load.ledger.writes if write.outcome != "refused"]
    overloaded = sum(write.status == OVERLOADED for write in load.ledger.writes)
    if overloaded:
        result.notes.append(f"{overloaded} writes refused for overload")
    counts = load.ledger.counts()
    result.writes, result.acked, result.unknown = len(writes), counts["acked"], counts["unknown"]
    result.unknown_answers = [_told(write) for write in load.ledger.unknown()[:_UNKNOWN_KEPT]]
    result.answer_s = max(write.took_s for write in load.ledger.writes)
    answered = sorted(read.took_s for read in load.reads if read.status == 200)
    others = Counter(read.status for read in load.reads if read.status != 200)
    if others:
        result.notes.append(f"other answers to reads: {dict(others)}")
    result.reads, result.reads_answered = len(load.reads), len(answered)
    result.read_p99_s = percentile(answered, 0.99)
    recovered_at = load.recovered_at(healed_at)
    result.recover_s = None if recovered_at is None else recovered_at - healed_at
    result.visible = visible_after_s(load.ledger, observers)
    backwards = [line for observer in observers for line in observer.backwards]
    if backwards:
        result.faults["backwards"] = backwards


def broken_bounds(result: Result, pace: Pace) -> list[str]:
    """Return a line for each bound of the row that the round missed."""
    bounds = result.row.bounds
    least = {"reads": (result.reads_answered / result.reads, bounds.reads)}
    least["writes"] = (result.acked / result.writes, bounds.writes)
    lines = [f"{name} {is_:.2%} < {must:.2%}" for name, (is_, must) in least.items() if must and is_ < must]
    if bounds.writes and result.acked / result.writes < bounds.writes:
        lines += result.unknown_answers
    most = {
        "answer": (result.answer_s, bounds.answer_s),
        "read p99": (result.read_p99_s, bounds.read_p99_s),
        "recover": (result.recover_s, bounds.recover_s),
        "visible p50": (percentile(result.visible, 0.5), bounds.visible_p50_s),
        "visible p99": (percentile(result.visible, 0.99), bounds.visible_p99_s),
        "visible": (percentile(result.visible, 1.0), bounds.visible_s),
    }
    for name, (measured, bound) in most.items():
        if bound is None or (pace.is_short and bound < _LONG_S):
            continue
        if measured is None or measured > bound * (_BUSY if pace.is_short else 1):
            lines.append(f"{name} {measured} s > {bound} s")
    return lines


def _told(write: Write) -> str:
    """Return when it was sent, as the logs write times, and what came of it."""
    sent_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - write.sent_at)
    return f"{write.kind} of {sent_at:%H:%M:%S.%f}: {write.status} after {write.took_s:.2f} s, {write.why}"


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
