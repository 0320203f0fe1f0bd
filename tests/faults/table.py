"""The table that the fault suite prints at its end."""

from collections.abc import Sequence

from tests.faults.trial import Result, percentile

_HEAD = (
    "row", "fault", "log", "rounds", "writes", "acked", "unknown", "reads", "answered", "answer", "read p99",
    "recover", "visible p50", "p99", "most", "agreed", "Z", "also",
)  # fmt: skip


def markdown(results: Sequence[Result]) -> list[str]:
    """Return the lines of a table with one line for each row and log; rounds of the same are put together."""
    together: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        together.setdefault((result.row.number, result.log), []).append(result)
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    return lines + [_line(_cells(rounds)) for rounds in together.values()]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(rounds: list[Result]) -> list[str]:
    row = rounds[0].row
    visible = sorted(wait for result in rounds for wait in result.visible)
    faults = [f"{len(lines)} {kind}" for result in rounds for kind, lines in result.faults.items()]
    notes = dict.fromkeys(note for result in rounds for note in result.notes)
    broken = [f"**{line}**" for result in rounds for line in result.broken]
    reads = sum(result.reads for result in rounds)
    writes = sum(result.writes for result in rounds)
    acked = sum(result.acked for result in rounds)
    return [
        row.number,
        row.name,
        rounds[0].log,
        str(len(rounds)),
        f"{writes:,}",
        f"{acked / writes:.2%}" if writes else "",
        str(sum(result.unknown for result in rounds)),
        f"{reads:,}",
        f"{sum(result.reads_answered for result in rounds) / reads:.2%}" if reads else "",
        _s(max(result.answer_s for result in rounds)),
        _s(max(result.read_p99_s for result in rounds)),
        _worst([result.recover_s for result in rounds]),
        _s(percentile(visible, 0.5)),
        _s(percentile(visible, 0.99)),
        _s(percentile(visible, 1.0)),
        _worst([result.agreed_s for result in rounds]),
        ", ".join(faults) or "0",
        "; ".join([*notes, *broken]),
    ]


def _s(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _worst(times: list[float | None]) -> str:
    known = [time for time in times if time is not None]
    return _s(max(known)) if len(known) == len(times) else "never"
