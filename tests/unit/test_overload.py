import json
import socket
from contextlib import ExitStack
from wsgiref.util import setup_testing_defaults

import pytest

from scripts.stack.server import wait_until
from todo_api.overload import LoadShedder, waited_s

LIMIT_S = 0.5


def answer(age_s, path="/todos", method="POST", served_for_s=60.0, write_wait_s=0.0, **environ):
    """What a request of that age gets: status, headers, body; and what the shedder counted."""
    now = 0.0
    shedder = LoadShedder(
        application,
        age_max_s=LIMIT_S,
        age_of=lambda _: age_s,
        clock=lambda: now,
        write_wait_s=lambda: write_wait_s,
    )
    environ |= {"PATH_INFO": path, "REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    started: list[object] = []

    def start_response(status, headers, _exc_info=None):
        started[:] = [status, dict(headers)]
        return started.append

    # The first one, with which it begins to serve.
    shedder(environ, start_response)
    now += served_for_s
    body = b"".join(shedder(environ, start_response))
    return *started, body, shedder.refused


def application(_environ, start_response):
    start_response("202 Accepted", [])
    return [b"done"]


def test_a_request_that_did_not_wait_long_is_answered_by_the_application():
    assert answer(LIMIT_S) == ("202 Accepted", {}, b"done", 0)


def test_a_request_that_waited_too_long_is_refused_as_a_problem():
    status, headers, body, refused = answer(LIMIT_S + 0.01, HTTP_X_REQUEST_ID="abc")
    assert status == "503 Service Unavailable"
    assert headers["Retry-After"] == "1"
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(body))
    assert headers["X-Request-Id"] == "abc"
    problem = json.loads(body)
    assert (problem["type"], problem["status"], problem["request_id"]) == ("/problems/overloaded", 503, "abc")
    assert refused == 1


def test_a_write_that_would_have_to_wait_too_long_is_refused_and_a_read_is_not():
    assert answer(0.2, write_wait_s=0.3)[0] == "202 Accepted"
    assert answer(0.2, write_wait_s=0.31)[0] == "503 Service Unavailable"
    assert answer(0.2, write_wait_s=0.31, method="GET")[0] == "202 Accepted"


def test_a_request_that_waited_for_the_process_to_start_is_served():
    assert answer(5.0, served_for_s=4.9)[0] == "202 Accepted"
    assert answer(5.0, served_for_s=5.1)[0] == "503 Service Unavailable"


def test_a_refused_head_has_no_body():
    assert answer(9, method="HEAD")[2] == b""


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/status.json"])
def test_who_asks_how_we_are_is_always_answered(path):
    assert answer(9, path, "GET")[0] == "202 Accepted"


def test_without_a_connection_to_ask_a_request_has_not_waited():
    assert waited_s({}) == 0
    ours, theirs = socket.socketpair()  # Unix: the kernel keeps no such time
    with ours, theirs:
        assert waited_s({"gunicorn.socket": ours}) == 0


class Client:
    """What meinheld puts into the environ."""

    def __init__(self, connection):
        self._connection = connection

    def get_fd(self):
        return self._connection.fileno()


@pytest.mark.parametrize("server", ["meinheld", "gunicorn"])
def test_a_request_waits_from_its_last_byte_until_it_is_begun(server):
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        client.sendall(b"GET")
        # Not accepted before it has waited: the kernel counts from when the bytes came.
        connection = stack.enter_context(listener.accept()[0])
        environ = (
            {"meinheld.client": Client(connection)}
            if server == "meinheld"
            else {"gunicorn.socket": connection}
        )
        wait_until(lambda: waited_s(environ) > 0.3, 10, "an age")
        client.sendall(b" / HTTP/1.1")
        wait_until(lambda: waited_s(environ) < 0.2, 10, "young again")
        assert connection.recv(100), "its descriptor is still its own"
