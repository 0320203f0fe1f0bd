"""What a run of the fault suite leaves in a folder: its figures as JSON, and as Markdown for docs/reliability.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tests.faults.table import Summary, markdown, summaries
from tests.faults.trial import Result


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for, by ``make faults``."""

    rows: str
    rounds: int
    seconds: float
    began_at: datetime

    @property
    def command(self) -> str:
        return f"make faults ROW={self.rows} ROUNDS={self.rounds} SECONDS={self.seconds:g}"


def write(folder: Path, run: Run, results: Sequence[Result]) -> Path:
    """Write ``faults.json`` and ``faults.md`` to a folder of the run's own below ``folder``, and return that.

    Meant to be called after each round: what a run that was ended has seen stays.
    """
    own = folder / run.began_at.strftime("faults-%Y-%m-%dT%H-%M-%S")
    own.mkdir(parents=True, exist_ok=True)
    rows = summaries(results)
    whole = {
        "command": run.command,
        "began_at": run.began_at.isoformat(timespec="seconds"),
        "rounds": len(results),
        "writes": sum(row.writes for row in rows),
        "reads": sum(row.reads for row in rows),
        "z": sum(row.z for row in rows),
        "rows": [asdict(row) for row in rows],
    }
    (own / "faults.json").write_text(json.dumps(whole, indent=2) + "\n")
    (own / "faults.md").write_text("\n".join([_sentence(run, len(results), rows), "", *lines(rows)]) + "\n")
    return own


def lines(rows: Sequence[Summary]) -> list[str]:
    """Return the table, and below it what else is to be said of each row."""
    said = [
        f"- {row.row}, {row.log}: {'; '.join([*row.notes, *(f'**{line}**' for line in (*row.found, *row.broken))])}"
        for row in rows
        if row.notes or row.found or row.broken
    ]
    return [*markdown(rows), *(["", *said] if said else [])]


def _sentence(run: Run, rounds: int, rows: Sequence[Summary]) -> str:
    writes, reads, z = (sum(getattr(row, name) for row in rows) for name in ("writes", "reads", "z"))
    return (
        f"`{run.command}`, {run.began_at:%Y-%m-%d}: Z was {z} in {rounds} {'round' if rounds == 1 else 'rounds'}, with "
        f"{writes:,} writes and {reads:,} reads. {sum(bool(row.broken) for row in rows)} of {len(rows)} lines missed "
        "another bound."
    )
