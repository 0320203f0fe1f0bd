"""What the parts of an API process tell Telemetry: each function makes the report of one part."""

from todo_api import api_metrics as metrics
from todo_api.active_requests import ActiveRequests
from todo_api.breaker import Condition, GuardedPublisher
from todo_api.core.metrics import Slot
from todo_api.core.store import ReadStore
from todo_api.health import Monitor
from todo_api.instrumented_publisher import InstrumentedPublisher
from todo_api.overload import LoadShedder
from todo_api.page_table import PageTable
from todo_api.telemetry import Report


def page_report(pages: PageTable) -> Report:
    def report(slot: Slot) -> None:
        figures = pages.figures()
        # The hit path answers GET /todos and nothing else, and does not pass the middleware that counts the rest.
        ok = figures.unrouted - figures.unrouted_not_modified
        slot.raise_to(metrics.REQUESTS, "/todos", "GET", "2xx", total=ok)
        slot.raise_to(metrics.REQUESTS, "/todos", "GET", "3xx", total=figures.unrouted_not_modified)
        slot.add(metrics.REQUESTS, "/todos", "GET", "5xx", amount=0)
        slot.raise_to(metrics.PAGE_HITS, total=figures.hits)
        slot.raise_to(metrics.PAGE_OVERDUE, total=figures.overdue)
        slot.raise_to(metrics.PAGE_WAITS, total=figures.waits)
        slot.raise_to(metrics.PAGE_MISSES, total=figures.misses)
        slot.raise_to(metrics.PAGE_REFRESHES, total=figures.refreshes)
        slot.raise_to(metrics.PAGE_FAILURES, total=figures.failures)
        # An increase from nothing is no increase to Prometheus.
        slot.add(metrics.PAGE_BYPASSES, amount=0)
        slot.set(metrics.PAGES, value=figures.pages)
        slot.set(metrics.PAGE_BYTES, value=figures.page_bytes)
        if figures.state is not None:
            slot.set(metrics.GENERATION, value=figures.state.generation)
            slot.set(metrics.STATE_AGE, value=figures.age_s)

    return report


def pool_report(store: ReadStore) -> Report:
    def report(slot: Slot) -> None:
        figures = store.pool_figures()
        slot.set(metrics.POOL_CONNECTIONS, "in_use", value=figures.in_use)
        slot.set(metrics.POOL_CONNECTIONS, "idle", value=figures.idle)
        slot.set(metrics.POOL_MAX, value=figures.max_size)
        slot.set(metrics.POOL_WAITING, value=figures.waiting)
        slot.raise_to(metrics.POOL_TIMEOUTS, total=figures.timeouts)

    return report


def breaker_report(publisher: GuardedPublisher) -> Report:
    def report(slot: Slot) -> None:
        now = publisher.state.condition
        for condition in Condition:
            slot.set(metrics.BREAKERS, condition, value=condition is now)

    return report


def publish_report(publisher: InstrumentedPublisher) -> Report:
    def report(slot: Slot) -> None:
        slot.set(metrics.PUBLISH_WAITING, value=publisher.waiting())

    return report


def dependency_report(monitor: Monitor) -> Report:
    def report(slot: Slot) -> None:
        for name, state in monitor.states().items():
            slot.set(metrics.DEPENDENCY_UP, name, value=state == "up")

    return report


def active_report(requests: ActiveRequests) -> Report:
    def report(slot: Slot) -> None:
        for method, count in requests.counts().items():
            slot.set(metrics.ACTIVE_REQUESTS, method, value=count)

    return report


def overload_report(shedder: LoadShedder) -> Report:
    def report(slot: Slot) -> None:
        slot.raise_to(metrics.REFUSED, total=shedder.refused)

    return report
