"""What a client is answered while a server is killed, frozen or away; that nothing is lost is for tests/faults."""

import time

import pytest

from scripts.stack.server import wait_until
from tests.support.deployment import Deployment
from tests.support.http_client import Reply, Todo

pytestmark = pytest.mark.faults

HEALED_S = 40
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


@pytest.fixture(scope="module", params=[KAFKA, "streams"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def running(servers, kind, tmp_path_factory):
    """One API process and a worker."""
    with (
        servers.settings(kind) as env,
        Deployment(tmp_path_factory.mktemp(kind), env, env["JWT_SECRET"]) as running,
    ):
        yield running


@pytest.fixture
def deployment(servers, running):
    """They, whole: what was written is applied and listed."""
    servers.mend()
    last = assert_writes_come_back(running)
    wait_until(lambda: last in [todo["id"] for todo in listed(running)], HEALED_S, "listed")
    return running


def listed(deployment: Deployment) -> list[Todo]:
    reply = deployment.client.get("/todos")
    assert reply.status == 200, reply
    todos: list[Todo] = reply.json()
    return todos


def timed(deployment: Deployment, method: str, path: str, contents: object = None) -> tuple[Reply, float]:
    began = time.monotonic()
    reply = deployment.client.request(method, path, contents)
    return reply, time.monotonic() - began


def assert_refused_for_now(reply: Reply, took_s: float) -> None:
    assert reply.status == 503
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.json()["status"] == 503
    # The promise is 2 s; a loaded machine may take longer, but nobody waits for a driver's patience.
    assert took_s < 5


def assert_writes_come_back(deployment: Deployment) -> str:
    """Wait until a write is acknowledged, and applied; return the id of its todo."""
    ids: list[str] = []

    def is_accepted() -> bool:
        reply = deployment.client.request("POST", "/todos", {"title": "after"})
        assert reply.status in (202, 503), reply
        ids.extend([reply.json()["id"]] if reply.status == 202 else [])
        return bool(ids)

    wait_until(is_accepted, HEALED_S, "writes accepted")
    wait_until(lambda: deployment.client.todo(ids[0]) is not None, HEALED_S, "writes applied")
    return ids[0]


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_the_log_writes_are_refused_and_reads_go_on_until_it_is_back(servers, kind, deployment, how):
    log = servers.log_process(kind)
    log.kill() if how == "killed" else log.freeze()

    assert_refused_for_now(*timed(deployment, "POST", "/todos", {"title": "refused"}))
    assert_refused_for_now(*timed(deployment, "POST", "/todos", {"title": "refused again"}))
    for path in ("/todos", "/todos?limit=10", f"/todos/{listed(deployment)[0]['id']}"):
        reply, took_s = timed(deployment, "GET", path)
        assert reply.status == 200
        assert took_s < 5

    servers.mend()
    assert_writes_come_back(deployment)


def test_without_the_database_writes_are_accepted_and_applied_once_it_is_back(servers, deployment):
    before = listed(deployment)
    servers.process("postgres").kill()

    todo_ids = [deployment.client.create(title=f"meanwhile {number}") for number in range(5)]
    assert listed(deployment) == before

    def noticed() -> bool:
        reply = deployment.client.get("/ready")
        # All instances share the database: without it none may leave the balancer.
        assert reply.status == 200, reply
        return bool(reply.json()["dependencies"]["postgres"]["state"] == "down")

    # Longer than the processes need to notice: the page is still the last one, not an error.
    wait_until(noticed, HEALED_S, "noticed")
    assert listed(deployment) == before

    servers.mend()
    wait_until(lambda: {t["id"] for t in listed(deployment)} >= set(todo_ids), HEALED_S, "all of them listed")
    assert [t["title"] for t in listed(deployment)] == [
        *(f"meanwhile {n}" for n in range(4, -1, -1)),
        *(t["title"] for t in before),
    ]


@pytest.mark.parametrize("kind", [KAFKA], indirect=True)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_redis_reads_and_writes_go_on(servers, deployment, how):
    valkey = servers.process("valkey")
    valkey.kill() if how == "killed" else valkey.freeze()

    todo_id = deployment.client.create(title="meanwhile")
    wait_until(
        lambda: todo_id in [todo["id"] for todo in listed(deployment)], HEALED_S, "listed without Redis"
    )
    assert deployment.client.get("/todos?limit=10").status == 200

    servers.mend()
    assert_writes_come_back(deployment)
