"""The table of ``todo bench reads``, for a terminal and as Markdown."""

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from rich.table import Table

from scripts.bench.reads import Comparison, Sample

_COLUMNS: Final = (
    "GET /todos",
    "nginx req/s",
    "API req/s",
    "ratio",
    "nginx req/CPU s",
    "API req/CPU s",
    "ratio",
    "nginx p99",
    "API p99",
)


def rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return the cells: medians over the rounds; a ratio is the median of the rounds' own ratios."""
    return [_row(comparison) for comparison in comparisons]


def _row(comparison: Comparison) -> list[str]:
    cells = [comparison.case.name]
    for figure in (_per_second, _per_cpu_second):
        cells += [f"{_median(samples, figure):,.0f}" for samples in (comparison.nginx, comparison.ours)]
        cells.append(f"{comparison.ratio(figure):.2f}")
    return cells + [f"{_median(samples, _p99_ms):.1f} ms" for samples in (comparison.nginx, comparison.ours)]


def rich_table(comparisons: Sequence[Comparison]) -> Table:
    table = Table()
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for row in rows(comparisons):
        table.add_row(*row)
    return table


def markdown_table(comparisons: Sequence[Comparison]) -> str:
    rule = ["---", *["---:"] * (len(_COLUMNS) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [_COLUMNS, rule, *rows(comparisons)])


def _median(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    return statistics.median(map(figure, samples))


def _per_second(sample: Sample) -> float:
    return sample.load.requests_per_s


def _per_cpu_second(sample: Sample) -> float:
    return sample.requests_per_cpu_s


def _p99_ms(sample: Sample) -> float:
    return sample.load.p99_s * 1000
