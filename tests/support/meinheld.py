"""Our worker class under a real gunicorn, with an application of small behaviours, and ways to speak to it."""

import http.client
import importlib.util
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from scripts.stack.server import wait_until
from tests.support.gunicorn import GunicornProcess

ROOT: Final = Path(__file__).parents[2]
APPLICATION: Final = "tests.e2e.apps.behaviours:application"
WORKER: Final = ("--worker-class", "todo_api.meinheld_worker.MeinheldWorker")

needs_meinheld = pytest.mark.skipif(
    importlib.util.find_spec("meinheld") is None,
    reason="meinheld is not installed; it does not build on Python 3.13 and later, where gthread serves",
)


@contextmanager
def gunicorns(folder: Path) -> Iterator[Callable[..., GunicornProcess]]:
    """Yield a function that starts gunicorn with our worker and the arguments given."""
    with ExitStack() as stack:

        def start(*arguments: str, workers: int = 1) -> GunicornProcess:
            process = GunicornProcess([*WORKER, "--pythonpath", str(ROOT), *arguments, APPLICATION], folder)
            stack.callback(process.kill)
            return process.start(workers)

        yield start


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
