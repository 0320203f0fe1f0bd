"""What is on the admin port and what is then no longer on the first one, and the server of that port by itself."""

import http.client
import re
import socket
import threading
from contextlib import suppress

import falcon.testing
import pytest

from tests.support.api import Api, assert_problem
from todo_api.admin_server import AdminServer
from todo_api.app import create_admin_app, create_app

PROBES = ["/health", "/ready"]
FIGURES = ["/metrics", "/status", "/status.json", "/version"]


@pytest.fixture(scope="module")
def collaborators():
    return Api().collaborators


@pytest.fixture(scope="module")
def first(collaborators):
    return falcon.testing.TestClient(create_app(collaborators, has_admin_port=True))


@pytest.fixture(scope="module")
def admin(collaborators):
    return falcon.testing.TestClient(create_admin_app(collaborators))


@pytest.mark.parametrize("path", [*PROBES, *FIGURES, "/assets/status.js", "/assets/base.css"])
def test_the_admin_port_has_probes_figures_and_what_their_page_loads(admin, path):
    assert admin.simulate_get(path).status_code == 200


@pytest.mark.parametrize("path", ["/todos", "/", "/docs", "/openapi.json"])
def test_the_admin_port_has_nothing_else(admin, path):
    assert_problem(admin.simulate_get(path), 404)


@pytest.mark.parametrize("path", FIGURES)
def test_the_first_port_then_has_no_figures_and_does_not_describe_them(first, path):
    assert_problem(first.simulate_get(path), 404)
    assert path not in first.simulate_get("/openapi.json").json["paths"]


@pytest.mark.parametrize("path", [*PROBES, "/todos", "/", "/docs"])
def test_the_first_port_keeps_everything_else(first, path):
    assert first.simulate_get(path).status_code == 200
    assert path in first.simulate_get("/openapi.json").json["paths"]


def links(answer):
    return re.findall(r'<a [^>]*href="(/[^"]*)"', answer.text)


def test_no_page_leads_where_its_own_port_has_nothing(first, admin):
    for port, pages in ((first, ["/", "/docs", "/problems"]), (admin, ["/status"])):
        for page in pages:
            found = links(port.simulate_get(page, headers={"Accept": "text/html"}))
            assert found, page
            assert {port.simulate_get(path).status_code for path in found} == {200}, page


def test_the_version_is_that_of_the_package(admin):
    answer = admin.simulate_get("/version")
    assert answer.json.keys() == {"name", "version", "python"}
    assert answer.headers["cache-control"] == "no-store"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def served(collaborators, listener):
    """The address of two servers on one socket, as two processes of an instance have them."""
    servers = [AdminServer(create_admin_app(collaborators)) for _ in range(2)]
    for server in servers:
        server.listen_on(listener.dup())
        server.start()
    yield listener.getsockname()
    for server in servers:
        server.stop(5)
    assert not [thread for thread in threading.enumerate() if thread.name == "admin"]


def status(address, path="/health"):
    host, port = address
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_processes_share_the_port_and_a_client_that_says_nothing_holds_nobody_up(served):
    with socket.create_connection(served), socket.create_connection(served):
        assert [status(served) for _ in range(20)] == [200] * 20


def test_what_is_no_request_is_refused_and_the_next_one_answered(served):
    for nonsense in (b"nonsense\r\n\r\n", b"GET /" + b"x" * 70_000, b""):
        with socket.create_connection(served) as client:
            client.settimeout(10)
            client.sendall(nonsense)
            client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while client.recv(65536):
                    pass
    assert status(served) == 200


def test_without_a_socket_nothing_is_served():
    server = AdminServer(lambda _environ, _start_response: [])
    server.start()
    server.stop(1)
