"""Tables for a terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable


@dataclass(frozen=True, slots=True)
class Table:
    """``columns`` are headings; the first ``names`` columns hold words, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1

    def rich(self) -> RichTable:
        table = RichTable()
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < self.names else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        rule = ["---" if number < self.names else "---:" for number in range(len(self.columns))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [self.columns, rule, *self.rows])
