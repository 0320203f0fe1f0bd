"""The figures of the fault suite, one line for each row and log: the table of docs/reliability.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tests.faults.trial import Result, percentile

HEAD: Final = (
    "Row", "Fault", "Log", "Rounds", "Writes", "Acked", "Unknown", "Reads", "Answered", "Slowest answer", "Recovered",
    "Visible p50", "p99", "Z",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All rounds of one row on one log: sums, the worst times, and percentiles of what became visible in any of them.

    Times in seconds; None where a round never recovered or never agreed. ``z`` counts what must not be.
    """

    row: str
    fault: str
    log: str
    rounds: int
    writes: int
    acked: int
    unknown: int
    reads: int
    answered: int
    answer_s: float
    read_p99_s: float
    recover_s: float | None
    visible_p50_s: float
    visible_p99_s: float
    visible_s: float
    agreed_s: float | None
    z: int
    found: tuple[str, ...]
    broken: tuple[str, ...]
    notes: tuple[str, ...]
    unknown_answers: tuple[str, ...]

    @classmethod
    def of(cls, rounds: Sequence[Result]) -> Self:
        """Return that of the rounds of one row and log, at least one."""
        visible = sorted(wait for result in rounds for wait in result.visible)
        found = [
            f"{kind}: {line}" for each in rounds for kind, lines in each.faults.items() for line in lines
        ]
        return cls(
            row=rounds[0].row.number,
            fault=rounds[0].row.name,
            log=rounds[0].log,
            rounds=len(rounds),
            writes=sum(result.writes for result in rounds),
            acked=sum(result.acked for result in rounds),
            unknown=sum(result.unknown for result in rounds),
            reads=sum(result.reads for result in rounds),
            answered=sum(result.reads_answered for result in rounds),
            answer_s=max(result.answer_s for result in rounds),
            read_p99_s=max(result.read_p99_s for result in rounds),
            recover_s=_worst([result.recover_s for result in rounds]),
            visible_p50_s=percentile(visible, 0.5),
            visible_p99_s=percentile(visible, 0.99),
            visible_s=percentile(visible, 1.0),
            agreed_s=_worst([result.agreed_s for result in rounds]),
            z=len(found),
            found=tuple(found),
            broken=tuple(line for result in rounds for line in result.broken),
            notes=tuple(dict.fromkeys(note for result in rounds for note in result.notes)),
            unknown_answers=tuple(line for result in rounds for line in result.unknown_answers),
        )

    def cells(self) -> tuple[str, ...]:
        """Return its line of the table."""
        return (
            self.row,
            self.fault,
            self.log,
            str(self.rounds),
            f"{self.writes:,}",
            _share(self.acked, self.writes),
            f"{self.unknown:,}",
            f"{self.reads:,}",
            _share(self.answered, self.reads),
            _s(self.answer_s),
            _s(self.recover_s),
            _s(self.visible_p50_s),
            _s(self.visible_p99_s),
            str(self.z),
        )


def summaries(results: Sequence[Result]) -> list[Summary]:
    """Put rounds of the same row and log together, in the order in which they came."""
    together: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        together.setdefault((result.row.number, result.log), []).append(result)
    return [Summary.of(rounds) for rounds in together.values()]


def markdown(of: Sequence[Summary]) -> list[str]:
    """Return the lines of the table."""
    return [_line(HEAD), _line(["---"] * len(HEAD), ""), *(_line(summary.cells()) for summary in of)]


def _line(cells: Sequence[str], space: str = " ") -> str:
    return f"|{space}{f'{space}|{space}'.join(cells)}{space}|"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else ""


def _s(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _worst(times: Sequence[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return max(known) if len(known) == len(times) else None
