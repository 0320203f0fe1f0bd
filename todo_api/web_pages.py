"""The pages for people: the todo page and what it loads, from memory, with validators and a strict policy.

Everything lies in ``todo_api/web`` as it is served: no build step, no template, nothing from another host.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, NamedTuple, Self

import falcon
from falcon import Request, Response
from isal import isal_zlib

from todo_api.page_answer import accepts_gzip, matches
from todo_api.problems import NOT_FOUND, Problem

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGES: Final = {"/": "todos.html", "/docs": "docs.html", "/status": "status.html"}
# What shows figures goes where those are (todo_api/instance.py).
FIGURE_PAGES: Final = frozenset({"/status"})
PUBLIC_PAGES: Final = frozenset(_PAGES) - FIGURE_PAGES
# APPSEC: a page holds a token of its user, so it runs no script but ours, loads nothing from elsewhere, sends nothing
# elsewhere, cannot be framed, and no text can become markup or script (trusted types). Nothing inline is allowed.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
# Swagger UI makes its own markup and styles, and brings its pictures with it. It still loads nothing from elsewhere.
_DOCS_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
}
_GZIP_MEMBER: Final = 31  # zlib's window bits for a gzip header and trailer


class WebFile(NamedTuple):
    """One file as it is answered. ``gzip_body`` is shorter than ``body``, or None."""

    content_type: str
    body: bytes
    gzip_body: bytes | None
    headers: Mapping[str, str]
    etag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> Self:
        """Return the answer for a file of this name. Raises KeyError for an ending that we do not serve."""
        compressed = isal_zlib.compress(body, 3, _GZIP_MEMBER)
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        ending = name[name.rindex(".") :]
        headers = {
            # One variant serves all clients that revalidate (see page_answer on weak tags).
            "ETag": "W/" + etag,
            "Vary": "Accept-Encoding",
            # Kept, and asked for each time: after an upgrade nobody runs yesterday's script on today's page.
            "Cache-Control": "no-cache",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        if ending == ".html":
            headers |= _PAGE_HEADERS
            headers["Content-Security-Policy"] = _DOCS_POLICY if name == "docs.html" else _POLICY
        return cls(_TYPES[ending], body, compressed if len(compressed) < len(body) else None, headers, etag)

    def answer(self, req: Request, resp: Response) -> None:
        """Answer a GET or HEAD with the file, or 304."""
        resp.set_headers(dict(self.headers))
        if_none_match = req.get_header("If-None-Match")
        if if_none_match is not None and matches(if_none_match, self.etag):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = self.content_type
        if self.gzip_body is not None and accepts_gzip(req.get_header("Accept-Encoding") or ""):
            resp.set_header("Content-Encoding", "gzip")
            resp.data = self.gzip_body
        else:
            resp.data = self.body


class WebPage:
    """One page at a path of its own."""

    def __init__(self, file: WebFile) -> None:
        self._file = file

    def on_get(self, req: Request, resp: Response) -> None:
        self._file.answer(req, resp)

    on_head = on_get


class WebAssets:
    """``/assets/{name}``: scripts, styles and pictures of the pages."""

    def __init__(self, files_by_name: Mapping[str, WebFile]) -> None:
        self._files = files_by_name

    def on_get(self, req: Request, resp: Response, name: str) -> None:
        # APPSEC: a look-up among what was read at the start; the name never reaches a file system.
        file = self._files.get(name)
        if file is None:
            raise Problem(NOT_FOUND, "there is no such file")
        file.answer(req, resp)

    on_head = on_get


def add_web_pages(app: falcon.App[Any, Any], paths: Collection[str]) -> None:
    """Give these pages of ``todo_api/web`` their paths, and what they load theirs.

    Blocks for some milliseconds, the first time in a process.
    """
    web = _web_files()
    for path in sorted(paths):
        app.add_route(path, WebPage(web[_PAGES[path]]))
    assets = {name: file for name, file in web.items() if name not in _PAGES.values()}
    app.add_route("/assets/{name:path}", WebAssets(assets))


@cache
def _web_files() -> Mapping[str, WebFile]:
    # PERF: nine tenths of what making an app costs, and the tests make thousands of them in one process.
    return {name: WebFile.of(name, body) for name, body in _read(files("todo_api") / "web")}


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        # What stands beside the files of others (licences, where they are from) is not served.
        elif entry.name[entry.name.rfind(".") :] in _TYPES:
            yield prefix + entry.name, entry.read_bytes()
