"""What our worker class promises of life, answers and requests, asked of real gunicorn processes over real sockets."""

import http.client
import json
import os
import resource
import signal
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from scripts.stack.server import wait_until
from tests.support.gunicorn import GunicornProcess, is_alive
from tests.support.meinheld import (
    APPLICATION,
    ROOT,
    WORKER,
    await_status,
    connect,
    exchange,
    get,
    gunicorns,
    needs_meinheld,
    read_answer,
)

pytestmark = needs_meinheld


@pytest.fixture
def gunicorn(tmp_path):
    with gunicorns(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One worker, for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("gunicorn")
    arguments = [*WORKER, "--pythonpath", str(ROOT), "--keep-alive", "5", APPLICATION]
    with GunicornProcess(arguments, folder) as process:
        yield process
        assert process.stop() == 0


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


# Many connections


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
