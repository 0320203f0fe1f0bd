"""What SIGTERM does to the API and to the worker, and what becomes of what they have in hand."""

import re
import signal
import socket
import threading
from contextlib import closing

import psutil
import pytest
from kafka import KafkaAdminClient

from scripts.stack.server import free_port, wait_until
from tests.support.deployment import PARTITIONS, Deployment, WorkerProcess
from tests.support.gunicorn import GunicornProcess
from tests.support.http_client import LOST, Client, Reply

pytestmark = pytest.mark.faults

HEALED_S = 40
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
CLIENTS = ["kafka-python", "librdkafka"]


@pytest.fixture
def more(request) -> dict[str, str]:
    """Settings beside those of the servers: ports for figures, and the client of Kafka that a test chooses."""
    ports = {"ADMIN_PORT": str(free_port()), "WORKER_METRICS_PORT": str(free_port())}
    return ports | getattr(request, "param", {})


@pytest.fixture
def deployment(servers, kind, more, tmp_path):
    """One API process and a worker of this test's own, which has applied a first todo."""
    with servers.settings(kind) as env, Deployment(tmp_path, env | more, env["JWT_SECRET"]) as running:
        todo_id = running.client.create(title="first")
        wait_until(lambda: running.client.todo(todo_id) is not None, HEALED_S, "first todo applied")
        yield running


@pytest.mark.parametrize("kind", [KAFKA, "streams"])
def test_sigterm_lets_the_api_finish_the_write_in_flight_and_ends_it_with_0(servers, kind, deployment):
    gunicorn = deployment.gunicorn
    replies: list[Reply] = []
    # A frozen log keeps a write in flight: for half a second, in which a busy machine may not come to look.
    servers.log_process(kind).freeze()
    write = threading.Thread(
        target=lambda: replies.append(deployment.client.request("POST", "/todos", {"title": "in flight"}))
    )
    write.start()
    try:
        wait_until(lambda: has_a_client(gunicorn) or replies, HEALED_S, "the write is in flight")
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


def has_a_client(gunicorn: GunicornProcess) -> bool:
    """Whether the only process has a connection on the first port."""
    [worker] = gunicorn.worker_pids()
    connections = psutil.Process(worker).net_connections("tcp")
    return any(c.laddr.port == gunicorn.port and c.raddr for c in connections)


@pytest.mark.parametrize("kind", ["streams"])
def test_sigterm_makes_the_api_not_ready_while_it_finishes_what_it_has_begun(deployment, more):
    gunicorn = deployment.gunicorn
    probe = Client(gunicorn.host, int(more["ADMIN_PORT"]), deployment.env["JWT_SECRET"])
    assert probe.get("/ready").status == 200
    body = b'{"title": "half of it was there"}'
    head = f"POST /todos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {deployment.client.token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    # A client that is slow to send: for as long as the API waits for it, probes can look.
    with socket.create_connection((gunicorn.host, gunicorn.port), 10) as client:
        client.sendall(head.encode() + body[:5])
        wait_until(lambda: has_a_client(gunicorn), HEALED_S, "half a request is there")
        gunicorn.signal(signal.SIGTERM)
        wait_until(lambda: probe.get("/ready").status == 503, 10, "not ready")
        assert probe.get("/ready").json()["draining"] is True
        # As liveness sees it, all is well: nothing may restart what is on its way out.
        assert probe.get("/health").status == 200
        client.sendall(body[5:])
        assert client.recv(12) == b"HTTP/1.1 202"
    assert gunicorn.wait(25) == 0


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


def members(deployment: Deployment) -> int:
    """Return how many workers Kafka counts in the group at this moment, those that are about to be missed included."""
    group = f"{deployment.env['KAFKA_TODO_TOPIC']}.worker"
    with closing(KafkaAdminClient(bootstrap_servers=deployment.env["KAFKA_BROKERS"])) as admin:
        return len(admin.describe_groups([group])[group]["members"])


def partitions(deployment: Deployment, port: str) -> int:
    """Return how many partitions the worker with this port reads, as it tells Prometheus."""
    try:
        text = Client("127.0.0.1", int(port), deployment.env["JWT_SECRET"]).get("/metrics").body.decode()
    except LOST:
        return 0
    found = re.search(r'^todo_worker_partitions\{state="read"\} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("kind", [KAFKA])
@pytest.mark.parametrize("more", [{"KAFKA_CLIENT": name} for name in CLIENTS], ids=CLIENTS, indirect=True)
def test_a_worker_that_stops_has_left_its_group_so_another_need_not_wait_for_it(deployment, more, tmp_path):
    ports = [more["WORKER_METRICS_PORT"], str(free_port())]
    (tmp_path / "another").mkdir()
    another = WorkerProcess(tmp_path / "another", deployment.env)
    another.start(WORKER_METRICS_PORT=ports[1])
    try:

        def shares() -> list[int]:
            return [partitions(deployment, port) for port in ports]

        wait_until(lambda: all(shares()) and sum(shares()) == PARTITIONS, HEALED_S, "they share")
        assert members(deployment) == 2
        assert deployment.worker.stop(25) == 0
        # At once: a worker that did not say good-bye would be counted, and waited for, for 10 s.
        assert members(deployment) == 1
        wait_until(lambda: partitions(deployment, ports[1]) == PARTITIONS, HEALED_S, "the other reads all")
        todo_ids = {deployment.client.create(title=f"todo {number}") for number in range(20)}
        wait_until(lambda: {row["id"] for row in deployment.rows()} >= todo_ids, HEALED_S, "all applied")
    finally:
        another.leave()
