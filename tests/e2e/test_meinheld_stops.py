"""How our worker class stops: who was there is answered, and who comes finds others. Real processes, real sockets."""

import http.client
import os
import signal
import threading
import time
from contextlib import ExitStack

import pytest

from scripts.stack.server import wait_until
from tests.support.gunicorn import GunicornProcess, is_alive
from tests.support.meinheld import (
    ROOT,
    WORKER,
    await_status,
    connect,
    gunicorns,
    needs_meinheld,
    read_answer,
)

pytestmark = needs_meinheld


@pytest.fixture
def gunicorn(tmp_path):
    with gunicorns(tmp_path) as start:
        yield start


def test_idle_workers_stop_at_once(gunicorn):
    # Seen at the next tick of the loop only, six signals would wait three seconds. So they may on a busy machine, but
    # not each time.
    assert any(six_stops_s(gunicorn) < 1.8 for _ in range(3))


def six_stops_s(gunicorn):
    server = gunicorn(workers=6)
    time.sleep(2.5)  # Idle: the loop has gone round on its own.
    waited_s = 0.0
    for worker in server.worker_pids()[:6]:
        started = time.monotonic()
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: not is_alive(worker), 5, "the worker stops")  # noqa: B023
        waited_s += time.monotonic() - started
    return waited_s


def test_a_changed_file_restarts_the_worker_under_reload(tmp_path):
    (tmp_path / "changing.py").write_text("from tests.e2e.apps.behaviours import application\n")
    arguments = [*WORKER, "--pythonpath", f"{ROOT},{tmp_path}", "--reload", "--reload-engine", "poll"]
    with GunicornProcess([*arguments, "changing:application"], tmp_path) as server:
        (before,) = server.worker_pids()

        def has_left_after_another_change() -> bool:
            (tmp_path / "changing.py").touch()
            return not is_alive(before)

        wait_until(has_left_after_another_change, 15, "the old worker leaves")
        await_status(server)
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_is_stopped_while_it_loads_takes_nobody_with_it(number, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        "pathlib.Path('loading').touch()\n"
        "while not pathlib.Path('go').exists():\n"
        "    time.sleep(0.01)\n"
        "from tests.e2e.apps.behaviours import application\n"
    )
    server = GunicornProcess([*WORKER, "--pythonpath", f"{ROOT},{tmp_path}", "slow:application"], tmp_path)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.launch()
        wait_until((tmp_path / "loading").exists, 15, "it loads")
        (before,) = server.worker_pids()
        os.kill(before, number)
        (tmp_path / "go").touch()
        wait_until(lambda: not is_alive(before), 15, "it leaves")
        await_status(server)
        assert server.stop() == 0


