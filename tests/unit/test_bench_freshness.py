"""``todo bench freshness``: when a todo counts as seen, and what the tables say. No server is started."""

import json

import pytest

from scripts.bench.freshness import reads_table, visibility_table
from scripts.bench.reads_under_writes import Round
from scripts.bench.visibility import Accepted, Visibility, Watch, in_every_process

FIRST, SECOND, THIRD = (f"01900000-0000-7000-8000-00000000000{n}".encode() for n in (1, 2, 3))
# Seeded: no time in it, and not one of ours.
OLD = b"ffffffff-0000-5000-8000-000000000000"


def page(*ids):
    return json.dumps([{"id": one.decode(), "title": "x"} for one in ids], separators=(",", ":")).encode()


@pytest.fixture
def accepted():
    accepted = Accepted()
    accepted.add(FIRST, 10.0)
    return accepted


@pytest.fixture
def watch(accepted):
    return Watch(accepted)


def test_a_todo_is_seen_at_the_first_look_that_shows_it(watch):
    watch.look(page(OLD), 10.1)
    assert watch.missing == 1
    watch.look(page(FIRST, OLD), 10.3)
    watch.look(page(FIRST, OLD), 10.4)
    assert watch.seen == {0: pytest.approx(0.3)}
    assert watch.missing == 0


def test_a_list_that_has_not_changed_shows_nothing_new(watch):
    watch.look(page(OLD), 10.1)
    watch.look(None, 10.2)
    assert watch.missing == 1


def test_a_todo_that_was_there_before_its_202_came_back_is_seen_at_once_although_the_list_does_not_change_any_more(
    watch, accepted
):
    watch.look(page(SECOND, FIRST, OLD), 10.1)
    accepted.add(SECOND, 10.2)
    watch.look(None, 10.2)
    assert watch.seen[1] == 0.0


def test_a_todo_that_later_ones_pushed_off_a_short_list_counts_as_seen(watch, accepted):
    accepted.add(SECOND, 10.1)
    accepted.add(THIRD, 10.1)
    watch.look(page(THIRD, SECOND), 10.5)
    assert watch.seen == {0: pytest.approx(0.5), 1: pytest.approx(0.4), 2: pytest.approx(0.4)}


def test_a_todo_is_not_taken_for_pushed_off_while_older_ones_are_on_the_list(watch, accepted):
    accepted.add(SECOND, 10.1)
    watch.look(page(SECOND, OLD), 10.5)
    assert watch.missing == 1


def test_of_several_processes_the_slowest_counts(accepted):
    accepted.add(SECOND, 10.0)
    first, second = Watch(accepted), Watch(accepted)
    first.look(page(SECOND, FIRST), 10.1)
    second.look(page(FIRST), 10.2)
    second.look(page(SECOND, FIRST), 10.4)
    assert in_every_process(100, [first, second]).seconds == pytest.approx([0.2, 0.4])
    assert in_every_process(100, [first, second], first=1).seconds == pytest.approx([0.4]), "past the warm-up"


def test_the_table_shows_the_middle_the_tail_and_the_slowest_of_each_list():
    hundred = [number / 1000 for number in range(1, 101)]
    rows = visibility_table([Visibility(100, hundred), Visibility(None, [2.0])]).rows
    assert rows[1] == ["all", "1", "2,000 ms", "2,000 ms", "2,000 ms"]
    assert rows[0][:2] == ["limit=100", "100"]
    assert rows[0][2] in ("50 ms", "51 ms")
    assert rows[0][4] == "100 ms"


def test_the_share_is_the_median_of_the_rounds_own_shares():
    rounds = [Round(100.0, 90.0, 1000.0), Round(1000.0, 100.0, 990.0), Round(200.0, 160.0, 1001.0)]
    (row,) = reads_table(rounds).rows
    assert row == ["limit=100", "1,000 (990-1,001)", "200 (100-1,000)", "100 (90-160)", "80% (10%-90%)"]
