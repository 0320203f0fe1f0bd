"""The shortest ways to a page: in front of Falcon, for ``GET /todos`` with a query that is hot, nothing else.

PERF: a hit is two dict look-ups instead of Falcon's router, request and response objects; through meinheld's shortcut
it is not even a WSGI environ, which halves what an answer of 20 KB costs. What they reach beside nginx is in
docs/benchmarks.md. Everything that is not a hit goes to Falcon, which answers it with the same lines
(page_answer.PageAnswers).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from todo_api.page_answer import Answer
from todo_api.page_table import Entry
from todo_api.shortcut import Prepared, Shortcut

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_PATH: Final = "/todos"


class HitPath:
    """A WSGI layer, and a shortcut around all layers.

    ``hot`` maps raw query strings to entries of the page table, which changes it as it likes.
    """

    def __init__(self, app: "WSGIApplication", hot: Mapping[str, Entry]) -> None:
        self._app = app
        self._hot = hot

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] == _PATH and environ["REQUEST_METHOD"] == "GET":
            answer = self._find(
                environ.get("QUERY_STRING", ""),
                environ.get("HTTP_IF_NONE_MATCH"),
                environ.get("HTTP_ACCEPT_ENCODING"),
                environ.get("HTTP_IF_APPLIED"),
            )
            if answer is not None:
                if "meinheld.client" in environ:
                    start_response(answer.head, answer.length)
                else:
                    start_response(answer.status, answer.headers)
                return [answer.body]
        return self._app(environ, start_response)

    @property
    def shortcut(self) -> Shortcut:
        return Shortcut(_PATH, ("if-none-match", "accept-encoding", "if-applied"), self._prepared)

    def _prepared(
        self, query: str, if_none_match: str | None, accept_encoding: str | None, if_applied: str | None
    ) -> Prepared | None:
        answer = self._find(query, if_none_match, accept_encoding, if_applied)
        return None if answer is None else answer.prepared()

    def _find(
        self, query: str, if_none_match: str | None, accept_encoding: str | None, if_applied: str | None
    ) -> Answer | None:
        """Return the answer of a hot page and count it, or None."""
        entry = self._hot.get(query)
        # If-Applied asks for a state that a hot page may not have reached (todo_api/if_applied.py).
        if entry is None or if_applied is not None:
            return None
        entry.hits += 1
        return entry.answers.choose(if_none_match, accept_encoding)
