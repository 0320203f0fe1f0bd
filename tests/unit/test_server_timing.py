import re
from dataclasses import replace
from typing import Any

import pytest
from falcon.testing import TestClient

from config.settings import load_settings
from tests.support.api import OPERATION_IDS, Api, token
from todo_api.app import build, create_app
from todo_api.core.command_log import Position
from todo_api.core.errors import LogUnavailable
from todo_api.write_path import WritePath

OPERATION = OPERATION_IDS.encode(Position("memory:todo-commands", 0, 0), "alice")


@pytest.fixture
def api() -> Api:
    return Api()


def parts(api: Api, method: str, path: str, **options: Any) -> dict[str, float]:
    """What the answer says with ``SERVER_TIMING=on``: milliseconds by part."""
    client = TestClient(create_app(replace(api.collaborators, has_server_timing=True)))
    answer = client.simulate_request(
        method, path, headers={"Authorization": f"Bearer {token('alice')}"}, **options
    )
    said = answer.headers["server-timing"]
    assert re.fullmatch(r"[a-z]+;dur=\d+\.\d(, [a-z]+;dur=\d+\.\d)*", said)
    return {name: float(value) for name, value in re.findall(r"([a-z]+);dur=([\d.]+)", said)}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/todos", {"total", "log"}),
        ("POST", "/todos/batch", {"total", "log"}),
        ("GET", "/todos?limit=5", {"total", "pages"}),
        ("GET", "/todos/01890a5d-ac96-774b-bcce-b302099a8057", {"total", "db"}),
        ("GET", f"/operations/{OPERATION}", {"total", "db"}),
        ("GET", "/nowhere", {"total"}),
    ],
)
def test_an_answer_tells_what_it_waited_for(api: Api, method: str, path: str, expected: set[str]) -> None:
    bodies = {"/todos": {"title": "milk"}, "/todos/batch": {"items": [{"action": "create", "title": "milk"}]}}
    found = parts(api, method, path, json=bodies.get(path))
    assert set(found) == expected
    assert all(found["total"] >= value for value in found.values())


def test_a_refusal_tells_it_too_and_the_next_answer_begins_at_nothing(api: Api) -> None:
    api.publisher.failure = LogUnavailable("away")
    assert set(parts(api, "POST", "/todos", json={"title": "milk"})) == {"total", "log"}
    assert set(parts(api, "GET", "/nowhere")) == {"total"}


def test_nothing_is_told_unless_it_is_asked_for(api: Api) -> None:
    assert "server-timing" not in api.send("POST", "/todos", '{"title": "milk"}').headers


def test_with_it_writes_go_through_falcon(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(WritePath, "__init__", lambda *_arguments, **_options: made.append("write path"))
    environment = {"DATABASE_URL": "postgresql://db/todo", "JWT_SECRET": "0123456789abcdef" * 2}
    for setting, expected in (("on", []), ("off", ["write path"])):
        build(load_settings("api", environment | {"SERVER_TIMING": setting}))
        assert made == expected
