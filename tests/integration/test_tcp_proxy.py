"""The proxy of the fault suite: it passes bytes on, late, only half, or not at all when it should."""

import socket
import socketserver
import threading
import time
from contextlib import suppress

import pytest

from scripts.stack.server import wait_until
from tests.support.tcp_proxy import TcpProxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        with suppress(ConnectionError):
            while data := self.request.recv(1000):
                self.request.sendall(data)


@pytest.fixture
def proxy():
    """In front of a server that answers each piece of data with the same."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        with TcpProxy(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), 10)


def test_it_passes_everything_on_and_what_it_delays_is_late(proxy):
    with connect(proxy) as client:
        client.sendall(b"at once")
        assert client.recv(1000) == b"at once"
        proxy.delay_s = 0.05
        began = time.monotonic()
        client.sendall(b"late")
        assert client.recv(1000) == b"late"
        assert time.monotonic() - began >= 0.1


def test_it_cuts_an_answer_in_the_middle_and_heals(proxy):
    proxy.is_cutting = True
    with connect(proxy) as client:
        client.sendall(b"12345678")
        assert client.recv(1000) == b"1234"
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
    assert proxy.cuts == 1
    proxy.heal()
    with connect(proxy) as client:
        client.sendall(b"whole")
        assert client.recv(1000) == b"whole"


def test_it_swallows_everything_keeps_connections_and_heals(proxy):
    with connect(proxy) as old:
        old.sendall(b"before")
        assert old.recv(1000) == b"before"
        proxy.swallow()
        old.sendall(b"swallowed")
        with connect(proxy) as new:
            new.sendall(b"from a new one")
            for client in (old, new):
                client.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    client.recv(1000)
                client.settimeout(10)
            proxy.heal()
            assert old.recv(1000) == b"swallowed"
            assert new.recv(1000) == b"from a new one"


def test_it_swallows_in_one_direction(proxy):
    with connect(proxy) as client:
        proxy.swallow(requests=False)
        client.sendall(b"arrives")
        wait_until(lambda: proxy.round_trips == 1, 10, "asked")
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1000)
        proxy.swallow(answers=False)
        client.settimeout(10)
        assert client.recv(1000) == b"arrives"


def test_it_counts_round_trips(proxy):
    with connect(proxy) as client:
        for _ in range(3):
            client.sendall(b"question")
            assert client.recv(1000) == b"question"
    assert proxy.round_trips == 3


def test_a_target_that_is_away_hangs_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with TcpProxy(port) as proxy, connect(proxy) as client, suppress(ConnectionResetError):
        assert client.recv(1000) == b""
