"""A WSGI application of small behaviours, each at a path of its own, to try a gunicorn worker with."""

import json
import os
import threading
import time

TICKS = 0


def _tick() -> None:
    global TICKS
    while True:
        time.sleep(0.01)
        TICKS += 1


threading.Thread(target=_tick, daemon=True).start()


def application(environ, start_response):
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    status, body = "200 OK", b"ok"
    if path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/ticks":
        body = str(TICKS).encode()
    elif path == "/environ":
        body = json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()
    elif path == "/echo":
        body = environ["wsgi.input"].read()
    elif path.startswith("/sleep/"):
        time.sleep(float(path.removeprefix("/sleep/")))
    elif path.startswith("/exit/"):
        os._exit(int(path.removeprefix("/exit/")))
    elif path.startswith("/bytes/"):
        body = b"0123456789abcdef" * (int(path.removeprefix("/bytes/")) // 16)
    elif path == "/raise":
        raise LookupError("raised for the test")
    elif path.startswith("/status/"):
        start_response(f"{path.removeprefix('/status/')} Nothing", [("ETag", '"1"')])
        return []
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    if path == "/stream":
        return iter([b"o", b"k"])
    return [] if method == "HEAD" else [body]
