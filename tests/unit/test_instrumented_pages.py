"""What is measured on both sides of the page table, and of requests while they are answered."""

import threading

import pytest
from falcon.testing import StartResponseMock

from scripts.stack.server import wait_until
from tests.support.api import TEN, MemoryPages, page
from todo_api import api_metrics
from todo_api.active_requests import ActiveRequests
from todo_api.core.errors import StoreUnavailable
from todo_api.core.metrics import Memory
from todo_api.core.store import State
from todo_api.instrumented_pages import InstrumentedPages, InstrumentedSource
from todo_api.pages import PageKey, Refresh
from todo_api.reports import active_report
from todo_api.telemetry import Telemetry


@pytest.fixture
def telemetry():
    return Telemetry()


def found(telemetry, name):
    """The values of a metric by its labels."""
    return {one.labels: one.values for one in telemetry.read() if one.metric.name == name}


@pytest.mark.parametrize(
    ("key", "at_least", "count"),
    [
        (TEN, None, 0),
        (PageKey(10, completed=True), None, 0),
        (PageKey(10, user_id="ann"), None, 1),
        (TEN, State("e", 7), 1),
    ],
)
def test_a_request_that_asks_past_the_pages_is_counted(telemetry, key, at_least, count):
    pages = MemoryPages()
    assert InstrumentedPages(pages, telemetry).get(key, at_least) == page(key=key)
    assert (pages.asked, pages.asked_at_least) == ([key], [at_least])
    assert found(telemetry, "todo_api_page_bypasses_total") == ({(): (1,)} if count else {})


class Source:
    """Has every page, but for what another process is building."""

    forgotten = None

    def fetch(self, key, _wanted):
        return page(key=key)

    def refresh(self, key, _wanted, _held):
        return Refresh(None if key.completed else page(key=key), 0.0)

    def build(self, key):
        raise StoreUnavailable

    def forget(self, key):
        self.forgotten = key


def test_a_fetch_is_timed_by_its_reason_also_when_it_fails(telemetry):
    source = InstrumentedSource(inner := Source(), telemetry)
    assert source.fetch(TEN, None) == page(key=TEN)
    for key in (TEN, PageKey(10, completed=True)):
        source.refresh(key, State("e", 7), State("e", 6))
    with pytest.raises(StoreUnavailable):
        source.build(TEN)
    source.forget(TEN)
    assert inner.forgotten == TEN
    taken = found(telemetry, "todo_api_page_fetch_duration_seconds")
    assert {reason: sum(counts) for (reason,), (*counts, _) in taken.items()} == {
        "miss": 1,
        "refresh": 1,
        "own": 1,
    }


def test_a_request_counts_as_active_until_it_is_answered_and_its_method_is_of_a_closed_set():
    goes_on = threading.Event()

    def app(_environ, _start_response):
        assert goes_on.wait(20)
        raise RuntimeError("an answer that fails is over, too")

    active = ActiveRequests(app)
    memory = Memory(api_metrics.METRICS)

    def counted():
        active_report(active)(memory.slot)
        return {one.labels[0]: one.values[0] for one in memory.read()}

    def ask(method):
        with pytest.raises(RuntimeError):
            active({"REQUEST_METHOD": method}, StartResponseMock())

    threads = [threading.Thread(target=ask, args=(method,)) for method in ("POST", "POST", "BREW")]
    for thread in threads:
        thread.start()
    wait_until(lambda: counted() == {"POST": 2, "other": 1}, 10, "all of them wait")
    goes_on.set()
    for thread in threads:
        thread.join(10)
    assert counted() == {"POST": 0, "other": 0}
