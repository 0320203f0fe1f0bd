"""The hit path answers what Falcon answers, and only what it may."""

import threading
from collections.abc import Iterator
from typing import Any

import falcon.testing
import pytest

from scripts.stack.server import wait_until
from tests.support.api import Api, page, token
from todo_api.core.errors import StoreUnavailable
from todo_api.core.store import State
from todo_api.cors import Cors
from todo_api.hit_path import HitPath
from todo_api.page_table import PageTable
from todo_api.pages import Page, PageKey, Refresh


class States:
    """What the watcher learns; None is silence, an error is Redis and PostgreSQL away."""

    def __init__(self) -> None:
        self.now: State | None = State("e", 7)

    def learn(self, known: State | None) -> State | None:
        if self.now is None:
            raise StoreUnavailable("away")
        return self.now


class Source:
    """Pages without a store."""

    def __init__(self) -> None:
        self.fetched: list[PageKey] = []

    def fetch(self, key: PageKey, wanted: State | None) -> Page:
        self.fetched.append(key)
        return page(key=key, next_after="x" * 48)

    def refresh(self, key: PageKey, wanted: State, _held: State) -> Refresh:
        return Refresh(self.fetch(key, wanted), 0.0)

    def forget(self, key: PageKey) -> None:
        pass

    def build(self, key: PageKey) -> Page:
        return self.fetch(key, None)


class Rig:
    def __init__(self) -> None:
        self.states = States()
        self.source = Source()
        self.table = PageTable(
            self.states, self.source, poll_s=0.005, pages_max=8, bytes_max=10**6, stale_max_s=60.0
        )
        self.falcon = Api(pages=self.table).app  # type: ignore[arg-type]
        self.reached_falcon = 0
        self.app = HitPath(self._counted, self.table.hot)

    def _counted(self, environ: Any, start_response: Any) -> Any:
        self.reached_falcon += 1
        return self.falcon(environ, start_response)

    def hit(self, query: str = "limit=10", method: str = "GET", **headers: str) -> tuple[Any, ...]:
        return call(self.app, query, method, headers)


def call(
    app: Any, query: str, method: str, headers: dict[str, str], **extras: object
) -> tuple[str, dict[str, str], bytes]:
    environ = falcon.testing.create_environ(
        path="/todos",
        query_string=query,
        method=method,
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )
    environ.update(extras)
    answered: list[Any] = []
    body = b"".join(app(environ, lambda status, headers, *_: answered.append((status, headers))))
    ((status, raw_headers),) = answered
    return status, {name.lower(): value for name, value in raw_headers}, body


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.table.start()
    wait_until(lambda: rig.table._learned_at > 0, 5, "first state")
    call(rig.falcon, "limit=10", "GET", {})
    call(rig.falcon, "", "GET", {})
    yield rig
    rig.table.stop(5)


REQUESTS: list[dict[str, str]] = [
    {},
    {"Accept_Encoding": "gzip"},
    {"Accept_Encoding": "gzip;q=0"},
    {"Accept_Encoding": "br, *;q=0.1"},
    {"If_None_Match": "*"},
    {"If_None_Match": 'W/"e.7.abc"'},
    {"If_None_Match": '"other", "e.7.abc"', "Accept_Encoding": "gzip"},
    {"If_None_Match": '"other"'},
]


@pytest.mark.parametrize("query", ["", "limit=10"])
@pytest.mark.parametrize("headers", REQUESTS, ids=str)
def test_a_hit_is_answered_as_falcon_answers_it(rig: Rig, query: str, headers: dict[str, str]) -> None:
    status, named, body = call(rig.falcon, query, "GET", headers)
    assert rig.hit(query, **headers) == (status, named, body)
    assert rig.reached_falcon == 0


@pytest.mark.parametrize("headers", REQUESTS, ids=str)
def test_under_meinheld_the_same_answer_is_spelled_as_it_writes_it(rig: Rig, headers: dict[str, str]) -> None:
    status, named, body = call(rig.falcon, "limit=10", "GET", headers)
    head, length, sent = call(rig.app, "limit=10", "GET", headers, **{"meinheld.client": object()})
    first, *lines = head.split("\r\n")
    written = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)} | length
    assert (first, written, sent) == (status, named, body)
    assert set(length) == ({"content-length"} if body else set())
    assert rig.reached_falcon == 0


@pytest.mark.parametrize(
    ("query", "method", "status"),
    [
        ("limit=10", "HEAD", "200 OK"),
        ("limit=10", "POST", "401 Unauthorized"),
        ("limit=10", "DELETE", "405 Method Not Allowed"),
        ("limit=10&limit=10", "GET", "400 Bad Request"),
        ("limit=010", "GET", "400 Bad Request"),
        ("limit=11", "GET", "200 OK"),
        ("x=1&limit=10", "GET", "200 OK"),
    ],
)
def test_everything_else_goes_to_falcon(rig: Rig, query: str, method: str, status: str) -> None:
    assert rig.hit(query, method)[0] == status
    assert rig.reached_falcon == 1


