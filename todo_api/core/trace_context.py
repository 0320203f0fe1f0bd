"""Where a command came from: the request id and the W3C trace context, from a request into the headers of its record.

https://www.w3.org/TR/trace-context/: ``traceparent`` is ``00-<trace id>-<span id>-<flags>``.
"""

import re
from contextvars import ContextVar
from typing import Final

from todo_api.core.command_log import Headers

REQUEST_ID: Final = "request-id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# APPSEC: what is in the log may have been written by anybody; only this gets into our lines.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")

current: ContextVar[Headers] = ContextVar("of the current request", default=())
"""The request id and the trace context of the request that this thread answers."""


def headers_of(request_id: str, trace: Headers) -> Headers:
    return ((REQUEST_ID, request_id.encode()), *trace)


def trace_headers(traceparent: str | None, tracestate: str | None) -> Headers:
    """Return a trace context as record headers; nothing when it is not well formed."""
    if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
        return ()
    headers: Headers = ((TRACEPARENT, traceparent.encode()),)
    if tracestate is not None and _TRACESTATE.fullmatch(tracestate):
        headers += ((TRACESTATE, tracestate.encode()),)
    return headers


def request_headers(headers: Headers) -> Headers:
    """Return those of them that name the request."""
    return tuple(header for header in headers if header[0] == REQUEST_ID)


def is_sampled(headers: Headers) -> bool:
    """Say whether somebody keeps the trace that a record belongs to."""
    value = dict(headers).get(TRACEPARENT, b"").decode(errors="replace")
    return _TRACEPARENT.fullmatch(value) is not None and int(value[-2:], 16) & 1 == 1


def origin(headers: Headers) -> dict[str, str]:
    """Return ``request_id`` and ``trace_id`` of a record, those of them that it has, for our log."""
    found: dict[str, str] = {}
    for name, value in headers:
        text = value.decode(errors="replace")
        if name == REQUEST_ID and _REQUEST_ID.fullmatch(text):
            found["request_id"] = text
        elif name == TRACEPARENT and (parsed := _TRACEPARENT.fullmatch(text)):
            found["trace_id"] = parsed[1]
    return found
