"""What the relay makes of requests that come at the same time."""

import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from scripts.stack.server import wait_until
from tests.support.unix_socket import wait_until_accepted
from todo_api import relay_server
from todo_api.core.command_log import Position
from todo_api.core.command_log.relay_wire import LENGTH, Request, frame, read_answer, results_of
from todo_api.core.errors import LogUnavailable
from todo_api.relay_server import Relay


class SlowLog:
    """A log whose first batch takes until ``go_on`` is set. Remembers the batches."""

    log = "slow:log"

    def __init__(self):
        self.batches = []
        self.probes = 0
        self.go_on = threading.Event()

    def publish_many(self, records):
        self.batches.append([record.value for record in records])
        if len(self.batches) == 1:
            assert self.go_on.wait(20)
        return [
            LogUnavailable("no room") if record.value == b"bad" else Position(self.log, 3, len(self.batches))
            for record in records
        ]

    def probe(self):
        self.probes += 1


@pytest.fixture
def log():
    return SlowLog()


@pytest.fixture
def relay(log):
    # Its own name must be short, as that of a socket.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "relay.sock"
        relay = Relay(log, path)
        thread = threading.Thread(target=relay.run)
        thread.start()
        wait_until_accepted(path)
        yield relay
        log.go_on.set()
        relay.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def path(relay):
    return relay.path


@contextmanager
def asking(path, log, value, *, within_s=60.0, name=None):
    """A connection on which a record has been sent to the relay; it is in the socket by now."""
    deadline = time.monotonic() + within_s
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(frame(Request(name or log.log, deadline, [(b"key", value, ())])))
        yield connection


def probed(path, log):
    """Probe through the relay; return how often the log itself was probed by then."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(frame(Request(log.log, time.monotonic() + 60, [])))
        assert answer(connection, log) == []
    return log.probes


def answer(connection, log):
    data = connection.recv(1_000)
    return results_of(read_answer(memoryview(data)[LENGTH.size :]), log.log)


def test_what_comes_while_a_batch_is_on_its_way_goes_together_in_the_next(log, path):
    with ExitStack() as stack:
        first = stack.enter_context(asking(path, log, b"0"))
        wait_until(lambda: log.batches, 10, "the first batch")
        others = {
            value: stack.enter_context(asking(path, log, value)) for value in (b"1", b"2", b"bad", b"3")
        }
        log.go_on.set()
        assert answer(first, log) == [Position(log.log, 3, 1)]
        answers = {value: answer(connection, log) for value, connection in others.items()}

    assert log.batches[0] == [b"0"]
    assert sorted(log.batches[1]) == [b"1", b"2", b"3", b"bad"]
    # To each its own.
    assert [str(failure) for failure in answers.pop(b"bad")] == ["no room"]
    assert answers == {value: [Position(log.log, 3, 2)] for value in (b"1", b"2", b"3")}


def test_a_log_known_to_be_good_is_not_probed_by_every_process(log, path, monkeypatch):
    monkeypatch.setattr(relay_server, "_GOOD_FOR_S", 3600.0)
    log.go_on.set()
    with asking(path, log, b"0") as connection:
        answer(connection, log)
    assert probed(path, log) == 0
    # A record that the log did not take puts an end to that.
    with asking(path, log, b"bad") as connection:
        answer(connection, log)
    assert probed(path, log) == 1
    assert probed(path, log) == 1


def test_what_was_known_of_the_log_is_asked_again_after_a_while(log, path, monkeypatch):
    monkeypatch.setattr(relay_server, "_GOOD_FOR_S", 0.0)
    assert [probed(path, log), probed(path, log)] == [1, 2]


def figures(relay):
    """What the relay exports, as {(name, labels...): values}."""
    return {(one.metric.name, *one.labels): one.values for one in relay.read()}


def test_batches_are_counted_with_their_records_and_what_became_of_them(relay, path, log):
    with ExitStack() as stack:
        first = stack.enter_context(asking(path, log, b"0"))
        wait_until(lambda: log.batches, 10, "the first batch")
        others = [stack.enter_context(asking(path, log, value)) for value in (b"1", b"bad", b"2")]
        log.go_on.set()
        for connection in (first, *others):
            answer(connection, log)
        found = figures(relay)
        # One more, if the end of that with which the relay was waited for was not seen yet.
        assert found["todo_relay_connections",][0] in (4, 5)
    assert found["todo_relay_records_total", "acknowledged"] == (3,)
    assert found["todo_relay_records_total", "unavailable"] == (1,)
    assert found["todo_relay_records_total", "too_large"] == (0,)
    *counts, records = found["todo_relay_batch_records",]
    assert (sum(counts), records) == (2, 4)
    *counts, seconds = found["todo_relay_batch_duration_seconds",]
    assert sum(counts) == 2
    assert seconds > 0
    wait_until(lambda: figures(relay)["todo_relay_connections",] == (0,), 10, "they are gone")


def test_what_is_refused_unasked_is_counted_by_its_reason(relay, path, log):
    log.go_on.set()
    for options in ({"within_s": -1}, {"name": "another:log"}):
        with asking(path, log, b"0", **options) as connection:
            assert isinstance(answer(connection, log)[0], LogUnavailable)
    found = figures(relay)
    assert found["todo_relay_refusals_total", "too_late"] == (1,)
    assert found["todo_relay_refusals_total", "other_log"] == (1,)
    assert log.batches == []
