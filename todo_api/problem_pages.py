"""``/problems`` and ``/problems/{name}``: what a problem's ``type`` leads to, for people and for programs."""

from html import escape
from typing import Any, Final

import ujson
from falcon import MEDIA_HTML, MEDIA_JSON, Request, Response

from todo_api.problems import NOT_FOUND, PROBLEM_TYPES, Problem, ProblemType

# They change with a release.
_CACHE_CONTROL: Final = "public, max-age=3600"
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>{title} · Todos</title>
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="/assets/base.css">
    <link rel="stylesheet" href="/assets/problems.css">
  </head>
  <body>
    <header class="bar"><h1>{title}</h1></header>
    <main class="card">{contents}</main>
    <footer>
      <nav aria-label="More of this service"><a href="/problems">All problems</a><a href="/docs">API</a></nav>
    </footer>
  </body>
</html>
"""


class ProblemTypes:
    """``/problems``: every type of problem."""

    def on_get(self, req: Request, resp: Response) -> None:
        kinds = sorted(PROBLEM_TYPES.values())
        items = "".join(
            f'<li><span class="status">{kind.status}</span> <a href="{kind.uri}">{escape(kind.title)}</a></li>'
            for kind in kinds
        )
        _answer(
            req, resp, [_members(kind) for kind in kinds], "Problems", f'<ul class="problems">{items}</ul>'
        )

    on_head = on_get


class ProblemTypeItem:
    """``/problems/{name}``: what it means, and what to do about it."""

    def on_get(self, req: Request, resp: Response, name: str) -> None:
        kind = PROBLEM_TYPES.get(name)
        if kind is None:
            raise Problem(NOT_FOUND, "there is no problem of this name; /problems lists them")
        contents = (
            f'<p class="status">Status {kind.status}</p><h2>What it means</h2><p>{escape(kind.meaning)}</p>'
            f"<h2>What to do</h2><p>{escape(kind.fix)}</p>"
        )
        _answer(req, resp, _members(kind), kind.title, contents)

    on_head = on_get


def _members(kind: ProblemType) -> dict[str, Any]:
    return {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "meaning": kind.meaning,
        "fix": kind.fix,
    }


def _answer(req: Request, resp: Response, members: object, title: str, contents: str) -> None:
    resp.set_header("Cache-Control", _CACHE_CONTROL)
    resp.set_header("Vary", "Accept")
    # JSON unless the client would rather have HTML, as browsers do.
    if req.client_prefers((MEDIA_JSON, MEDIA_HTML)) == MEDIA_HTML:
        resp.content_type = MEDIA_HTML
        resp.set_header("Content-Security-Policy", _POLICY)
        resp.text = _PAGE.format(title=escape(title), contents=contents)
    else:
        resp.data = ujson.dumps(members, escape_forward_slashes=False).encode()
