"""What a running instance tells about itself: two API processes and a worker, as started in production."""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts.stack.server import free_port, wait_until
from tests.support.deployment import INHERITED, ROOT, Deployment, kill_process
from tests.support.http_client import Client
from todo_api import api_metrics
from todo_worker import worker_metrics

PROCESSES = 2
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    port = str(free_port())
    with servers.settings("streams") as env:
        env |= {"LOG_LEVEL": "debug", "WORKER_METRICS_PORT": port}
        folder = tmp_path_factory.mktemp("telemetry")
        with Deployment(folder, env, env["JWT_SECRET"], PROCESSES) as running:
            wait_until(lambda: status(running)["processes"] == PROCESSES, 20, "both processes")
            yield running


@pytest.fixture
def worker(deployment):
    """A client of the worker's port."""
    return Client("127.0.0.1", int(deployment.env["WORKER_METRICS_PORT"]), deployment.env["JWT_SECRET"])


def scrape(client):
    """What Prometheus would read, as {name: {labels: value}}."""
    reply = client.get("/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def names(metrics):
    """The names that the samples of these metrics have."""
    return {
        f"{metric.name}{suffix}"
        for metric in metrics
        for suffix in (("_bucket", "_count", "_sum") if metric.buckets else ("",))
    }


def lines(output, event):
    """What a process logged under this event."""
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("event") == event]


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

    found: dict[str, Any] = {}

    def is_caught_up():
        # Each process learns it by itself, once a second.
        found.update(status(deployment))
        return found["lag_commands"] == 0 and found["applied_age_s"] is not None and found["generation"]

    wait_until(is_caught_up, 20, "lag, age and generation known")
    assert 0 <= found["applied_delay_s"] < 60
    assert found["applied_age_s"] < 60
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


def test_a_request_is_found_by_its_id_from_the_api_to_the_worker(deployment):
    headers = {"X-Request-Id": "from-nginx-1", "traceparent": TRACEPARENT}
    reply = deployment.client.request("POST", "/todos", {"title": "traced"}, headers)
    assert reply.status == 202
    assert reply.headers["X-Request-Id"] == "from-nginx-1"
    todo_id = reply.json()["id"]

    def applied():
        return [
            line
            for line in lines(deployment.worker.output, "worker.command_applied")
            if line["todo_id"] == todo_id
        ]

    wait_until(applied, 20, "applied")
    (line,) = applied()
    assert line["request_id"] == "from-nginx-1"
    assert line["trace_id"] == TRACEPARENT.split("-")[1]
    published = [
        one
        for one in lines(deployment.gunicorn.output, "api.published")
        if one.get("request_id") == "from-nginx-1"
    ]
    assert [(one["partition"], one["offset"]) for one in published] == [(line["partition"], line["offset"])]


def test_all_that_is_documented_is_exported_and_nothing_else(deployment, worker):
    client = deployment.client
    todo_id = client.create(title="for every metric")
    wait_until(lambda: client.todo(todo_id) is not None, 20, "applied")
    client.get("/todos?limit=12")
    client.get("/todos?limit=12")
    wait_until(lambda: "todo_worker_lag_commands" in scrape(worker), 10, "lag")
    assert {name for name in scrape(client) if name.startswith("todo_")} == names(api_metrics.METRICS)
    assert {name for name in scrape(worker) if name.startswith("todo_")} == names(worker_metrics.METRICS)


def test_prometheus_finds_nothing_wrong_with_what_is_exported(deployment, worker):
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with scripts/setup.sh test"
    for client in (deployment.client, worker):
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=client.get("/metrics").body, capture_output=True, timeout=60
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_requests_are_counted_by_route_method_and_status_of_which_there_are_only_so_many(deployment):
    client = deployment.client
    for number in range(20):
        assert client.request(f"M{number}", f"/nowhere/{number}").status in (400, 404, 405)
        assert client.get(f"/todos/{number}").status == 404
    client.get("/todos", if_none_match="*")
    requests = [dict(labels) for labels in scrape(client)["todo_api_http_requests_total"]]
    assert {"route": "/todos/{todo_id}", "method": "GET", "status": "4xx"} in requests
    assert {"route": "/todos", "method": "GET", "status": "3xx"} in requests
    assert not [one for one in requests if "nowhere" in one["route"] or one["method"].startswith("M")]


def test_a_write_shows_in_the_figures_of_the_worker(deployment, worker):
    before = scrape(worker)["todo_worker_commands_total"]
    todo_id = deployment.client.create(title="one more")
    wait_until(lambda: deployment.client.todo(todo_id) is not None, 20, "applied")
    changed = (("result", "changed"),)
    wait_until(
        lambda: scrape(worker)["todo_worker_commands_total"][changed] == before[changed] + 1, 10, "counted"
    )
    after = scrape(worker)
    assert after["todo_worker_command_age_seconds_count"][()] >= 1
    assert after["todo_worker_partitions"] == {(("state", "read"),): 4, (("state", "stopped"),): 0}
    assert sum(after["todo_worker_lag_commands"].values()) == 0
    assert after["process_resident_memory_bytes"][()] > 0


def test_the_worker_is_healthy_while_it_shows_its_figures(deployment):
    """As compose asks; a port on which nobody listens is not healthy."""
    for port, code in ((deployment.env["WORKER_METRICS_PORT"], 0), (free_port(), 1)):
        done = subprocess.run(
            [sys.executable, "-m", "scripts.cli", "health", "--url", f"http://127.0.0.1:{port}/metrics"],
            cwd=ROOT, env=INHERITED, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_a_metrics_port_that_is_taken_is_said_and_ends_the_worker(deployment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "todo_worker"],
        env=INHERITED | deployment.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"WORKER_METRICS_PORT {deployment.env['WORKER_METRICS_PORT']} cannot be had" in done.stderr
