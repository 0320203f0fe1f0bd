"""Cross-origin requests (the Fetch standard's CORS protocol): which web pages may use this API from a browser.

A WSGI layer in front of all others, so that prepared answers of the hit path carry the headers too; it is there only
when origins are allowed. Falcon's own middleware would see only what reaches Falcon.
"""

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ANY_ORIGIN: Final = "*"
# What a page may read of an answer, beyond the handful that every page may.
EXPOSED_HEADERS: Final = (
    "Age", "Allow", "Cache-Status", "Deprecation", "ETag", "Link", "Location", "Operation-Location", "RateLimit",
    "RateLimit-Policy", "Retry-After", "Sunset", "WWW-Authenticate", "X-Request-Id",
)  # fmt: skip
_EXPOSE: Final = ("Access-Control-Expose-Headers", ", ".join(EXPOSED_HEADERS))
# What a page may send, beyond the handful that every page may.
ALLOWED_HEADERS: Final = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Applied", "If-Match", "If-None-Match", "Traceparent",
    "Tracestate", "X-Request-Id",
)  # fmt: skip
# Browsers keep a preflight's answer at most this long (Firefox a day, Chromium two hours).
_PREFLIGHT_MAX_AGE_S: Final = 86_400

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Cors:
    """Lets pages from ``origins`` (or any, with ``*``) read answers.

    There is no ``Access-Control-Allow-Credentials``: this API knows no cookies, and a token that the page sends
    itself needs none. Requests from other origins are answered as ever; it is the browser that keeps the answer back.
    """

    def __init__(self, app: "WSGIApplication", origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._any = ANY_ORIGIN in self._origins

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN", "")
        added: list[tuple[str, str]] = []
        is_preflight = False
        if origin in self._origins or (self._any and origin):
            added = [("Access-Control-Allow-Origin", ANY_ORIGIN if self._any else origin), _EXPOSE]
            is_preflight = (
                environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
            )

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
        ) -> Callable[[bytes], Any]:
            more = _preflight(headers) if is_preflight else []
            answered = headers if self._any else _varying(headers)
            return start_response(status, [*answered, *added, *more], exc_info)

        # Without its key the hit path does not pack headers into the status line, where we would not see them.
        return self._app({name: value for name, value in environ.items() if name != "meinheld.client"}, start)


def _varying(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers with Origin in Vary, or a shared cache would give an answer made for one origin to another.

    On answers to requests without an origin too: caches keep those as well. One line: older proxies read the last.
    """
    vary = [value for name, value in headers if name.lower() == "vary"]
    others = [header for header in headers if header[0].lower() != "vary"]
    return [*others, ("Vary", ", ".join([*vary, "Origin"]))]


def _preflight(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what the answer to OPTIONS lacks for a preflight; the methods are those that it says work here."""
    allowed = [value for name, value in headers if name.lower() == "allow"]
    if not allowed:
        return []
    return [
        ("Access-Control-Allow-Methods", ", ".join(allowed)),
        ("Access-Control-Allow-Headers", ", ".join(ALLOWED_HEADERS)),
        ("Access-Control-Max-Age", str(_PREFLIGHT_MAX_AGE_S)),
    ]
