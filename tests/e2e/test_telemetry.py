"""What a running instance tells about itself: two API processes and a worker, as started in production."""

import pytest

from scripts.stack.server import wait_until
from tests.support.deployment import Deployment, kill_process

PROCESSES = 2


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    with (
        servers.settings("streams") as env,
        Deployment(tmp_path_factory.mktemp("telemetry"), env, env["JWT_SECRET"], PROCESSES) as running,
    ):
        yield running


def status(deployment):
    reply = deployment.client.get("/status.json")
    assert reply.status == 200
    assert reply.headers["Cache-Control"] == "no-store"
    return reply.json()


def test_the_status_counts_the_requests_of_all_processes(deployment):
    before = status(deployment)
    for _ in range(40):
        assert deployment.client.get("/todos?limit=10").status == 200
    # Each on a new connection, so both processes had some; one of them tells of all within half a second.
    wait_until(
        lambda: status(deployment)["list_requests_total"] == before["list_requests_total"] + 40,
        10,
        "40 list requests counted",
    )
    after = status(deployment)
    assert after["page_hits_total"] >= before["page_hits_total"] + 40 - PROCESSES
    assert after["requests_total"] >= before["requests_total"] + 40
    assert after["processes"] == PROCESSES


def test_the_status_follows_a_write_through_the_log(deployment):
    todo_id = deployment.client.create(title="counted")
    wait_until(lambda: deployment.client.todo(todo_id) is not None, 20, "applied")

    def is_caught_up():
        found = status(deployment)
        return found["lag_commands"] == 0 and found["applied_age_s"] is not None

    wait_until(is_caught_up, 20, "lag and age known")
    found = status(deployment)
    assert 0 <= found["applied_delay_s"] < 60
    assert found["applied_age_s"] < 60
    wait_until(lambda: status(deployment)["generation"] >= 1, 10, "generation")
    assert found["epoch"]
    assert found["breaker"] == "closed"
    assert found["ready"]["ready"] is True


def test_a_killed_process_takes_no_count_with_it_and_its_gauges_are_gone(deployment):
    for _ in range(10):
        deployment.client.get("/todos?limit=11")
    wait_until(lambda: status(deployment)["processes"] == PROCESSES, 10, "all there")
    before = status(deployment)
    victim = deployment.gunicorn.worker_pids()[0]
    kill_process(victim)

    def is_replaced():
        pids = deployment.gunicorn.worker_pids()
        return victim not in pids and len(pids) == PROCESSES and status(deployment)["processes"] == PROCESSES

    wait_until(is_replaced, 30, "another process")
    after = status(deployment)
    for total in ("requests_total", "list_requests_total", "page_hits_total"):
        assert after[total] >= before[total]
