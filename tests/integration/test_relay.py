"""The relay as a process: who may use it, and what its end, its pause and its return cost."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from click.testing import CliRunner

from scripts.cli import main
from scripts.stack.process_tree import frozen
from scripts.stack.server import wait_until
from tests.contracts.conftest import read
from tests.support.deployment import INHERITED
from tests.support.unix_socket import wait_until_accepted
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import make_consumer, make_relayed_publisher
from todo_api.core.command_log.relay_wire import FRAME_MAX_BYTES, LENGTH
from todo_api.core.errors import LogUnavailable

RECORD = Record(b"key", b"value")
# The promise is 2 s; the machine may be busy.
BOUND_S = 5.0


class RelayProcess:
    """``python -m todo_api.relay`` on a topic of Valkey Streams, and who publishes through it and reads there."""

    def __init__(self, folder, redis_url, **env):
        self._env = env
        self.socket = folder / "relay.sock"
        self.topic = f"test-{uuid4().hex[:12]}"
        self._redis_url = redis_url
        self._output = folder / "relay.out"
        self._process = None
        self._closables = []

    @property
    def output(self):
        return self._output.read_text()

    def start(self, **env):
        settings = {
            "REDIS_URL": self._redis_url,
            "COMMAND_LOG": "streams",
            "KAFKA_TODO_TOPIC": self.topic,
            "PUBLISHER_SOCKET": str(self.socket),
            **self._env,
        }
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "todo_api.relay"],
                cwd=self.socket.parent, env=INHERITED | settings | env, stdout=output, stderr=output,
            )  # fmt: skip

    def start_and_wait(self):
        self.start()
        publisher = self.publisher()
        wait_until(lambda: published(publisher, b"first"), 30.0, "the relay")
        return publisher

    @property
    def pid(self):
        assert self._process is not None
        return self._process.pid

    def signal(self, number):
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self):
        assert self._process is not None
        return self._process.wait(20)

    def publisher(self, topic=None):
        publisher = make_relayed_publisher("streams", topic=topic or self.topic, socket=self.socket)
        self._closables.append(publisher)
        publisher.start()
        return publisher

    def values(self):
        """Everything in the log, in order."""
        consumer = make_consumer(
            "streams", brokers=[], topic=self.topic, partitions=16, redis_url=self._redis_url, group=""
        )
        self._closables.append(consumer)
        return [message.value for message in read(consumer, sum(consumer.end_offsets().values()))]

    def close(self):
        for closable in self._closables:
            closable.close(1.0)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@pytest.fixture
def relay(tmp_path, redis_url):
    relay = RelayProcess(tmp_path, redis_url)
    yield relay
    relay.close()


def published(publisher, value):
    try:
        publisher.publish(Record(b"key", value))
    except LogUnavailable:
        return False
    return True


def refused(publisher, value):
    began = time.monotonic()
    with pytest.raises(LogUnavailable):
        publisher.publish(Record(b"key", value))
    assert time.monotonic() - began < BOUND_S


def test_what_is_refused_while_the_relay_is_frozen_is_not_appended_when_it_wakes(relay):
    publisher = relay.start_and_wait()
    with frozen(relay.pid):
        for value in (b"lost", b"lost too"):
            refused(publisher, value)
        with pytest.raises(LogUnavailable):
            publisher.probe()
    wait_until(lambda: published(publisher, b"after"), 20.0, "publishing again")
    publisher.probe()
    assert relay.values() == [b"first", b"after"]


def test_a_relay_that_was_killed_costs_refusals_until_it_is_started_again(relay):
    publisher = relay.start_and_wait()
    relay.signal(signal.SIGKILL)
    relay.wait()
    refused(publisher, b"lost")
    # Its socket is still there, and nobody listens.
    assert relay.socket.exists()
    relay.start()
    wait_until(lambda: published(publisher, b"after"), 30.0, "publishing through the new one")
    assert relay.values() == [b"first", b"after"]

    # And one that was restarted between two writes is not even noticed.
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    relay.start()
    wait_until(lambda: published(relay.publisher(), b"other"), 30.0, "the new one")
    publisher.publish(Record(b"key", b"last"))
    assert relay.values() == [b"first", b"after", b"other", b"last"]


def test_behind_a_log_that_hangs_only_the_first_waits(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = RelayProcess(tmp_path, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        relay.start()
        try:
            wait_until_accepted(relay.socket)
            with pytest.raises(LogUnavailable, match="Timeout"):
                relay.publisher().publish(RECORD)
            with pytest.raises(LogUnavailable, match="refused, unavailable for"):
                relay.publisher().publish(RECORD)
        finally:
            relay.close()


def test_a_stopped_relay_takes_its_socket_away_and_ends_in_order(relay):
    relay.start_and_wait()
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    assert not relay.socket.exists()
    assert "relay.stop" in relay.output


def test_todo_health_tells_whether_it_listens(relay, monkeypatch):
    monkeypatch.setenv("PUBLISHER_SOCKET", str(relay.socket))
    assert CliRunner().invoke(main, ["health", "--relay"]).exit_code == 1
    relay.start()
    wait_until(lambda: CliRunner().invoke(main, ["health", "--relay"]).exit_code == 0, 30.0, "the relay")
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    answer = CliRunner().invoke(main, ["health", "--relay"])
    assert answer.exit_code == 1
    assert str(relay.socket) in answer.output
    assert CliRunner().invoke(main, ["health", "--relay", "--url", "http://a/ready"]).exit_code == 2


def test_only_its_own_user_may_connect(relay):
    relay.start_and_wait()
    assert stat.S_IMODE(os.stat(relay.socket).st_mode) == 0o600


def test_a_second_relay_on_the_same_socket_ends_and_harms_nobody(relay):
    publisher = relay.start_and_wait()
    first = relay._process
    relay.start()
    try:
        assert relay.wait() == 2
        assert f"another relay serves {relay.socket}" in relay.output
    finally:
        relay._process = first
    publisher.publish(RECORD)


def test_a_file_in_the_place_of_the_socket_is_kept(relay):
    relay.socket.write_text("precious")
    relay.start()
    assert relay.wait() == 2
    assert relay.socket.read_text() == "precious"
    assert "Traceback" not in relay.output


def test_without_a_socket_it_says_which_setting_is_missing(relay):
    relay.start(PUBLISHER_SOCKET="")
    assert relay.wait() == 2
    assert "PUBLISHER_SOCKET is not set" in relay.output


def test_what_is_meant_for_another_topic_is_refused(relay):
    relay.start_and_wait()
    with pytest.raises(LogUnavailable, match=f"serves streams:{relay.topic}"):
        relay.publisher("other").publish(RECORD)
    assert relay.values() == [b"first"]


@pytest.mark.parametrize(
    "sent",
    [
        LENGTH.pack(5) + b"hello",
        LENGTH.pack(FRAME_MAX_BYTES) + b"x",
        LENGTH.pack(0),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["not a request", "too large", "empty", "HTTP"],
)
def test_a_stranger_who_sends_rubbish_is_hung_up_on_and_harms_nobody(relay, sent):
    publisher = relay.start_and_wait()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10.0)
        stranger.connect(str(relay.socket))
        stranger.sendall(sent)
        assert stranger.recv(100) == b""
    publisher.publish(RECORD)
