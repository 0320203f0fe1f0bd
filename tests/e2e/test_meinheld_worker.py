"""What our worker class promises, asked of real gunicorn processes over real sockets."""

import http.client
import importlib.util
import json
import os
import resource
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from scripts.stack.server import wait_until
from tests.support.gunicorn import GunicornProcess, is_alive

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("meinheld") is None,
    reason="meinheld is not installed; it does not build on Python 3.13 and later, where gthread serves",
)

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.e2e.apps.behaviours:application"
WORKER = ("--worker-class", "todo_api.meinheld_worker.MeinheldWorker")


@pytest.fixture
def gunicorn(tmp_path):
    """Return a function that starts gunicorn with our worker and the arguments given."""
    with ExitStack() as stack:

        def start(*arguments: str, workers: int = 1) -> GunicornProcess:
            process = GunicornProcess([*WORKER, "--pythonpath", str(ROOT), *arguments, APPLICATION], tmp_path)
            stack.callback(process.kill)
            return process.start(workers)

        yield start


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One worker, for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("gunicorn")
    arguments = [*WORKER, "--pythonpath", str(ROOT), "--keep-alive", "5", APPLICATION]
    with GunicornProcess(arguments, folder) as process:
        yield process
        assert process.stop() == 0


def get(server: GunicornProcess, path: str, timeout_s: float = 10) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=timeout_s)) as client:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read()


def connect(server: GunicornProcess, timeout_s: float = 10) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout_s)


def exchange(server: GunicornProcess, request: bytes) -> bytes:
    """Send bytes as they are and return all that comes until the server hangs up."""
    with connect(server) as client:
        client.sendall(request)
        received = b""
        while piece := client.recv(65536):
            received += piece
        return received


def read_answer(client: socket.socket) -> tuple[bytes, bytes]:
    """Read one answer that has a Content-Length. Returns head and body."""
    with client.makefile("rb") as file:
        head = b"".join(iter(file.readline, b"\r\n"))
        length = next(line for line in head.splitlines() if line.startswith(b"Content-Length"))
        return head, file.read(int(length.partition(b":")[2]))


def await_status(server: GunicornProcess, path: str = "/", timeout_s: float = 10) -> None:
    def answered() -> bool:
        try:
            return get(server, path)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_until(answered, timeout_s, f"{path} answers again")


# Life and death


def test_the_start_names_the_worker_class(server):
    assert "Using worker: todo_api.meinheld_worker.MeinheldWorker" in server.output


def test_a_killed_worker_is_replaced_and_the_master_lives(gunicorn):
    server = gunicorn()
    for _ in range(2):
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not is_alive(worker) and server.worker_pids(), 10, "a new worker")  # noqa: B023
        await_status(server)
    assert "was sent SIGKILL" in server.output
    assert server.stop() == 0


def test_fields_behind_a_body_are_refused_and_end_no_process(server):
    """meinheld as it was released reads them through a null pointer (scripts/meinheld/install.py)."""
    pids = server.worker_pids()
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for behind in (b"X-Behind: 1\r\n", b"Content-Length: 5\r\nHost: b\r\n", b"X" * 9000 + b": 1\r\n"):
        received = exchange(server, head + b"2\r\nhi\r\n0\r\n" + behind + b"\r\n")
        assert received.startswith(b"HTTP/1.1 400 ") or received.startswith(b"HTTP/1.0 400 "), received
    await_status(server)
    assert server.worker_pids() == pids


def test_a_worker_that_exits_non_zero_is_replaced_and_the_master_lives(gunicorn):
    server = gunicorn()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(server, "/exit/7")
    await_status(server)
    assert "exited with code 7" in server.output
    assert server.stop() == 0


def test_a_request_beyond_the_timeout_is_ended_and_its_worker_replaced(gunicorn):
    server = gunicorn("--timeout", "2")
    (stuck,) = server.worker_pids()
    started = time.monotonic()
    assert get(server, "/sleep/20", 15)[0] == 500
    assert time.monotonic() - started < 15
    wait_until(lambda: not is_alive(stuck), 10, "the stuck worker ends")
    await_status(server)
    assert "WORKER TIMEOUT" in server.output
    assert "behaviours.py" in server.output, "the traceback says where it was stuck"
    assert server.stop() == 0


