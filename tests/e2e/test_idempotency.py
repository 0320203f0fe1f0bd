"""Idempotency keys and If-Match as a client sees them, over real processes that are restarted."""

import pytest
import redis

from scripts.stack.server import wait_until
from tests.support.deployment import Deployment
from tests.support.http_client import Client, Reply

pytestmark = [pytest.mark.kafka]
APPLIED_S = 30


def send(client: Client, method: str, path: str, contents: object = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = client.request(method, path, contents, named)
    assert reply.status == 202, reply
    return reply


def outcome(client: Client, reply: Reply) -> tuple[str, int | None]:
    """Wait until the write is done; return its status, and the status of the problem if it was rejected."""
    operation: dict[str, object] = {}

    def is_done() -> bool:
        operation.update(client.get(reply.headers["Operation-Location"]).json())
        return operation["status"] != "pending"

    wait_until(is_done, APPLIED_S, "the operation is done")
    problem = operation.get("problem")
    return str(operation["status"]), problem["status"] if isinstance(problem, dict) else None


@pytest.fixture(scope="module")
def restarted(servers, tmp_path_factory):
    """All processes new and Redis empty, after a create with a key; and what that was answered."""
    with servers.settings("kafka") as env:
        with Deployment(tmp_path_factory.mktemp("before"), env, env["JWT_SECRET"]) as running:
            first = send(running.client, "POST", "/todos", {"title": "once"}, idempotency_key='"k1"')
            assert outcome(running.client, first) == ("applied", None)
        with redis.Redis.from_url(env["REDIS_URL"]) as valkey:
            valkey.flushall()
        with Deployment(tmp_path_factory.mktemp("after"), env, env["JWT_SECRET"]) as running:
            yield running, first


@pytest.fixture
def client(restarted):
    return restarted[0].client


def test_a_create_with_a_key_happens_once_over_restarts_and_the_loss_of_redis(restarted, client):
    deployment, first = restarted
    again = send(client, "POST", "/todos", {"title": "once"}, idempotency_key="k1")
    other = send(client, "POST", "/todos", {"title": "another"}, idempotency_key="k1")
    bobs = send(client.as_user("bob"), "POST", "/todos", {"title": "once"}, idempotency_key="k1")
    assert outcome(client, again) == ("applied", None)
    assert outcome(client, other) == ("rejected", 422)
    assert outcome(client.as_user("bob"), bobs) == ("applied", None)
    assert first.json()["id"] == again.json()["id"] != bobs.json()["id"]
    mine = [
        row for row in deployment.rows() if row["title"] in ("once", "another") and row["user_id"] == "ann"
    ]
    assert [(row["id"], row["title"], row["version"]) for row in mine] == [(first.json()["id"], "once", 1)]


def test_a_key_is_one_request_whatever_the_method_and_the_todo(client):
    todos = [send(client, "POST", "/todos", {"title": f"todo {n}"}).json()["id"] for n in range(8)]
    changes = [
        send(client, "PATCH", f"/todos/{todo}", {"title": "x"}, idempotency_key="k2") for todo in todos
    ]
    deletion = send(client, "DELETE", f"/todos/{todos[0]}", idempotency_key="k2")

    outcomes = [outcome(client, reply) for reply in changes]

    # Which one is first is for the partitions to say.
    assert sorted(outcomes) == [("applied", None)] + [("rejected", 422)] * 7
    assert outcome(client, deletion) == ("rejected", 422)


def test_a_change_to_a_version_that_is_no_more_is_rejected(client):
    created = send(client, "POST", "/todos", {"title": "milk"})
    assert outcome(client, created) == ("applied", None)
    path = f"/todos/{created.json()['id']}"
    etag = client.get(path).headers["ETag"]

    mine = send(client, "PUT", path, {"title": "oat milk"}, if_match=etag)
    theirs = send(client, "PUT", path, {"title": "cheese"}, if_match=f'"other", {etag}')
    weak = send(client, "DELETE", path, if_match=f"W/{etag}")

    assert outcome(client, mine) == ("applied", None)
    assert outcome(client, theirs) == ("rejected", 412)
    assert outcome(client, weak) == ("rejected", 412)
    assert client.get(path).json()["title"] == "oat milk"
    assert client.get(path, if_none_match=etag).status == 200
    assert outcome(client, send(client, "DELETE", path, if_match="*")) == ("applied", None)
    assert client.todo(created.json()["id"]) is None
