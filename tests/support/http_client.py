"""The smallest HTTP client that the end-to-end tests need: a new connection each time, nothing hidden."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jwt

Todo = dict[str, Any]

LOST = (OSError, http.client.HTTPException)
"""What is raised when no complete answer came: whether the request took effect is unknown."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks to one API as one user. Raises one of ``LOST`` when there is no answer within ``timeout_s``."""

    def __init__(self, host: str, port: int, secret: str, user: str = "ann", timeout_s: float = 10.0) -> None:
        self._host = host
        self._port = port
        self._secret = secret
        self._timeout_s = timeout_s
        now = int(time.time())
        self.token = jwt.encode({"sub": user, "iat": now, "exp": now + 3600}, secret, algorithm="HS256")

    def as_user(self, user: str) -> "Client":
        return Client(self._host, self._port, self._secret, user, self._timeout_s)

    def request(
        self, method: str, path: str, contents: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send ``contents`` as JSON (None: no body), with the user's token unless ``headers`` has another."""
        sent = {"Authorization": f"Bearer {self.token}", "Connection": "close"} | dict(headers or {})
        body = None
        if contents is not None:
            body = json.dumps(contents)
            sent["Content-Type"] = "application/json"
        with closing(
            http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        ) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        """GET with headers given as keywords (``if_none_match`` is If-None-Match)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, headers=named)

    def create(self, **contents: object) -> str:
        """Create a todo, check that it was accepted, and return its id."""
        reply = self.request("POST", "/todos", contents)
        assert reply.status == 202, reply
        todo_id: str = reply.json()["id"]
        return todo_id

    def todo(self, todo_id: str) -> Todo | None:
        """Return the todo, or None when there is no such todo (yet)."""
        reply = self.get(f"/todos/{todo_id}")
        assert reply.status in (200, 404), reply
        return reply.json() if reply.status == 200 else None

    def walk(self, path: str) -> Iterator[list[Todo]]:
        """Yield the page at ``path`` and all that follow by their Link headers."""
        following: str | None = path
        while following is not None:
            reply = self.get(following)
            assert reply.status == 200, reply
            yield reply.json()
            following = next_page(reply)


def next_page(reply: Reply) -> str | None:
    """Return the target of ``Link: <...>; rel="next"``, or None."""
    link = reply.headers["Link"]
    if link is None:
        return None
    target, _, relation = link.partition(">")
    assert relation.strip() == '; rel="next"', link
    return str(target.removeprefix("<"))