def test_a_request_with_if_applied_goes_to_falcon(rig: Rig) -> None:
    assert rig.hit(If_Applied="x")[0] == "401 Unauthorized"
    assert rig.reached_falcon == 1


def test_a_list_of_ones_own_is_never_hot(rig: Rig) -> None:
    authorization = {"Authorization": f"Bearer {token()}"}
    for reached in (1, 2):
        status, headers, _ = rig.hit("limit=10&user=me", **authorization)
        assert (status, headers["cache-control"]) == ("200 OK", "private, no-cache")
        assert rig.reached_falcon == reached


def test_behind_cors_a_hit_carries_its_headers_also_under_meinheld(rig: Rig) -> None:
    app = Cors(rig.app, ["https://app.example"])
    headers = {"Origin": "https://app.example"}
    status, named, body = call(app, "limit=10", "GET", headers, **{"meinheld.client": object()})
    assert (status, rig.reached_falcon) == ("200 OK", 0)
    assert named["access-control-allow-origin"] == "https://app.example"
    assert named["vary"] == "Accept-Encoding, If-Applied, Origin"
    assert body == rig.hit("limit=10")[2]


def test_a_page_is_hot_after_its_first_request(rig: Rig) -> None:
    rig.hit("limit=42")
    rig.hit("limit=42")
    assert rig.reached_falcon == 1


def test_a_new_state_is_shown_and_a_page_in_use_stays_hot(rig: Rig) -> None:
    fetched = len(rig.source.fetched)
    rig.hit()
    rig.states.now = State("e", 8)
    wait_until(lambda: len(rig.source.fetched) > fetched, 5, "refresh")
    assert rig.hit()[0] == "200 OK"
    assert rig.reached_falcon == 0


def test_with_nothing_learned_for_a_while_falcon_answers_with_the_age(rig: Rig) -> None:
    rig.states.now = None
    wait_until(lambda: not rig.table.hot, 10, "no hot pages")
    assert rig.hit()[0] == "200 OK"
    assert rig.reached_falcon == 1
    rig.states.now = State("e", 7)
    wait_until(lambda: rig.table.hot, 5, "hot again")
    rig.hit()
    assert rig.reached_falcon == 1


def test_every_answer_is_in_the_figures_once(rig: Rig) -> None:
    before = rig.table.figures()
    for _ in range(5):
        rig.hit("limit=10")
    for _ in range(3):
        rig.hit("limit=10", If_None_Match="*")
    rig.hit("limit=10", "HEAD")
    rig.hit("limit=77")
    after = rig.table.figures()
    assert after.hits - before.hits == 9
    assert after.unrouted - before.unrouted == 8
    assert after.unrouted_not_modified - before.unrouted_not_modified == 3
    assert after.misses - before.misses == 1
    assert after.pages == 3
    assert after.page_bytes > 1500


def test_the_counts_of_a_page_outlive_it(rig: Rig) -> None:
    for limit in range(1, 40):
        rig.hit(f"limit={limit}")
        rig.hit(f"limit={limit}", If_None_Match="*")
    after = rig.table.figures()
    assert after.pages <= 8
    assert after.unrouted == after.unrouted_not_modified == 39
    assert after.hits == 39


def test_hits_from_many_threads_while_the_state_moves_are_all_answered(rig: Rig) -> None:
    statuses: list[str] = []

    def ask() -> None:
        statuses.extend(rig.hit("limit=10")[0] for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for generation in range(8, 28):
        rig.states.now = State("e", generation)
    for thread in threads:
        thread.join()
    assert set(statuses) == {"200 OK"}
    assert len(statuses) == 800


@pytest.mark.parametrize("headers", REQUESTS, ids=str)
def test_the_shortcut_has_the_same_answer(rig: Rig, headers: dict[str, str]) -> None:
    head, length, body = call(rig.app, "limit=10", "GET", headers, **{"meinheld.client": object()})
    values = [headers.get(name) for name in ("If_None_Match", "Accept_Encoding", "If_Applied")]
    assert rig.app.shortcut.names == ("if-none-match", "accept-encoding", "if-applied")
    lines = "".join(f"{name.title()}: {value}\r\n" for name, value in length.items()).encode()
    assert rig.app.shortcut.answer("limit=10", *values) == (head.encode(), lines, body)


def test_the_shortcut_has_no_answer_to_what_is_not_hot_or_asks_for_a_state(rig: Rig) -> None:
    before = rig.table.figures()
    assert rig.app.shortcut.answer("limit=11", None, None, None) is None
    assert rig.app.shortcut.answer("limit=10", None, None, "x") is None
    assert rig.table.figures().hits == before.hits
    assert rig.app.shortcut.answer("limit=10", "*", None, None) is not None
    after = rig.table.figures()
    assert after.hits == before.hits + 1
    assert after.unrouted_not_modified == before.unrouted_not_modified + 1
