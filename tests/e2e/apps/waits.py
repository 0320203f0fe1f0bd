"""A WSGI application whose writes wait until a read lets them go, as commands wait for their acknowledgement."""

import os
import threading
import time
from contextvars import ContextVar

from todo_api.core.waiting import Wait

HELD: list[Wait] = []
NAME: ContextVar[str] = ContextVar("NAME")


def hold(timeout_s: float) -> bool:
    wait = Wait()
    HELD.append(wait)
    try:
        return wait.until_over(time.monotonic() + timeout_s)
    finally:
        HELD.remove(wait)


def release() -> None:
    for wait in HELD[:]:
        wait.end()


def application(environ, start_response):
    """``POST /hold/<name>/<timeout>`` waits; ``POST /name`` tells what name it finds.

    ``GET /held`` counts those that wait, ``GET /release`` lets them go.
    """
    path, status = environ["PATH_INFO"], "200 OK"
    if path.startswith("/hold/"):
        _, _, name, timeout = path.split("/")
        NAME.set(name)
        was_released = hold(float(timeout))
        if name == "raise":
            raise LookupError("raised for the test")
        status = "200 OK" if was_released else "503 Service Unavailable"
        body = f"{NAME.get()} {environ['REQUEST_METHOD']}"
    elif path == "/name":
        body = NAME.get("nobody")
    elif path == "/held":
        body = str(len(HELD))
    elif path == "/release":
        threading.Thread(target=release).start()
        body = "released"
    else:
        body = str(os.getpid())
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
