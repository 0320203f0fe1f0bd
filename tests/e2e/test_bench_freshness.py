"""``todo bench freshness`` on the product as processes, small."""

import pytest

from scripts.bench.freshness import Bench, bench
from scripts.bench.load import Refused
from scripts.bench.visibility import LIMITS, WRITES_PER_S, measure_visibility


@pytest.fixture(scope="module")
def running():
    with bench(1, kafka=False, todos=20) as running:
        yield running


def test_every_todo_is_seen_in_every_list(running):
    lists = running.visibility(1)
    assert [each.limit for each in lists] == list(LIMITS)
    assert [len(each.seconds) for each in lists] == [WRITES_PER_S] * len(LIMITS)
    assert all(seconds >= 0 for each in lists for seconds in each.seconds)


def test_reads_are_measured_without_writes_and_with_them(running: Bench):
    (measured,) = running.rounds(1, 1)
    assert measured.idle_per_s > 0
    assert measured.busy_per_s > 0
    assert measured.applied_per_s > 0


def test_a_write_that_is_not_accepted_is_a_refusal_and_not_a_figure(running: Bench):
    with pytest.raises(Refused, match="POST /todos was answered with 401"):
        measure_visibility(running.watched, "no token", 1)