def test_an_idle_worker_is_not_taken_for_a_stuck_one(gunicorn):
    server = gunicorn("--timeout", "2")
    workers = server.worker_pids()
    with connect(server):
        time.sleep(4.5)  # Long enough for the master to have ended a worker that reports nothing.
    assert server.worker_pids() == workers
    assert "WORKER TIMEOUT" not in server.output


def test_workers_leave_when_the_master_is_killed(gunicorn):
    server = gunicorn(workers=2)
    workers = server.worker_pids()
    server.signal(signal.SIGKILL)
    server.wait(5)
    wait_until(lambda: not any(map(is_alive, workers)), 10, "orphans leave")
    assert "Parent changed" in server.output


# Stopping


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


def test_five_thousand_open_connections_do_not_kill_it(gunicorn):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5300:
        pytest.skip(f"this user may open only {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        server = gunicorn("--keep-alive", "60")
        workers = server.worker_pids()
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(5000)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for client in clients:
                assert read_answer(client)[1] == b"ok"
            assert get(server, "/")[0] == 200
            clients[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_answer(clients[0])[1] == b"ok"
        assert server.worker_pids() == workers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_can_open_no_more_files_says_so_and_is_replaced(gunicorn):
    server = gunicorn("--keep-alive", "60", "--graceful-timeout", "2")
    (worker,) = server.worker_pids()
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (40, 40))
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(server)).sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: not is_alive(worker), 15, "the worker leaves")
    await_status(server)
    assert "Too many open files" in server.output
    assert server.stop() == 0


def test_background_threads_run_while_the_loop_waits(server):
    first = int(get(server, "/ticks")[1])
    wait_until(lambda: int(get(server, "/ticks")[1]) > first + 20, 10, "a thread ticks")


# Answers


