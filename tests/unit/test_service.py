import subprocess
import sys
import threading
import time

import pytest

from config.settings import SettingsError, load_settings
from todo_api.app import build
from todo_api.service import Part, Service

ENVIRONMENT = {
    "DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "KAFKA_BROKERS": "127.0.0.1:1",
    "JWT_SECRET": "0123456789abcdef-0123456789abcdef",
}


class Life:
    """Notes what its parts are told."""

    def __init__(self):
        self.told = []

    def part(self, name, *, fails=False, takes_s=0.0):
        def stop(timeout_s):
            self.told.append((f"stop {name}", timeout_s))
            time.sleep(min(takes_s, timeout_s))
            if fails:
                raise RuntimeError(name)

        return Part(name, lambda: self.told.append((f"start {name}", None)), stop)

    @property
    def order(self):
        return [what for what, _ in self.told]


def app(_environ, start_response):
    start_response("200 OK", [])
    return [b"answer"]


def service(*parts):
    return Service(app, parts, lambda: None)


def call(service):
    return service({}, lambda _status, _headers: None)


def test_parts_start_in_order_and_stop_in_reverse():
    life = Life()
    running = service(life.part("a"), life.part("b"), life.part("c"))
    running.start()
    running.stop(1)
    assert life.order == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


def test_the_first_request_starts_what_nobody_started():
    life = Life()
    running = service(life.part("a"))
    assert call(running) == [b"answer"]
    assert call(running) == [b"answer"]
    assert life.order == ["start a"]


def test_requests_at_once_start_it_once():
    life = Life()
    running = service(life.part("a"), life.part("b"))
    threads = [threading.Thread(target=call, args=(running,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert life.order == ["start a", "start b"]


def test_a_part_that_cannot_be_closed_does_not_keep_the_others_open(caplog):
    life = Life()
    running = service(life.part("a"), life.part("b", fails=True), life.part("c"))
    running.start()
    running.stop(1)
    assert life.order[3:] == ["stop c", "stop b", "stop a"]
    assert [record.part for record in caplog.records] == ["b"]


def test_the_time_to_stop_is_shared():
    life = Life()
    running = service(life.part("a"), life.part("b", takes_s=10))
    running.start()
    running.stop(0.2)
    assert [timeout_s for what, timeout_s in life.told if what == "stop a"] == [pytest.approx(0, abs=0.1)]


def test_stopping_what_never_started_does_nothing():
    life = Life()
    running = service(life.part("a"))
    running.stop(1)
    running.stop(1)
    assert life.told == []


BUILD = """
import socket, sys, threading
def refuse(event, arguments):
    if event.startswith("socket.connect") or event in ("socket.bind", "socket.getaddrinfo", "subprocess.Popen"):
        raise SystemExit(f"opened something: {event} {arguments}")
sys.addaudithook(refuse)
import wsgi
assert threading.active_count() == 1, threading.enumerate()
assert callable(wsgi.app)
assert "todo_worker" not in sys.modules
"""


@pytest.mark.parametrize("command_log", ["kafka", "streams"])
def test_importing_the_app_opens_nothing_and_starts_no_thread(command_log, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", BUILD],
        env=ENVIRONMENT | {"COMMAND_LOG": command_log},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr


def test_keys_of_a_provider_need_their_extra_and_say_so(monkeypatch):
    settings = load_settings(
        "api", ENVIRONMENT | {"JWT_JWKS_URL": "https://idp.example/keys", "JWT_ALGORITHMS": "RS256"}
    )
    assert callable(build(settings))
    monkeypatch.setattr("todo_api.app.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"todo-api\[jwks\]"):
        build(settings)


def test_new_todos_stick_to_a_partition_where_each_costs_a_request(monkeypatch):
    made = []
    monkeypatch.setattr("todo_api.app.CommandIntake", lambda *arguments: made.append(arguments[2]))
    for client in ("kafka-python", "librdkafka"):
        build(load_settings("api", ENVIRONMENT | {"KAFKA_CLIENT": client}))
    assert [new_id.__qualname__ for new_id in made] == ["uuid7"] * 2 + ["StickyIds.new"] * 2
