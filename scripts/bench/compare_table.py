"""The table of ``todo bench compare``."""

import statistics
from collections.abc import Sequence
from typing import Final

from scripts.bench.compare import BASELINE, Comparison, Figure, Sample
from scripts.bench.tables import Table

_COLUMNS: Final = (
    "GET /todos",
    "server",
    "requests/s",
    "of nginx's file",
    "requests/CPU s",
    "of nginx's file",
    "p99",
)


def compare_table(comparisons: Sequence[Comparison]) -> Table:
    """Return a row per case and server: medians over the rounds, and each ratio with its smallest and largest."""
    rows = [_row(comparison, server) for comparison in comparisons for server in comparison.samples]
    return Table(_COLUMNS, rows, names=2)


def _row(comparison: Comparison, server: str) -> list[str]:
    cells = [comparison.case.name, server]
    for figure in (_per_second, _per_cpu_second):
        cells += [f"{comparison.median(server, figure):,.0f}", _spread(comparison, server, figure)]
    return [*cells, f"{comparison.median(server, _p99_ms):.1f} ms"]


def _spread(comparison: Comparison, server: str, figure: Figure) -> str:
    if server == BASELINE:
        return "1"
    ratios = sorted(comparison.ratios(server, figure))
    middle = statistics.median(ratios)
    return f"{middle:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})" if len(ratios) > 1 else f"{middle:.2f}"


def _per_second(sample: Sample) -> float:
    return sample.load.requests_per_s


def _per_cpu_second(sample: Sample) -> float:
    return sample.requests_per_cpu_s


def _p99_ms(sample: Sample) -> float:
    return sample.load.p99_s * 1000
