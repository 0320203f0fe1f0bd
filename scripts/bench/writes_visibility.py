"""How long after its 202 a todo shows up, sampled while something else makes the load."""

import http.client
import json
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

_PAUSE_S: Final = 0.2
_POLL_S: Final = 0.01
# Waiting longer would hold up the end; it counts as this long.
GIVE_UP_S: Final = 30.0


class Visibility:
    """Creates a todo now and then and asks for it until it is there; ``seconds`` holds how long each took.

    Use it as a context manager. On leaving it waits for the todo at hand.
    """

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self.seconds: list[float] = []
        self._port = port
        self._headers = dict(headers)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visibility")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _ex: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=GIVE_UP_S)
        while not self._stopping.is_set():
            body = json.dumps({"title": "When will it show?"})
            status, answer = self._ask(connection, "POST", "/todos", body)
            if status == http.HTTPStatus.ACCEPTED:
                self._wait_for(connection, f"/todos/{json.loads(answer)['id']}")
            self._stopping.wait(_PAUSE_S)
        connection.close()

    def _wait_for(self, connection: http.client.HTTPConnection, path: str) -> None:
        began = time.monotonic()
        while self._ask(connection, "GET", path)[0] != http.HTTPStatus.OK:
            if time.monotonic() - began > GIVE_UP_S:
                break
            time.sleep(_POLL_S)
        self.seconds.append(time.monotonic() - began)

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
    ) -> tuple[int, bytes]:
        try:
            connection.request(method, path, body, self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0, b""
