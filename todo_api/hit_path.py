"""The shortest way to a page: in front of Falcon, for ``GET /todos`` with a query that is hot, nothing else.

PERF: a hit is two dict look-ups instead of Falcon's router, request and response objects. What it reaches beside nginx
is in docs/benchmarks.md. Everything that is not a hit goes to Falcon, which answers it with
the same lines (page_answer.PageAnswers).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from todo_api.page_table import Entry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class HitPath:
    """A WSGI layer. ``hot`` maps raw query strings to entries of the page table, which changes it as it likes."""

    def __init__(self, app: "WSGIApplication", hot: Mapping[str, Entry]) -> None:
        self._app = app
        self._hot = hot

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if (
            environ["PATH_INFO"] == "/todos"
            and environ["REQUEST_METHOD"] == "GET"
            # Asks for a state that a hot page may not have reached (todo_api/if_applied.py).
            and "HTTP_IF_APPLIED" not in environ
        ):
            entry = self._hot.get(environ.get("QUERY_STRING", ""))
            if entry is not None:
                entry.hits += 1
                answer = entry.answers.choose(
                    environ.get("HTTP_IF_NONE_MATCH"), environ.get("HTTP_ACCEPT_ENCODING")
                )
                if "meinheld.client" in environ:
                    start_response(answer.head, answer.length)
                else:
                    start_response(answer.status, answer.headers)
                return [answer.body]
        return self._app(environ, start_response)