def test_a_client_that_reads_slowly_gets_all_of_a_large_answer_and_holds_up_nobody(server):
    size = 32_000_000
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((server.host, server.port))
        slow.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
        assert slow.recv(4) == b"HTTP"
        slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)  # Sent ahead: their turn comes afterwards.
        assert get(server, "/", 5)[0] == 200
        with slow.makefile("rb") as file:
            for body in (b"0123456789abcdef" * (size // 16), b"ok", b"ok"):
                b"".join(iter(file.readline, b"\r\n"))
                assert file.read(len(body)) == body
    assert get(server, "/")[0] == 200


def test_a_slow_reader_does_not_keep_the_loop_busy(server):
    (worker,) = server.worker_pids()

    def cpu_s() -> float:
        fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((server.host, server.port))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # A kept-alive connection, which the loop watches.
        read_answer(slow)
        slow.sendall(b"GET /bytes/32000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.recv(1)
        slow.sendall(b"more")
        slow.shutdown(socket.SHUT_WR)
        get(server, "/")
        before = cpu_s()
        time.sleep(1.5)
        assert cpu_s() - before < 0.7


def test_a_stopping_worker_waits_for_slow_readers(gunicorn):
    server = gunicorn("--graceful-timeout", "15")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(15)
        slow.connect((server.host, server.port))
        slow.sendall(b"GET /bytes/32000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.recv(1)
        get(server, "/")
        server.signal(signal.SIGTERM)
        time.sleep(1.5)
        length = sum(len(piece) for piece in iter(lambda: slow.recv(1 << 20), b""))
    assert length > 32_000_000
    assert server.wait(15) == 0


def test_a_large_answer_keeps_its_connection(server):
    with connect(server) as client:
        for _ in range(2):
            client.sendall(b"GET /bytes/320000 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert len(read_answer(client)[1]) == 320_000


def test_head_204_304_and_streams_are_framed_so_that_the_connection_goes_on(server):
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=10)) as client:
        client.connect()
        first_socket = client.sock
        for method, path, status in [
            ("HEAD", "/bytes/64000", 200),
            ("GET", "/status/204", 204),
            ("GET", "/status/304", 304),
            ("GET", "/stream", 200),
            ("GET", "/", 200),
        ]:
            client.request(method, path)
            response = client.getresponse()
            body = response.read()
            assert response.status == status
            assert body == (b"ok" if path in ("/stream", "/") else b"")
        assert client.sock is first_socket


def test_requests_sent_ahead_are_answered_in_order(server):
    request = b"GET /bytes/%d HTTP/1.1\r\nHost: a\r\n\r\n"
    with connect(server) as client:
        client.sendall(b"".join(request % (16 * n) for n in range(1, 101)))
        with client.makefile("rb") as file:
            for n in range(1, 101):
                head = b"".join(iter(file.readline, b"\r\n"))
                assert b"Content-Length: %d\r\n" % (16 * n) in head
                assert len(file.read(16 * n)) == 16 * n


def test_an_error_of_the_application_is_a_500_and_one_line_with_its_traceback(server):
    before = server.output.count("raised for the test")
    assert get(server, "/raise")[0] == 500
    assert get(server, "/")[0] == 200
    assert server.output.count("LookupError: raised for the test") == before + 1
    assert "[ERROR] Error handling request" in server.output


def test_a_client_that_resets_is_no_error(server):
    errors = server.output.count("[ERROR]")
    for request in (b"GET /bytes/32000000", b"GET /sleep/0.2", b"POST /echo"):
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(request + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
            client.sendall(b"0123456789" if request.startswith(b"GET") else b"01")
        assert get(server, "/")[0] == 200
    assert server.output.count("[ERROR]") == errors


def test_a_request_to_change_the_protocol_spoils_no_request_of_another(server):
    requests = [
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ]
    for request in requests * 5:
        assert b" 400 " in exchange(server, request)[:20]
        assert get(server, "/")[0] == 200


# Requests


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def test_bodies_arrive_whole_with_a_length_or_in_chunks(server):
    body = os.urandom(1_500_000)
    with connect(server) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert read_answer(client)[1] == body
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(chunked(body[:7], body[7:70_000], body[70_000:]))
        assert read_answer(client)[1] == body


def test_a_body_beyond_the_limit_is_refused_with_413(server):
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    assert b" 413 " in exchange(server, head % (2 * 1024 * 1024 + 1))[:20]


def test_expect_100_continue_is_answered(server):
    with connect(server) as client:
        client.sendall(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi"
        )
        with client.makefile("rb") as file:
            assert file.readline().startswith(b"HTTP/1.1 100")
            assert file.readline() == b"\r\n"
            assert file.readline().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Content-Length: 3\r\nContent-Length: 4",
        b"Content-Length: +3",
        b"Content-Length: -3",
        b"Content-Length : 3",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"X: " + b"a" * 9000,
        b"\r\n".join(b"X-%d: 1" % n for n in range(200)),
    ],
)
def test_ambiguous_and_oversized_heads_are_refused_and_the_connection_closed(server, head):
    received = exchange(server, b"POST /echo HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n0\r\n\r\n")
    assert b" 400 " in received[:20]
    assert received.count(b"HTTP/1.") == 1


@pytest.mark.parametrize("chunk", [b"zz\r\nab\r\n", b"2\r\nabc\r\n", b"-1\r\n\r\n"])
def test_a_bad_chunk_is_refused_and_the_connection_closed(server, chunk):
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = exchange(server, head + chunk + b"0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 400 " in received[:20]
    assert received.count(b"HTTP/1.") == 1


def test_a_path_is_percent_decoded_once(server):
    """meinheld as it was released does it twice (scripts/meinheld/install.py)."""
    with connect(server) as client:
        client.sendall(b"GET /%65nviron HTTP/1.1\r\nHost: a\r\n\r\n")
        assert json.loads(read_answer(client)[1])["PATH_INFO"] == "/environ"
        client.sendall(b"GET /%2565nviron HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(client)[1] == b"ok", "a path that the application does not know"


def test_the_environ_has_the_traps_that_the_worker_documents(server):
    with connect(server) as first, socket.socket() as second:
        first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_answer(first)
        second.bind(("127.0.0.9", 0))
        second.connect((server.host, server.port))
        second.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_answer(second)
        first.sendall(b"GET /environ HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\n\r\n")
        environ = json.loads(read_answer(first)[1])
    assert environ["HTTP_X_FORWARDED_FOR"] == "1"
    assert environ["REMOTE_ADDR"] == "127.0.0.9"
    assert "QUERY_STRING" not in environ
