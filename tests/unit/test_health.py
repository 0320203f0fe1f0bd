import threading
from contextlib import contextmanager

import pytest

from scripts.stack.server import wait_until
from tests.support.api import Api, assert_problem
from todo_api.core.errors import LogUnavailable, StoreUnavailable
from todo_api.health import Monitor, Readiness


class Check:
    """A dependency that is up until told otherwise. ``hangs`` holds the check until it is set free."""

    def __init__(self):
        self.failure = None
        self.calls = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self):
        self.calls += 1
        self.goes_on.wait(30)
        if self.failure is not None:
            raise self.failure


@contextmanager
def running(checks, **options):
    monitor = Monitor(checks, **{"interval_s": 0.01} | options)
    monitor.start()
    try:
        yield monitor
    finally:
        for check in checks.values():
            check.goes_on.set()
        monitor.close(5)


def becomes(monitor, name, state):
    wait_until(lambda: monitor.states()[name] == state, 10, f"{name} {state}")


def test_health_is_ok_and_asks_nobody():
    api = Api()
    answer = api.get("/health")
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    assert api.request("HEAD", "/health").status_code == 200


def test_a_dependency_is_unknown_until_it_was_asked():
    assert Monitor({"postgres": Check()}).states() == {"postgres": "unknown"}


@pytest.mark.parametrize(
    "failure", [StoreUnavailable("refused"), StoreUnavailable(), RuntimeError("a bug in the check")]
)
def test_a_dependency_goes_down_and_comes_back(failure):
    check = Check()
    with running({"postgres": check}) as monitor:
        becomes(monitor, "postgres", "up")
        check.failure = failure
        becomes(monitor, "postgres", "down")
        check.failure = None
        becomes(monitor, "postgres", "up")


def test_a_check_that_hangs_makes_its_dependency_unknown_and_no_other():
    hangs, answers = Check(), Check()
    with running({"redis": hangs, "postgres": answers}, believed_s=0.5) as monitor:
        becomes(monitor, "redis", "up")
        hangs.goes_on.clear()
        becomes(monitor, "redis", "unknown")
        becomes(monitor, "postgres", "up")
        hangs.goes_on.set()
        becomes(monitor, "redis", "up")


def test_a_change_is_logged_once(caplog):
    caplog.set_level("INFO", logger="todo_api.health")
    check = Check()
    with running({"postgres": check}) as monitor:
        becomes(monitor, "postgres", "up")
        check.failure = StoreUnavailable("refused")
        becomes(monitor, "postgres", "down")
        calls = check.calls
        wait_until(lambda: check.calls > calls + 3, 10, "more checks")
        check.failure = None
        becomes(monitor, "postgres", "up")
        calls = check.calls
        wait_until(lambda: check.calls > calls + 3, 10, "more checks")
    assert [record.event for record in caplog.records] == ["dependency.down", "dependency.up"]


def test_a_closed_monitor_leaves_no_thread():
    with running({"postgres": Check(), "redis": Check()}) as monitor:
        becomes(monitor, "redis", "up")
        assert [t for t in threading.enumerate() if t.name.startswith("check-")]
    assert not [t for t in threading.enumerate() if t.name.startswith("check-")]


def test_ready_when_all_that_is_required_is_up():
    checks = {"postgres": Check(), "redis": Check(), "log": Check()}
    checks["log"].failure = LogUnavailable("refused")
    with running(checks) as monitor:
        becomes(monitor, "postgres", "up")
        becomes(monitor, "redis", "up")
        becomes(monitor, "log", "down")
        answer = Api(readiness=Readiness(monitor, ("postgres", "redis"), lambda: "open")).get("/ready")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {
        "ready": True,
        "draining": False,
        "missing": [],
        "dependencies": {
            "postgres": {"state": "up", "required": True},
            "redis": {"state": "up", "required": True},
            "log": {"state": "down", "required": False, "breaker": "open"},
        },
    }


@pytest.mark.parametrize("failure", [StoreUnavailable("host db.internal refused"), None])
def test_not_ready_without_what_is_required(failure):
    check = Check()
    check.failure = failure
    readiness = Readiness(monitor := Monitor({"postgres": check}), ("postgres",), lambda: "closed")
    api = Api(readiness=readiness)
    members = assert_problem(api.get("/ready"), 503, "not-ready")
    assert members["dependencies"] == {"postgres": {"state": "unknown", "required": True}}
    monitor.start()
    try:
        becomes(monitor, "postgres", "down" if failure else "up")
        answer = api.get("/ready")
    finally:
        monitor.close(5)
    if failure is None:
        assert answer.status_code == 200
        return
    assert assert_problem(answer, 503, "not-ready")["missing"] == ["postgres"]
    assert answer.headers["retry-after"] == "1"
    assert "db.internal" not in answer.text


def test_what_is_required_but_not_watched_is_missing():
    readiness = Readiness(Monitor({}), ("log",), lambda: "closed")
    assert assert_problem(Api(readiness=readiness).get("/ready"), 503)["missing"] == ["log"]


def test_a_process_on_its_way_out_is_not_ready_but_serves():
    readiness = Readiness(Monitor({}), (), lambda: "closed")
    api = Api(readiness=readiness)
    assert api.get("/ready").status_code == 200
    readiness.drain()
    members = assert_problem(api.get("/ready"), 503, "not-ready")
    assert members["draining"] is True
    assert members["ready"] is False
    assert api.get("/health").status_code == 200
    assert api.get("/todos").status_code == 200
    assert api.send("POST", "/todos", '{"title":"t"}').status_code == 202
