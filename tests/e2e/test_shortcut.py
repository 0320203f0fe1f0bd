"""The shortcut past WSGI answers as the ordinary way does, and leaves alone what it must: real gunicorn processes, one
with it and one without, over real sockets.
"""

import importlib.util
import json
import os
import random
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from scripts.stack.server import wait_until
from tests.support.gunicorn import GunicornProcess

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("meinheld") is None,
    reason="meinheld is not installed; it does not build on Python 3.13 and later, where gthread serves",
)

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--worker-class", "todo_api.meinheld_worker.MeinheldWorker", "--pythonpath", str(ROOT)]
APPLICATION = "tests.e2e.apps.hot_pages:application"
LONG_BYTES = 8_000_000


def process(folder: Path, mode: str, *arguments: str) -> GunicornProcess:
    environment = {**os.environ, "SHORTCUT": mode}
    return GunicornProcess(
        [*ARGUMENTS, "--keep-alive", "30", *arguments, APPLICATION], folder, environment
    ).start()


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[tuple[GunicornProcess, GunicornProcess]]:
    """One with the shortcut, one without. Tests leave them as they were."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(process(tmp_path_factory.mktemp(mode), mode)) for mode in ("on", "off")
        ]
        yield started[0], started[1]


def connect(server: GunicornProcess, receive_bytes: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.connect((server.host, server.port))
    return client


def exchange(server: GunicornProcess, *pieces: bytes) -> bytes:
    """Send the pieces and nothing more, and return all that comes, but for what tells the time."""
    with connect(server) as client:
        received = []
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 20):
                received.append(piece)
        except ConnectionError:
            # Hung up on with bytes of ours unread: how much came before is chance.
            received.append(b"(reset)")
    return re.sub(rb"\r\nDate: [^\r]*", b"", b"".join(received))


def ask(server: GunicornProcess, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    with closing(HTTPConnection(server.host, server.port, timeout=20)) as client:
        client.request("GET", target, headers=headers or {})
        answer = client.getresponse()
        return answer.status, answer.read()


def taken(server: GunicornProcess) -> int:
    """How many requests went through the shortcut so far."""
    return int(json.loads(ask(server, "/counts")[1])["taken"])


def get(target: str = "/todos?limit=100", *lines: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, "", ""]).encode("latin-1")


HOST = "Host: a"
PROXIED = (
    HOST, "X-Request-Id: 0197-{}", "X-Forwarded-For: 10.1.2.3", "X-Forwarded-Proto: https", "User-Agent: a/1 (b; c)",
    "Accept: */*", "Authorization: Bearer a.b-c_d", "Cookie: a=1; b=\"2\"",
)  # fmt: skip

SHORT = {
    "the least": get("/todos?limit=100"),
    "a host": get("/todos?limit=100", HOST),
    "no query": get("/todos", HOST),
    "through a proxy": get("/todos?limit=100", *PROXIED),
    "kept alive in words": get("/todos?limit=100", HOST, "Connection: Keep-Alive"),
    "gzip": get("/todos?limit=100", HOST, "Accept-Encoding: gzip, deflate, br"),
    "gzip in a proxy's capitals": get("/todos?limit=100", HOST, "ACCEPT-ENCODING:gzip"),
    "no gzip": get("/todos?limit=100", HOST, "accept-encoding: gzip;q=0, *"),
    "white space around a value": get("/todos?limit=100", "Accept-Encoding: \t gzip\t "),
    "the whole list compressed": get("/todos", HOST, "Accept-Encoding: gzip"),
    "gzip that is longer": get("/todos?limit=1", HOST, "Accept-Encoding: gzip"),
    "not modified": get("/todos?limit=100", HOST, 'If-None-Match: W/"e.1.100"'),
    "not modified, compressed": get("/todos?limit=100", HOST, "If-None-Match: *", "Accept-Encoding: gzip"),
    "modified": get("/todos?limit=100", HOST, 'If-None-Match: "other"'),
    "a range, which is not offered": get("/todos?limit=100", HOST, "Range: bytes=0-1"),
    "a hundred fields": get("/todos?limit=100", *[f"X-{number}: a" for number in range(100)]),
    "nearly 8,000 bytes": get("/todos?limit=100", "X: " + "a" * 7900),
}

ORDINARY = {
    "HEAD": get("/todos?limit=100", HOST, method="HEAD"),
    "another method": get("/todos?limit=100", HOST, method="OPTIONS"),
    "HTTP/1.0": get("/todos?limit=100", HOST, version="1.0"),
    "HTTP/1.0, kept alive": get("/todos?limit=100", HOST, "Connection: keep-alive", version="1.0"),
    "to be closed": get("/todos?limit=100", HOST, "Connection: close"),
    "to be closed by the proxy's word": get("/todos?limit=100", HOST, "Proxy-Connection: close"),
    "two words in Connection": get("/todos?limit=100", HOST, "Connection: keep-alive, close"),
    "a query that is not hot": get("/todos?limit=99", HOST),
    "another order": get("/todos?limit=100&", HOST),
    "an empty query": get("/todos?", HOST),
    "another path": get("/todo?limit=100", HOST),
    "a longer path": get("/todos/?limit=100", HOST),
    "a path in disguise": get("/%74odos?limit=100", HOST),
    "a fragment": get("/todos?limit=100#a", HOST),
    "a whole address": get("http://a/todos?limit=100", HOST),
    "bytes above ASCII in the query": get("/todos?limit=100\xe4", HOST),
    "bytes above ASCII in a value": get("/todos?limit=100", "X: \xe4"),
    "If-Applied": get("/todos?limit=100", HOST, "If-Applied: x"),
    "If_Applied": get("/todos?limit=100", HOST, "if_applied: x"),
    "Accept-Encoding twice": get("/todos?limit=100", "Accept-Encoding: gzip", "Accept_Encoding: br"),
    "If-None-Match twice": get("/todos?limit=100", 'If-None-Match: "a"', 'If-None-Match: W/"e.1.100"'),
    "a length of nothing": get("/todos?limit=100", HOST, "Content-Length: 0"),
    "a body": get("/todos?limit=100", HOST, "Content-Length: 3") + b"abc",
    "a chunked body": get("/todos?limit=100", HOST, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "Expect": get("/todos?limit=100", HOST, "Expect: 100-continue"),
    "Upgrade": get("/todos?limit=100", HOST, "Upgrade: websocket", "Connection: Upgrade"),
    "an empty value": get("/todos?limit=100", "Accept-Encoding:", "X: gzip"),
    "a folded line": get("/todos?limit=100", "X: a", " b"),
    "a folded Accept-Encoding": get("/todos?limit=100", "Accept-Encoding: deflate,", "\tgzip"),
    "a space before the colon": get("/todos?limit=100", "Accept-Encoding : gzip"),
    "no colon": get("/todos?limit=100", "Accept-Encoding"),
    "a line feed alone": get("/todos?limit=100", HOST).replace(b"\r\n", b"\n"),
    "a line feed in a value": get("/todos?limit=100", "X: a\nIf-Applied: x"),
    "a carriage return in a value": get("/todos?limit=100", "X: a\rIf-Applied: x"),
    "a NUL in a value": get("/todos?limit=100", "X: a\0b"),
    "too many fields": get("/todos?limit=100", *[f"X-{number}: a" for number in range(140)]),
    "a long field": get("/todos?limit=100", "X: " + "a" * 9000),
    "no end": get("/todos?limit=100", HOST)[:-2],
    "two at once": get("/todos?limit=100", HOST) * 2,
    "the next one half": get("/todos?limit=100", HOST) + get("/todos?limit=1", HOST)[:-9],
    "empty lines before": b"\r\n\r\n" + get("/todos?limit=100", HOST),
    "two spaces": get("/todos?limit=100 ", HOST),
    "another protocol": get("/todos?limit=100", HOST, version="1.2"),
}


@pytest.mark.parametrize("name", [*SHORT, *ORDINARY])
def test_a_request_is_answered_the_same_on_both_ways(servers, name):
    server, without = servers
    request = SHORT.get(name) or ORDINARY[name]
    before = taken(server)
    answer = exchange(server, request)
    # An upgrade that is refused has no answer at all.
    assert answer or name == "Upgrade"
    assert answer == exchange(without, request)
    assert taken(server) - before == (name in SHORT)
    assert taken(without) == 0


@pytest.mark.parametrize(
    "name", ["through a proxy", "gzip", "not modified", "If-Applied", "a body", "two at once"]
)
def test_a_request_that_comes_byte_by_byte_is_answered_the_same(servers, name):
    request = SHORT.get(name) or ORDINARY[name]
    pieces = [request[at : at + 1] for at in range(len(request))]
    assert exchange(servers[0], *pieces) == exchange(servers[1], request)


def test_requests_that_follow_each_other_on_one_connection_are_all_answered(servers):
    def session(server: GunicornProcess) -> list[bytes]:
        with connect(server) as client, client.makefile("rb") as answers:
            seen = []
            for name in (*SHORT, "HEAD", "two at once", *SHORT, "a body", "a NUL in a value", *SHORT):
                request = SHORT.get(name) or ORDINARY[name]
                client.sendall(request)
                for _ in range(request.count(b"GET ") + request.count(b"HEAD ")):
                    head = b"".join(iter(answers.readline, b"\r\n"))
                    length = re.search(rb"Content-Length: (\d+)", head)
                    has_body = length is not None and not request.startswith(b"HEAD")
                    body = answers.read(int(length[1])) if length and has_body else b""
                    seen.append(re.sub(rb"\r\nDate: [^\r]*", b"", head) + body)
            return seen

    assert session(servers[0]) == session(servers[1])


def test_the_date_is_now(servers):
    def date(server: GunicornProcess, name: str) -> bytes:
        with connect(server) as client:
            client.sendall(SHORT.get(name) or ORDINARY[name])
            found = re.search(rb"\r\nDate: ([^\r]*)", client.recv(65536))
            assert found is not None
            return found[1]

    def is_the_same() -> bool:
        # Unless a second ends in between.
        return date(servers[0], "a host") == date(servers[0], "to be closed")

    wait_until(is_the_same, 5, "both ways have the same date")


def test_what_is_malformed_is_refused_the_same(servers):
    """Thousands of requests with a few bytes changed, cut out, repeated or put in."""
    source = random.Random(4)
    bases = [get("/todos?limit=100", *PROXIED), get("/todos?limit=1", "Accept-Encoding: gzip", HOST)]
    fields = [
        b"Connection: close",
        b"If-Applied: x",
        b"Content-Length: 1",
        b"X:",
        b" a",
        b"Accept-Encoding: br",
    ]
    for _ in range(1500):
        request = bytearray(source.choice(bases))
        for _ in range(source.choice((1, 1, 2, 5))):
            at = source.randrange(len(request))
            what = source.randrange(5)
            if what == 0:
                request[at] = source.choice(b"\r\n\0 :\t#?%-_aZ\x7f\x80\xff" + bytes(source.randbytes(1)))
            elif what == 1:
                del request[at : at + source.choice((1, 1, 2, 30))]
            elif what == 2:
                request[at:at] = source.choice((b"\r\n", b"\n", b" ", b"\r\n\r\n", b":", b"\0"))
            elif what == 3:
                request[at:at] = request[at : at + source.randrange(1, 40)]
            else:
                line = request.find(b"\r\n") + 2
                request[line:line] = source.choice(fields) + b"\r\n"
            request = request or bytearray(b"G")
        sent = bytes(request)
        assert exchange(servers[0], sent) == exchange(servers[1], sent), sent


@pytest.fixture(scope="module", params=["on", "bytes"])
def changing(request, tmp_path_factory) -> Iterator[GunicornProcess]:
    """A server for the tests that change its pages: its bodies sent from files, and as bytes."""
    with process(tmp_path_factory.mktemp("changing"), request.param) as server:
        yield server


def read_whole(client: socket.socket) -> bytes:
    """Return the body of one answer."""
    with client.makefile("rb") as answer:
        head = b"".join(iter(answer.readline, b"\r\n"))
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        body: bytes = answer.read(int(length[1]))
        return body


def files(server: GunicornProcess) -> list[str]:
    """Return what the worker has open, but for what the system opens by itself."""
    (pid,) = server.worker_pids()
    return sorted(os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())


def bodies_in_files(server: GunicornProcess) -> int:
    return sum("memfd:body" in name for name in files(server))


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_slow_readers_hold_up_nobody_and_get_what_they_asked_for(changing, coding):
    expected = ask(changing, "/todos", {"Accept-Encoding": coding})[1]
    assert len(expected) == (LONG_BYTES if coding == "identity" else LONG_BYTES // 2 + 4)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(changing, 4096)) for _ in range(10)]
        for client in slow:
            client.sendall(get("/todos", f"Accept-Encoding: {coding}"))
        for _ in range(50):
            assert ask(changing, "/todos?limit=100")[0] == 200
        # What else he asks meanwhile is answered behind it.
        slow[0].sendall(get("/todos?limit=1"))
        bodies = [read_whole(client) for client in slow[1:]]
        with slow[0].makefile("rb") as answers:
            both = [
                b"".join(iter(answers.readline, b"\r\n")) + answers.read(size) for size in (len(expected), 2)
            ]
        assert [len(body) for body in bodies] == [len(expected)] * 9
        assert set(bodies) == {expected}
        assert both[0].endswith(expected)
        assert b"Content-Length: 2\r\n" in both[1]


def test_a_page_that_is_replaced_is_not_served_again_but_to_those_who_have_begun(changing):
    first = ask(changing, "/todos")[1]
    with connect(changing, 4096) as slow:
        slow.sendall(get("/todos"))
        assert slow.recv(1)
        ask(changing, "/replace")
        second = ask(changing, "/todos")[1]
        assert len(first) == len(second) != 0
        assert first != second
        received = [slow.recv(1 << 20)]
        while sum(map(len, received)) < len(first):
            received.append(slow.recv(1 << 20))
        assert b"".join(received).endswith(first)
    (in_files,) = {bodies_in_files(changing)}
    assert in_files <= 2, "the files of the pages before are closed"


def test_clients_that_go_away_in_the_middle_leave_nothing_open(changing):
    ask(changing, "/todos")
    ask(changing, "/todos", {"Accept-Encoding": "gzip"})
    before = files(changing)
    for _ in range(20):
        with connect(changing, 4096) as client:
            client.sendall(get("/todos"))
            assert client.recv(100)
    wait_until(lambda: len(files(changing)) <= len(before), 10, "the connections are closed")
    assert ask(changing, "/todos?limit=100")[0] == 200


def test_a_page_that_is_dropped_is_not_served_again_but_to_those_who_have_begun(tmp_path):
    with process(tmp_path, "on") as server:
        expected = ask(server, "/todos")[1]
        assert bodies_in_files(server) == 1
        with connect(server, 4096) as slow:
            slow.sendall(get("/todos"))
            assert slow.recv(1)
            ask(server, "/drop")
            before = taken(server)
            assert ask(server, "/todos")[0] == ask(server, "/todos?limit=100")[0] == 404
            assert taken(server) == before
            rest = [slow.recv(1 << 20)]
            while sum(map(len, rest)) < len(expected):
                rest.append(slow.recv(1 << 20))
            assert b"".join(rest).endswith(expected)
        wait_until(lambda: bodies_in_files(server) == 0, 5, "the file is closed")


def test_a_stop_tells_kept_alive_connections_to_close(tmp_path):
    with process(tmp_path, "on", "--graceful-timeout", "8") as server, connect(server) as kept:
        kept.sendall(get("/todos?limit=1"))
        assert b"Connection: Keep-Alive" in kept.recv(65536)
        server.signal(signal.SIGTERM)
        wait_until(lambda: not server.answers(), 5, "new connections are refused")
        kept.sendall(get("/todos?limit=1"))
        last = b"".join(iter(lambda: kept.recv(65536), b""))
        assert b"200 OK" in last
        assert b"Connection: close" in last
        assert server.wait(12) == 0


def test_requests_through_the_shortcut_count_for_max_requests(tmp_path):
    with process(tmp_path, "on", "--max-requests", "40") as server, connect(server) as client:
        # One was the question whether it answers yet.
        for _ in range(38):
            client.sendall(get("/todos?limit=1"))
            assert b"200 OK" in client.recv(65536)
        assert "Autorestarting" not in server.output
        client.sendall(get("/todos?limit=1"))
        assert b"200 OK" in client.recv(65536)
        wait_until(lambda: "Autorestarting" in server.output, 5, "the worker is to be replaced")
