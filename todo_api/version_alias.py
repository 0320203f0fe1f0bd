"""``/v1``: every route under a second path that names the version of the API.

The paths without a version always mean the newest. When there is a ``/v2``, the notice for clients of this one goes
into ``headers`` below, in ``todo_api/app.py``: ``Deprecation`` (RFC 9745), ``Sunset`` (RFC 8594) and a ``Link`` with
``rel="deprecation"`` to what to do. They are then sent with every answer under the prefix and with no other.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The headers whose paths a client follows; it stays in its version.
_LINKING: Final = frozenset({"location", "operation-location", "content-location", "link"})
# A path at the beginning of the value, or in one of the brackets of a Link.
_PATH: Final = re.compile(r"(^|<)(?=/)")

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class VersionAlias:
    """A WSGI layer: takes ``prefix`` off the path, and puts it before the paths in the answer's headers."""

    def __init__(self, app: "WSGIApplication", prefix: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._app = app
        self._prefix = prefix
        self._headers = list(headers)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith(self._prefix + "/"):
            return self._app(environ, start_response)

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
        ) -> Callable[[bytes], Any]:
            return start_response(status, [*map(self._in_version, headers), *self._headers], exc_info)

        # Not SCRIPT_NAME: the application does not know that it is mounted, and needs not.
        return self._app({**environ, "PATH_INFO": path[len(self._prefix) :]}, start)

    def _in_version(self, header: tuple[str, str]) -> tuple[str, str]:
        name, value = header
        return (name, _PATH.sub(rf"\1{self._prefix}", value)) if name.lower() in _LINKING else header
