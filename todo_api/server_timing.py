"""How long an answer took, and those parts of it that wait for a server, told to the client: ``Server-Timing``.

https://www.w3.org/TR/server-timing/. Browsers show it with each request. What is answered from memory has none.

APPSEC: off unless asked for. It tells everybody how busy the servers behind the API are.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from falcon import Request, Response

Target = TypeVar("Target")

_BEGAN: Final = "server_timing_began"
# Seconds by part, of the request that is being answered here.
_parts: ContextVar[dict[str, float] | None] = ContextVar("parts of the current request", default=None)


class ServerTiming:
    """A middleware: ``total`` is the time since Falcon had the request, beside it are the parts of ``timed``."""

    def process_request(self, req: Request, _resp: Response) -> None:
        req.context[_BEGAN] = time.perf_counter()
        _parts.set({})

    def process_response(self, req: Request, resp: Response, _resource: object, _succeeded: bool) -> None:
        began: float = req.context[_BEGAN] or 0.0
        parts = {"total": time.perf_counter() - began} | (_parts.get() or {})
        _parts.set(None)
        resp.set_header(
            "Server-Timing", ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts.items())
        )


def timed(part: str, target: Target, *methods: str) -> Target:
    """Return something that is used like ``target``; what these methods take is added to ``part`` of the request."""
    proxy: Any = _Proxy(target)
    for name in methods:
        setattr(proxy, name, _timed(part, getattr(target, name)))
    return proxy  # type: ignore[no-any-return]


class _Proxy:
    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments, **options)
        finally:
            parts = _parts.get()
            if parts is not None:
                parts[part] = parts.get(part, 0.0) + time.perf_counter() - began

    return call
