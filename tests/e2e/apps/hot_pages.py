"""The hit path over pages that only change when told to. The environment's SHORTCUT: ``on``, ``off``, or ``bytes``,
in which no body is sent from a file.

``/counts`` says how many requests were answered through the shortcut. ``/replace`` shows the next generation of all
pages, ``/drop`` takes them out of the table.
"""

import json
import os
import random
from collections.abc import Iterable
from typing import Any

import todo_api.shortcut
from todo_api.hit_path import HitPath
from todo_api.page_table import Entry
from todo_api.pages import Page, PageKey
from todo_api.shortcut import Prepared, Shortcut

_MODE = os.environ["SHORTCUT"]
if _MODE == "bytes":
    todo_api.shortcut.FILE_MIN_BYTES = 1 << 30  # type: ignore[misc]
# More than the sockets' buffers hold.
_LONG_BYTES = 8_000_000
_SIZES = {None: _LONG_BYTES, 100: 20_000, 1: 2}


def _page(limit: int | None, generation: int) -> Page:
    source = random.Random(f"{limit} {generation}")
    size = _SIZES[limit]
    body, gzip_body = source.randbytes(size), source.randbytes(size // 2 + 4)
    return Page(PageKey(limit), "e", generation, body, gzip_body, f'"e.{generation}.{limit}"', "c" * 48)


class HotPages:
    def __init__(self) -> None:
        self._generation = 1
        self._hot = {page.key.query: Entry(page, 0.0) for page in self._pages()}
        self._taken = 0
        self._hit_path = HitPath(self._other, self._hot)
        path, names, self._answer = self._hit_path.shortcut
        self.shortcut = Shortcut(path, names, self._counted) if _MODE != "off" else None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._hit_path(environ, start_response)

    def _pages(self) -> Iterable[Page]:
        return (_page(limit, self._generation) for limit in _SIZES)

    def _counted(self, *values: str | None) -> Prepared | None:
        answer = self._answer(*values)
        self._taken += answer is not None
        return answer

    def _other(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body, status = b"", "200 OK"
        if environ["PATH_INFO"] == "/counts":
            body = json.dumps({"taken": self._taken}).encode()
        elif environ["PATH_INFO"] == "/drop":
            self._hot.clear()
        elif environ["PATH_INFO"] == "/replace":
            self._generation += 1
            for page in self._pages():
                self._hot[page.key.query].show(page)
        else:
            status = "404 Not Found"
            # All that came of the request: both ways must make the same of it.
            sent = [
                f"{k}={v}" for k, v in environ.items() if k.startswith(("HTTP_", "QUERY", "REQUEST", "PATH"))
            ]
            body = "\n".join(sorted(sent)).encode("latin-1")
        start_response(status, [("Content-Length", str(len(body)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


application = HotPages()