def test_requests_in_flight_finish_and_kept_alive_ones_are_told_to_close(gunicorn):
    server = gunicorn("--keep-alive", "10", "--graceful-timeout", "8")
    with connect(server) as slow, connect(server) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"Connection: Keep-Alive" in read_answer(kept)[0]
        slow.sendall(b"GET /sleep/1.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)  # The request is being answered.
        server.signal(signal.SIGTERM)
        for _ in range(3):  # The master may repeat itself.
            time.sleep(0.1)
            os.kill(server.worker_pids()[0], signal.SIGTERM)
        assert read_answer(slow)[1] == b"ok"
        kept.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        head, body = read_answer(kept)
        assert b"Connection: close" in head
        assert body.isdigit()
        assert kept.recv(1) == b""
    assert server.wait(12) == 0


def test_requests_that_wait_to_be_accepted_when_the_stop_comes_are_answered(gunicorn):
    server = gunicorn("--keep-alive", "60", "--graceful-timeout", "10")
    with connect(server) as slow, ExitStack() as waiting:
        slow.sendall(b"GET /sleep/1.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)  # The request is being answered.
        clients = [waiting.enter_context(connect(server)) for _ in range(30)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        server.signal(signal.SIGTERM)
        assert [read_answer(client)[1] for client in clients] == [b"ok"] * 30
    assert server.wait(12) == 0


def refuses(server: GunicornProcess) -> bool:
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_request_is_answered_that_comes_after_the_stop_on_a_connection_from_before(gunicorn):
    server = gunicorn("--graceful-timeout", "12")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(30)]
        server.signal(signal.SIGTERM)
        wait_until(lambda: refuses(server), 5, "new connections are refused")
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [read_answer(client)[1] for client in clients] == [b"ok"] * 30
    assert server.wait(12) == 0


def test_a_stopping_worker_lets_go_of_its_port_while_it_still_answers_those_it_knows(gunicorn):
    server = gunicorn("--keep-alive", "60", "--graceful-timeout", "12")
    with connect(server) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_answer(kept)
        server.signal(signal.SIGTERM)
        # A connection left waiting would be reset at the end of the process; refused, a proxy tries elsewhere.
        wait_until(lambda: refuses(server), 5, "new connections are refused")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(kept)[1] == b"ok"
    assert server.wait(12) == 0


def test_connections_that_nobody_uses_do_not_hold_up_a_stop(gunicorn):
    server = gunicorn("--keep-alive", "120", "--graceful-timeout", "120")
    with connect(server) as kept, connect(server) as silent:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_answer(kept)
        # No more of graceful_timeout than it takes to see that nobody does.
        assert server.stop(60) == 0
        # No answer to a request that was never sent.
        assert (kept.recv(1), silent.recv(1)) == (b"", b"")
    assert "SIGKILL" not in server.output, "worker_exit had its turn"


def test_a_request_that_does_not_end_holds_the_process_no_longer_than_graceful_timeout(gunicorn):
    server = gunicorn("--keep-alive", "60", "--graceful-timeout", "6")
    with connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        assert server.stop(20) == 0
    assert "SIGKILL" not in server.output, "worker_exit had its turn"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_ends_requests_in_flight(gunicorn, number, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "def worker_exit(server, worker):\n    open('exited', 'w').close()\n"
    )
    server = gunicorn("--graceful-timeout", "20")
    with connect(server) as client:
        client.sendall(b"GET /sleep/15 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        started = time.monotonic()
        server.signal(number)
        assert server.wait(15) == 0
        assert time.monotonic() - started < 8
    assert (tmp_path / "exited").exists()


def test_hooks_run_and_what_worker_exit_writes_is_not_lost(gunicorn, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "import time\n"
        "def post_worker_init(worker):\n"
        "    open('initialised', 'w').close()\n"
        "def worker_exit(server, worker):\n"
        "    with open('exited', 'w') as file:\n"
        "        file.write('written ')\n"
        "        time.sleep(0.3)\n"
        "        for listener in worker.sockets:\n"
        "            listener.close()\n"  # Not to be the number that our file has now.
        "        file.write('late')\n"
        "    worker.log.info('closed everything')\n"
    )
    server = gunicorn()
    assert (tmp_path / "initialised").exists()
    assert server.stop() == 0
    assert (tmp_path / "exited").read_text() == "written late"
    assert "closed everything" in server.output


# Traffic while workers come and go


class Traffic(threading.Thread):
    """Ask over one kept-alive connection after another, at most ``requests_max`` times; count what fails."""

    def __init__(self, server: GunicornProcess, requests_max: int) -> None:
        super().__init__()
        self.server = server
        self.requests_max = requests_max
        self.pids: set[bytes] = set()
        self.done = 0
        self.failures: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        client = http.client.HTTPConnection(self.server.host, self.server.port, timeout=10)
        while not self.enough.is_set() and self.done < self.requests_max:
            try:
                client.request("GET", "/pid")
                response = client.getresponse()
                self.pids.add(response.read())
                if response.status != 200:
                    self.failures.append(str(response.status))
            except (OSError, http.client.HTTPException) as ex:
                self.failures.append(repr(ex))
                client.close()
            self.done += 1
            if self.done % 50 == 0:
                client.close()
        client.close()


def test_a_reload_fails_no_request(gunicorn):
    server = gunicorn("--keep-alive", "5", workers=2)
    before = server.worker_pids()
    clients = [Traffic(server, 100_000) for _ in range(3)]
    for client in clients:
        client.start()
    server.signal(signal.SIGHUP)
    wait_until(lambda: not any(map(is_alive, before)), 20, "the old workers leave")
    served = [client.done for client in clients]
    wait_until(
        lambda: all(c.done > n + 100 for c, n in zip(clients, served, strict=True)), 10, "more traffic"
    )
    for client in clients:
        client.enough.set()
        client.join()
    assert [failure for client in clients for failure in client.failures] == []
    assert len(set().union(*(client.pids for client in clients))) > 2, "old and new workers answered"


def test_max_requests_replaces_workers_without_failing_requests(gunicorn):
    server = gunicorn("--max-requests", "300", "--max-requests-jitter", "100", "--keep-alive", "1", workers=2)
    clients = [Traffic(server, 1000) for _ in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [failure for client in clients for failure in client.failures] == []
    assert "Autorestarting worker" in server.output
    assert len(set().union(*(client.pids for client in clients))) > 2
    assert server.stop() == 0
