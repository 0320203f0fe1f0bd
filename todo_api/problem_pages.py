"""``/problems`` and ``/problems/{name}``: what a problem's ``type`` leads to, for people and for programs."""

import base64
import hashlib
from html import escape
from typing import Any, Final

import ujson
from falcon import MEDIA_HTML, MEDIA_JSON, Request, Response

from todo_api.problems import NOT_FOUND, PROBLEM_TYPES, Problem, ProblemType

# They change with a release.
_CACHE_CONTROL: Final = "public, max-age=3600"
_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{max-width:42rem;margin:3rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"
_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>{title}</title><style>" + _STYLE.replace("{", "{{").replace("}", "}}") + "</style>"
    "<main><h1>{title}</h1>{contents}</main></html>"
)


class ProblemTypes:
    """``/problems``: every type of problem."""

    def on_get(self, req: Request, resp: Response) -> None:
        kinds = sorted(PROBLEM_TYPES.values())
        items = "".join(
            f'<li>{kind.status} <a href="{kind.uri}">{escape(kind.title)}</a></li>' for kind in kinds
        )
        _answer(req, resp, [_members(kind) for kind in kinds], "Problems", f"<ul>{items}</ul>")

    on_head = on_get


class ProblemTypeItem:
    """``/problems/{name}``: what it means, and what to do about it."""

    def on_get(self, req: Request, resp: Response, name: str) -> None:
        kind = PROBLEM_TYPES.get(name)
        if kind is None:
            raise Problem(NOT_FOUND, "there is no problem of this name; /problems lists them")
        contents = (
            f"<p>Status {kind.status}</p><h2>What it means</h2><p>{escape(kind.meaning)}</p>"
            f'<h2>What to do</h2><p>{escape(kind.fix)}</p><p><a href="/problems">All problems</a></p>'
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
