"""docs/telemetry.md names what is exported, as it is exported."""

import re
from pathlib import Path

import pytest

from scripts.bench.telemetry import costs
from todo_api import api_metrics, relay_metrics
from todo_worker import worker_metrics

ALL = [*api_metrics.METRICS, *worker_metrics.METRICS, *relay_metrics.METRICS]
TEXT = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()


def rows(heading):
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize(
    ("heading", "metrics"),
    [
        ("The API's metrics", api_metrics.METRICS),
        ("The worker's metrics", worker_metrics.METRICS),
        ("The relay's metrics", relay_metrics.METRICS),
    ],
)
def test_the_tables_say_what_the_code_says(heading, metrics):
    expected = [
        [f"`{one.name}`", str(one.kind), ", ".join(f"`{label}`" for label in one.labels), one.help]
        for one in metrics
    ]
    assert rows(heading) == expected


@pytest.mark.parametrize("metric", ALL, ids=lambda one: one.name)
def test_names_follow_prometheus(metric):
    assert re.fullmatch(r"todo_(api|worker|relay)_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not metric.help.endswith(".")


def test_every_cost_in_the_table_is_one_that_is_measured():
    assert len(costs(100)) == len(rows("What it costs"))
    assert all(cost_us >= 0 for cost_us in costs(100).values())
