import threading
import time
from contextlib import nullcontext

import pytest

from scripts.stack.server import wait_until
from tests.support.thread_loop import Request, thread_loop
from todo_api.core import waiting
from todo_api.core.waiting import EventLoop, Wait, can_suspend

AGES_S = 60.0


def soon() -> float:
    return time.monotonic() + 0.05


def later() -> float:
    return time.monotonic() + AGES_S


@pytest.fixture(params=["thread", "loop"])
def suspends(request, monkeypatch):
    """Whether those who wait are requests, which a loop leaves; else they are threads, which stand still."""
    monkeypatch.setattr(waiting, "_loops", [])
    with thread_loop() if request.param == "loop" else nullcontext():
        yield request.param == "loop"


def test_whoever_can_be_left_is_known(suspends):
    assert can_suspend() == suspends


def test_a_wait_that_is_over_before_it_begins_does_not_begin(suspends):
    wait = Wait()
    wait.end()
    assert wait.until_over(later())
    if suspends:
        request = waiting._loops[0].running()
        assert isinstance(request, Request)
        assert request.suspensions == 0


@pytest.mark.usefixtures("suspends")
def test_another_thread_ends_a_wait():
    wait = Wait()
    thread = threading.Thread(target=wait.end, args=("arguments", "of a callback"))
    thread.start()
    assert wait.until_over(later())
    thread.join()


@pytest.mark.usefixtures("suspends")
def test_nobody_ends_a_wait_but_its_deadline():
    assert not Wait().until_over(soon())
    assert not Wait().until_over(time.monotonic() - 1)


@pytest.mark.usefixtures("suspends")
def test_what_ends_too_late_or_twice_ends_no_other_wait():
    first = Wait()
    assert not first.until_over(soon())
    for _ in range(3):
        first.end()
    second = Wait()
    first.end()
    assert not second.until_over(soon())
    second.end()
    assert second.until_over(later())


@pytest.mark.usefixtures("suspends")
def test_whoever_is_woken_for_nothing_waits_on():
    wait = Wait()
    over: list[bool] = []
    thread = threading.Thread(target=lambda: over.append(wait.until_over(later())))
    thread.start()
    for _ in range(100):
        wait.wake()
    assert over == []
    wait.end()
    thread.join(10)
    assert over == [True]


@pytest.mark.usefixtures("suspends")
def test_many_waits_at_once_each_end_at_their_own_time():
    ended: list[int] = []
    waits: dict[int, Wait] = {}

    def hold(number: int) -> None:
        waits[number] = Wait()
        assert waits[number].until_over(later())
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


def test_requests_that_wait_for_one_thing_end_together_or_each_at_its_deadline():
    wait = Wait()
    over: dict[str, bool] = {}

    def hold(name: str, deadline: float) -> None:
        over[name] = wait.until_over(deadline)

    with thread_loop():
        threads = [
            threading.Thread(target=hold, args=arguments)
            for arguments in (("one", later()), ("two", later()), ("impatient", soon()))
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: over == {"impatient": False}, 10, "only one has ended")
        wait.end()
        for thread in threads:
            thread.join(10)
    assert over == {"impatient": False, "one": True, "two": True}


def test_a_loop_that_cannot_leave_the_caller_is_not_asked_to(monkeypatch):
    def not_asked(*_: object) -> None:
        raise AssertionError("asked")

    loop = EventLoop(lambda: None, not_asked, not_asked, not_asked, not_asked)
    monkeypatch.setattr(waiting, "_loops", [loop])
    assert not can_suspend()
    assert not Wait().until_over(soon())


@pytest.mark.usefixtures("suspends")
def test_a_nearer_deadline_comes_before_one_that_was_there_first():
    far = Wait()
    thread = threading.Thread(target=far.until_over, args=(later(),))
    thread.start()
    assert not Wait().until_over(soon())
    assert thread.is_alive()
    far.end()
    thread.join(10)
    assert not thread.is_alive()
