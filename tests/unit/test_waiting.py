import select
import threading
import time

import pytest

from scripts.stack.server import wait_until
from todo_api.core import waiting
from todo_api.core.waiting import EventLoop, Wait, can_suspend

AGES_S = 60.0


def soon() -> float:
    return time.monotonic() + 0.05


def later() -> float:
    return time.monotonic() + AGES_S


@pytest.fixture(params=["thread", "loop"])
def suspended(request, monkeypatch):
    """The descriptors that a loop was asked to wait for; none where threads wait."""
    descriptors: list[int] = []

    def suspend(fd: int) -> None:
        descriptors.append(fd)
        select.select([fd], [], [])

    loops = [EventLoop(suspend, lambda: True, lambda call: call())] if request.param == "loop" else []
    monkeypatch.setattr(waiting, "_loops", loops)
    return descriptors


def test_a_wait_that_is_over_before_it_begins_does_not_begin(suspended):
    with Wait() as wait:
        wait.end()
        assert wait.until_over(later())
    assert suspended == []


@pytest.mark.usefixtures("suspended")
def test_another_thread_ends_a_wait():
    with Wait() as wait:
        thread = threading.Thread(target=wait.end, args=("arguments", "of a callback"))
        thread.start()
        assert wait.until_over(later())
        thread.join()


@pytest.mark.usefixtures("suspended")
def test_nobody_ends_a_wait_but_its_deadline():
    with Wait() as wait:
        assert not wait.until_over(soon())
        assert not wait.until_over(time.monotonic() - 1)


@pytest.mark.usefixtures("suspended")
def test_what_ends_too_late_or_twice_ends_no_other_wait():
    with Wait() as first:
        assert not first.until_over(soon())
    for _ in range(3):
        first.end()
    with Wait() as second:
        first.end()
        assert not second.until_over(soon())
        second.end()
        assert second.until_over(later())


@pytest.mark.usefixtures("suspended")
def test_many_waits_at_once_each_end_at_their_own_time():
    ended: list[int] = []
    waits: dict[int, Wait] = {}

    def hold(number: int) -> None:
        with Wait() as wait:
            waits[number] = wait
            assert wait.until_over(later())
            ended.append(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(waits) == 20, 10, "all wait")
    for number in (7, 3, 11):
        waits[number].end()
        wait_until(lambda: number in ended, 10, "its turn")  # noqa: B023
    assert ended == [7, 3, 11]
    for wait in waits.values():
        wait.end()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == list(range(20))


def test_a_loop_that_cannot_leave_the_caller_is_not_asked_to(monkeypatch):
    def suspend(_fd: int) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(waiting, "_loops", [EventLoop(suspend, lambda: False, lambda call: call())])
    assert not can_suspend()
    with Wait() as wait:
        assert not wait.until_over(soon())


def test_a_nearer_deadline_comes_before_one_that_was_there_first(monkeypatch):
    loop = EventLoop(lambda fd: select.select([fd], [], []), lambda: True, lambda call: call())
    monkeypatch.setattr(waiting, "_loops", [loop])
    with Wait() as far:
        thread = threading.Thread(target=far.until_over, args=(later(),))
        thread.start()
        with Wait() as near:
            assert not near.until_over(soon())
        assert thread.is_alive()
        far.end()
        thread.join(10)
        assert not thread.is_alive()
