"""Writes that wait do not keep their process from others: real gunicorn processes with our worker class."""

import http.client
import importlib.util
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from scripts.stack.server import wait_until
from tests.support.gunicorn import GunicornProcess

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("meinheld") is None,
    reason="meinheld is not installed; it does not build on Python 3.13 and later, where gthread serves",
)

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("--worker-class", "todo_api.meinheld_worker.MeinheldWorker", "--pythonpath", str(ROOT))
APPLICATION = "tests.e2e.apps.waits:application"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One worker, for the tests that leave it as it was."""
    with GunicornProcess([*ARGUMENTS, APPLICATION], tmp_path_factory.mktemp("gunicorn")) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture
def own_server(tmp_path):
    with GunicornProcess([*ARGUMENTS, "--graceful-timeout", "15", APPLICATION], tmp_path) as process:
        yield process


def ask(server: GunicornProcess, method: str, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=20)) as client:
        client.request(method, path)
        response = client.getresponse()
        return response.status, response.read().decode()


def await_held(server: GunicornProcess, count: int) -> None:
    wait_until(lambda: ask(server, "GET", "/held") == (200, str(count)), 10, f"{count} writes wait")


def read_answer(file) -> tuple[bytes, bytes]:
    head = b"".join(iter(file.readline, b"\r\n"))
    length = next(line for line in head.splitlines() if line.startswith(b"Content-Length"))
    return head, file.read(int(length.partition(b":")[2]))


def test_many_writes_wait_at_once_in_one_process_and_each_gets_its_own_answer(server):
    with ThreadPoolExecutor(100) as threads:
        for _ in range(2):
            answers = [threads.submit(ask, server, "POST", f"/hold/{n}/15") for n in range(100)]
            await_held(server, 100)
            assert not any(answer.done() for answer in answers)
            ask(server, "GET", "/release")
            assert [answer.result() for answer in answers] == [(200, f"{n} POST") for n in range(100)]
            await_held(server, 0)


def test_nothing_that_one_write_had_in_its_context_is_seen_by_a_later_one(server):
    assert ask(server, "POST", "/hold/one/0") == (503, "one POST")
    for _ in range(3):
        assert ask(server, "POST", "/name") == (200, "nobody")
    with ThreadPoolExecutor(2) as threads:
        answer = threads.submit(ask, server, "POST", "/hold/two/15")
        await_held(server, 1)
        assert ask(server, "POST", "/name") == (200, "nobody")
        ask(server, "GET", "/release")
        assert answer.result() == (200, "two POST")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_kind_of_write_makes_room(server, method):
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(ask, server, method, "/hold/one/15")
        await_held(server, 1)
        ask(server, "GET", "/release")
        assert answer.result() == (200, f"one {method}")


def test_a_wait_ends_at_its_deadline(server):
    with ThreadPoolExecutor(3) as threads:
        late = threads.submit(ask, server, "POST", "/hold/late/15")
        await_held(server, 1)
        assert ask(server, "POST", "/hold/early/0.2") == (503, "early POST")
        assert ask(server, "POST", "/hold/at-once/0") == (503, "at-once POST")
        assert not late.done()
        ask(server, "GET", "/release")
        assert late.result() == (200, "late POST")


def test_requests_sent_ahead_wait_for_those_before_them(server):
    head, body = b" HTTP/1.1\r\nHost: a\r\n", b"Content-Length: 2\r\n\r\nhi"
    with socket.create_connection((server.host, server.port), 20) as client, client.makefile("rb") as file:
        for write in (b"POST", b"PUT"):
            client.sendall(
                b"GET /held"
                + head
                + b"\r\n"
                + write
                + b" /hold/one/15"
                + head
                + body
                + b"GET /held"
                + head
                + b"\r\n"
            )
            assert read_answer(file)[1] == b"0"
            await_held(server, 1)
            client.sendall(b"GET /pid" + head + b"\r\n")  # Behind one that waits.
            ask(server, "GET", "/release")
            assert [read_answer(file)[1] for _ in range(2)] == [b"one " + write, b"0"]
            assert read_answer(file)[1].isdigit()


def test_an_error_after_the_wait_is_the_500_of_that_request_alone(server):
    with ThreadPoolExecutor(2) as threads:
        bad = threads.submit(ask, server, "POST", "/hold/raise/15")
        good = threads.submit(ask, server, "POST", "/hold/good/15")
        await_held(server, 2)
        ask(server, "GET", "/release")
        assert bad.result()[0] == 500
        assert good.result() == (200, "good POST")


def test_a_client_that_leaves_while_its_write_waits_disturbs_nobody(server):
    errors = server.output.count("[ERROR]")
    pids = server.worker_pids()
    for _ in range(3):
        with ExitStack() as stack:
            for linger in (b"\0" * 8, b"\1" + b"\0" * 7):
                client = stack.enter_context(socket.create_connection((server.host, server.port), 10))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.sendall(b"POST /hold/gone/15 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            await_held(server, 2)
        ask(server, "GET", "/release")
        await_held(server, 0)
    assert ask(server, "GET", "/pid") == (200, str(pids[0]))
    assert server.output.count("[ERROR]") == errors


def test_a_stopping_worker_answers_the_writes_that_wait(own_server):
    with ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(ask, own_server, "POST", f"/hold/{n}/3") for n in range(20)]
        await_held(own_server, 20)
        own_server.signal(signal.SIGTERM)
        assert {answer.result() for answer in answers} == {(503, f"{n} POST") for n in range(20)}
    assert own_server.wait(15) == 0


def test_a_worker_whose_writes_all_wait_is_not_taken_for_a_stuck_one(tmp_path):
    with GunicornProcess([*ARGUMENTS, "--timeout", "2", APPLICATION], tmp_path) as server:
        pids = server.worker_pids()
        began = time.monotonic()
        assert ask(server, "POST", "/hold/long/4") == (503, "long POST")
        assert time.monotonic() - began >= 4
        assert server.worker_pids() == pids
        os.kill(pids[0], 0)


def test_waits_leave_no_descriptor_behind(server):
    def open_files() -> int:
        (pid,) = server.worker_pids()
        return len(os.listdir(f"/proc/{pid}/fd"))

    def hold_ten() -> None:
        with ThreadPoolExecutor(10) as threads:
            answers = [threads.submit(ask, server, "POST", f"/hold/{n}/15") for n in range(10)]
            await_held(server, 10)
            ask(server, "GET", "/release")
            for answer in answers:
                answer.result()

    hold_ten()
    wait_until(lambda: ask(server, "GET", "/held")[1] == "0", 10, "nobody waits")
    before = open_files()
    for _ in range(3):
        hold_ten()
    wait_until(lambda: open_files() <= before, 10, f"no more than {before} open files")
