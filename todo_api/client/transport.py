"""Requests that are sent again while the API is away, until a deadline. Knows HTTP and problems, no todos."""

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry, Timeout, parse_url

from todo_api.client.errors import ApiProblem, TodoClientError, Unavailable, Unreachable, problem

_CONNECT_S: Final = 2.0
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_NEXT: Final = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
# Reads the two forms of Retry-After; we count and wait ourselves, because it has no deadline for all attempts.
_RETRY: Final = Retry(0)


class Answer(NamedTuple):
    """An answer of 2xx; ``contents`` is the value of its JSON."""

    headers: Mapping[str, str]
    contents: Any

    @property
    def retry_after_s(self) -> float | None:
        return _retry_after_s(self.headers)

    @property
    def next_path(self) -> str | None:
        """The target of ``Link: <...>; rel="next"``."""
        found = _NEXT.search(self.headers.get("Link", ""))
        return found[1] if found else None


class Backoff:
    """The waits between attempts: twice as long each time, at random up to that (so that clients spread), bounded."""

    def __init__(self, deadline_s: float) -> None:
        self._ends_at = time.monotonic() + deadline_s
        self._ceiling_s = _BACKOFF_FIRST_S

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())

    def wait(self, retry_after_s: float | None) -> bool:
        """Sleep, ``retry_after_s`` at least, and return True; return False at once if the deadline comes first."""
        delay_s = max(retry_after_s or 0.0, random.uniform(self._ceiling_s / 2, self._ceiling_s))  # noqa: S311
        self._ceiling_s = min(self._ceiling_s * 2, _BACKOFF_MAX_S)
        if delay_s >= self.left_s:
            return False
        time.sleep(delay_s)
        return True


class Transport:
    """Speaks JSON to one API. Threads may share it."""

    def __init__(self, base_url: str, token: str | Callable[[], str] | None, *, timeout_s: float) -> None:
        url = parse_url(base_url)
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ValueError(f"the URL of the API must be http(s)://host[:port][/path], not {base_url!r}")
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(maxsize=8, headers={"User-Agent": "todo-api-client"})

    def close(self) -> None:
        self._pool.clear()

    def request(
        self,
        method: str,
        path: str,
        *,
        contents: object = None,
        headers: Mapping[str, str] | None = None,
        deadline_s: float,
    ) -> Answer:
        """Send one request, with ``contents`` as JSON unless it is None, and return its answer of 2xx.

        While the API is away or busy it is sent again, so writes must carry a key. Blocks ``deadline_s`` at most.
        Raises Unreachable, the kinds of ApiProblem, and TodoClientError for an answer that is not this API's.
        """
        backoff = Backoff(deadline_s)
        while True:
            try:
                return self._attempt(method, path, contents, headers or {}, backoff.left_s)
            except (Unreachable, Unavailable) as ex:
                retry_after_s = ex.retry_after_s if isinstance(ex, ApiProblem) else None
                if not backoff.wait(retry_after_s):
                    raise

    def _attempt(
        self, method: str, path: str, contents: object, headers: Mapping[str, str], left_s: float
    ) -> Answer:
        sent = {"Accept": "application/json", "Accept-Encoding": "gzip", **headers}
        token = self._token() if callable(self._token) else self._token
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        body = None
        if contents is not None:
            body = json.dumps(contents, ensure_ascii=False).encode()
            sent["Content-Type"] = "application/json"
        bound_s = max(0.001, min(self._timeout_s, left_s))
        try:
            response = self._pool.request(
                method,
                self._url(path),
                body=body,
                headers=sent,
                retries=False,
                redirect=False,
                timeout=Timeout(connect=min(_CONNECT_S, bound_s), total=bound_s),
            )
        except HTTPError as ex:
            raise Unreachable(f"{method} {path}: {ex}") from ex
        if response.status >= 300:
            raise problem(response.status, _members(response.data), _retry_after_s(response.headers))
        try:
            return Answer(response.headers, json.loads(response.data))
        except ValueError as ex:
            raise TodoClientError(f"{method} {path}: the answer is not JSON; is this the API?") from ex

    def _url(self, path: str) -> str:
        # APPSEC: a path from a Link or Operation-Location stays on our host; the token goes nowhere else.
        if not path.startswith("/") or path.startswith("//"):
            raise TodoClientError(f"the API refers to {path!r}, which is no path of its own")
        return self._base_url + path


def _members(data: bytes) -> Mapping[str, Any]:
    """Return the members of a problem; none when something in between answered."""
    try:
        members = json.loads(data)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return float(_RETRY.parse_retry_after(value))
    except InvalidHeader:
        return None
