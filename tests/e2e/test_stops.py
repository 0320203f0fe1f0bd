"""What SIGTERM does to the API and to the worker, and what becomes of what they have in hand."""

import http.client
import signal
import threading
from contextlib import closing

import psutil
import pytest

from scripts.stack.server import wait_until
from tests.support.deployment import Deployment
from tests.support.http_client import LOST, Reply

pytestmark = pytest.mark.faults

HEALED_S = 40
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


@pytest.fixture
def deployment(servers, kind, tmp_path):
    """One API process and a worker of this test's own, which has applied a first todo."""
    with servers.settings(kind) as env, Deployment(tmp_path, env, env["JWT_SECRET"]) as running:
        todo_id = running.client.create(title="first")
        wait_until(lambda: running.client.todo(todo_id) is not None, HEALED_S, "first todo applied")
        yield running


@pytest.mark.parametrize("kind", [KAFKA, "streams"])
def test_sigterm_lets_the_api_finish_the_write_in_flight_and_ends_it_with_0(servers, kind, deployment):
    gunicorn = deployment.gunicorn
    [worker] = gunicorn.worker_pids()
    replies: list[Reply] = []

    def has_a_client() -> bool:
        connections = psutil.Process(worker).net_connections("tcp")
        return any(c.laddr.port == gunicorn.port and c.raddr for c in connections)

    # A frozen log keeps a write in flight: for half a second, in which a busy machine may not come to look.
    servers.log_process(kind).freeze()
    write = threading.Thread(
        target=lambda: replies.append(deployment.client.request("POST", "/todos", {"title": "in flight"}))
    )
    write.start()
    try:
        wait_until(lambda: has_a_client() or replies, HEALED_S, "the write is in flight")
        gunicorn.signal(signal.SIGTERM)
    finally:
        servers.log_process(kind).resume()
        write.join(HEALED_S)

    [reply] = replies
    assert gunicorn.wait(25) == 0
    assert reply.status in (202, 503), reply
    if reply.status == 202:
        todo_id = reply.json()["id"]
        wait_until(lambda: todo_id in [row["id"] for row in deployment.rows()], HEALED_S, "applied")


@pytest.mark.parametrize("kind", ["streams"])
def test_sigterm_makes_the_api_not_ready_at_once(deployment):
    gunicorn = deployment.gunicorn
    # Opened before: new connections may be refused from now on.
    with closing(http.client.HTTPConnection(gunicorn.host, gunicorn.port, timeout=10)) as connection:
        connection.request("GET", "/ready")
        response = connection.getresponse()
        assert (response.status, response.read() != b"") == (200, True)
        gunicorn.signal(signal.SIGTERM)
        wait_until(lambda: not_ready(connection), 25, "not ready")
    assert gunicorn.wait(25) == 0


def not_ready(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/ready")
        response = connection.getresponse()
        response.read()
    except LOST:
        return True
    return response.status == 503


@pytest.mark.parametrize("kind", [KAFKA, "streams"])
def test_sigterm_ends_the_worker_with_0_and_nothing_is_applied_twice_by_the_next(deployment):
    todo_ids = [deployment.client.create(title=f"todo {number}") for number in range(20)]
    assert deployment.worker.stop(25) == 0

    todo_ids += [deployment.client.create(title=f"todo {number}") for number in range(20, 25)]
    deployment.worker.start()

    wait_until(lambda: {row["id"] for row in deployment.rows()} >= set(todo_ids), HEALED_S, "all applied")
    rows = deployment.rows()
    assert len(rows) == 26
    assert {row["version"] for row in rows} == {1}
