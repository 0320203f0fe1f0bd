"""The HTTP answer for a page: which variant, which headers, or 304. Pure; knows neither Falcon nor WSGI.

Falcon's resource and the fast path in front of it answer with the same lines. The ETag is weak: the plain and
the compressed variant are equivalent, not byte-identical, so they may share it, and a client that changes its
Accept-Encoding still gets its 304. (Ranges, the one thing that would need a strong one, are not offered.)
"""

import re
from functools import lru_cache
from typing import Final

from todo_api.pages import Page
from todo_api.shortcut import Prepared, prepare

# No cache between us and the client keeps it, and the client asks each time.
PRIVATE: Final = "private, no-cache"
CACHE_CONTROL: Final = "public, max-age=0, s-maxage=1, stale-while-revalidate=5"
# What is in a shared cache may be older than a request with If-Applied asks for: no cache may use it for that.
VARY: Final = "Accept-Encoding, If-Applied"
CONTENT_TYPE: Final = "application/json"

Headers = list[tuple[str, str]]

_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_WEIGHT: Final = re.compile(r"[Qq]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


class Answer:
    """One answer, in three spellings. HEAD leaves the body out.

    ``headers`` are shared by all answers for the page: copy before changing them. ``head`` and ``length`` are for
    meinheld alone: its status line and all headers but Content-Length in one string, and Content-Length by itself.
    ``prepared`` is for its shortcut.
    """

    __slots__ = ("_prepared", "body", "head", "headers", "length", "status")

    def __init__(self, status: str, headers: Headers, body: bytes | None = None) -> None:
        """``body`` None: an answer without one, and without its length."""
        self.length = [] if body is None else [("Content-Length", str(len(body)))]
        self.status = status
        self.headers = headers + self.length
        self.body = body or b""
        # PERF: meinheld encodes each header anew and hands it to writev in four pieces. In one string, which it writes
        # as it is, they take 0.8 us less of 22. (It reads Content-Length, without which it begins a chunked answer.)
        self.head = "\r\n".join([status, *(f"{name}: {value}" for name, value in headers)])
        self._prepared: Prepared | None = None

    def prepared(self) -> Prepared:
        """Return the answer for the shortcut: made when it is first asked for, which copies a long body."""
        if self._prepared is None:
            self._prepared = prepare(self.head, self.body if self.length else None)
        return self._prepared


class PageAnswers:
    """The three answers a page can have, made once, so that a request only chooses."""

    __slots__ = ("_compressed", "_not_modified", "_opaque", "_plain", "not_modified_count")

    def __init__(self, page: Page) -> None:
        always = [
            ("ETag", "W/" + page.etag),
            ("Cache-Control", CACHE_CONTROL if page.key.user_id is None else PRIVATE),
            ("Vary", VARY),
        ]
        if page.age_s > 0:
            # RFC 9211; the negative ttl says how long ago the page ought to have been looked at again.
            always += [("Age", str(page.age_s)), ("Cache-Status", f"todo-api; hit; ttl=-{page.age_s}")]
        described = [*always, ("Content-Type", CONTENT_TYPE)]
        if page.next_after is not None:
            following = page.key.following(page.next_after).query
            described.append(("Link", f'</todos?{following}>; rel="next"'))
        self._opaque = page.etag
        self.not_modified_count = 0
        self._not_modified = Answer("304 Not Modified", always)
        self._plain = Answer("200 OK", described, page.body)
        self._compressed = self._plain
        # Compressing an empty list makes it longer.
        if len(page.gzip_body) < len(page.body):
            self._compressed = Answer("200 OK", [*described, ("Content-Encoding", "gzip")], page.gzip_body)

    def choose(self, if_none_match: str | None, accept_encoding: str | None) -> Answer:
        """Return the answer for a GET with these header values (None: not sent)."""
        if if_none_match is not None and matches(if_none_match, self._opaque):
            self.not_modified_count += 1
            return self._not_modified
        if accept_encoding is not None and accepts_gzip(accept_encoding):
            return self._compressed
        return self._plain


def matches(if_none_match: str, etag: str) -> bool:
    """Say whether an If-None-Match value names ``etag`` (quoted, strong), by weak comparison (RFC 9110 8.8.3.2)."""
    if if_none_match.strip() == "*":
        return True
    return etag in _ENTITY_TAG.findall(if_none_match)


# PERF: clients send a handful of different values; looking one up takes 0.06 us, reading it 2 us.
@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: str) -> bool:
    """Say whether gzip is accepted, and not less than no compression (RFC 9110 section 12.5.3)."""
    weights: dict[str, float] = {}
    for element in accept_encoding.lower().split(","):
        coding, _, parameter = element.partition(";")
        weight = _WEIGHT.fullmatch(parameter.strip()) if parameter.strip() else None
        if parameter.strip() and weight is None:
            continue
        weights[coding.strip()] = float(weight[1]) if weight else 1.0
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
