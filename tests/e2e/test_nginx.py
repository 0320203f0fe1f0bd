"""nginx as docker/nginx configures it, in front of two real API instances."""

import json
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.stack.nginx import LocalNginx
from scripts.stack.process_tree import frozen
from scripts.stack.server import ServerProcess, free_port, wait_until
from tests.support.deployment import INHERITED, ROOT, WorkerProcess
from tests.support.gunicorn import GunicornProcess, is_alive
from tests.support.hostile_requests import FRAMINGS, HEADS, post, statuses
from tests.support.http_client import Client, Reply

IDLE_CONNECTIONS = 10_000
SLOW_CLIENTS = 512
# An answer, or the end of the connection, comes within this time.
ANSWER_S = 5.0
# A port that is refused, today and on any machine.
NOBODY = 1


class Front(NamedTuple):
    """nginx, what it leads to, and a client that goes through it."""

    nginx: LocalNginx
    process: ServerProcess
    instances: list[GunicornProcess]
    client: Client
    secret: str


@contextmanager
def fronted(folder: Path, instances: list[GunicornProcess], secret: str, **variables: str) -> Iterator[Front]:
    nginx = LocalNginx(
        folder / "nginx",
        free_port(),
        [instance.port for instance in instances],
        inner_port=free_port(),
        variables=variables,
    )
    process = ServerProcess(nginx, folder)
    try:
        process.start()
        yield Front(nginx, process, instances, Client("127.0.0.1", nginx.port, secret), secret)
    finally:
        process.stop()


@pytest.fixture(scope="module")
def instances(servers, tmp_path_factory):
    """Two API instances of one process each over one set of servers, and a worker. Tests leave them running."""
    with servers.settings("streams") as env, ExitStack() as stack:
        worker = WorkerProcess(tmp_path_factory.mktemp("worker"), env)
        worker.start()
        stack.callback(worker.leave)
        running = []
        for number in (1, 2):
            arguments = ["--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
            settings = INHERITED | env | {"WEB_CONCURRENCY": "1"}
            instance = GunicornProcess(arguments, tmp_path_factory.mktemp(f"api-{number}"), settings)
            running.append(stack.enter_context(instance.start()))
        yield running, env["JWT_SECRET"]


@pytest.fixture(scope="module")
def front(instances, tmp_path_factory):
    with fronted(tmp_path_factory.mktemp("front"), *instances) as running:
        wait_until(lambda: running.client.get("/ready").status == 200, 30, "ready")
        yield running


def assert_problem(reply: Reply, status: int) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply
    assert reply.json()["status"] == status
    assert reply.json()["request_id"] == reply.headers["X-Request-Id"]


def answer(front: Front, sent: bytes) -> bytes:
    """Send bytes as they are, and return all that comes until nginx hangs up."""
    received = b""
    with socket.create_connection(("127.0.0.1", front.nginx.port), 15) as client:
        client.sendall(sent)
        while more := client.recv(65536):
            received += more
    return received


def raise_open_files() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def test_a_todo_written_through_nginx_is_read_through_nginx(front):
    todo_id = front.client.create(title="through nginx")
    wait_until(lambda: front.client.todo(todo_id), 20, "applied")
    assert front.client.request("DELETE", f"/todos/{todo_id}").status == 202
    wait_until(lambda: front.client.todo(todo_id) is None, 20, "deleted")


def test_a_list_keeps_its_tag_and_its_compression(front):
    reply = front.client.get("/todos?limit=3", accept_encoding="gzip")
    assert (reply.status, reply.headers["Content-Encoding"]) == (200, "gzip") or reply.json() == []
    unchanged = front.client.get("/todos?limit=3", if_none_match=reply.headers["ETag"])
    assert unchanged.status == 304


@pytest.mark.parametrize(
    ("sent", "kept"), [("a-client.s_id", True), ("two words", False), ("x" * 129, False), ('"quoted"', False)]
)
def test_a_well_formed_request_id_is_kept_and_any_other_replaced(front, sent, kept):
    reply = front.client.get("/todos?limit=1", x_request_id=sent)
    (shown,) = reply.headers.get_all("X-Request-Id")
    assert (shown == sent) is kept
    assert re.fullmatch("[A-Za-z0-9._-]{1,128}", shown)


def test_nginx_and_the_api_speak_of_a_request_by_the_same_id(front):
    reply = front.client.request("POST", "/todos", {"title": ""}, {"X-Request-Id": "same-id"})
    assert (reply.status, reply.json()["request_id"]) == (422, "same-id")
    assert reply.headers.get_all("X-Request-Id") == ["same-id"]


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/status",
        "/status.json",
        "/version",
        "/v1/metrics",
        "/v1/status.json",
        # Once more encoded than nginx decodes, as often as meinheld does.
        "/%6detrics",
        "/%256detrics",
        "/v1/%256detrics",
        "/status%252ejson",
        "/%2576%2531/metrics",
    ],
)
def test_figures_are_not_public(front, path):
    assert_problem(front.client.get(path), 404)


def test_nginx_shows_its_own_figures_on_the_inner_port_only(front):
    inner = Client("127.0.0.1", front.nginx.inner_port, front.secret)
    assert b"Active connections" in inner.get("/nginx_status").body
    assert inner.get("/todos").status == 404
    assert front.client.get("/nginx_status").status == 404


def test_a_body_too_large_is_refused_by_nginx_with_a_problem(front):
    assert_problem(front.client.request("POST", "/todos", {"title": "x", "description": "y" * 70_000}), 413)


def test_a_batch_may_be_larger_than_a_todo(front):
    contents = {"title": "x", "description": "y" * 70_000}
    assert front.client.request("POST", "/todos/batch", contents).status != 413
    assert_problem(front.client.request("POST", "/todos/batch", contents | {"more": "y" * 1_100_000}), 413)


HEAD = b"POST /todos HTTP/1.1\r\nHost: todo.example\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        HEAD
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"GET /todos HTTP/1.1\r\n\r\n",
        b"GET /todos HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /to dos HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /todos HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /todos HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
        b"GET /todos HTTP/9.9\r\nHost: a\r\n\r\n",
    ],
)
def test_an_ambiguous_request_gets_one_refusal_and_the_connection_is_closed(front, sent):
    received = answer(front, sent)
    assert received.count(b"HTTP/1.1 ") == 1, received
    status = int(received.split()[1])
    assert 400 <= status < 500 or status in (501, 505), received
    assert front.client.get("/todos?limit=1").status == 200


def test_what_is_almost_http_gets_one_answer_at_most_and_no_error_of_ours(front):
    token = front.client.token
    requests = {name: post(token, *framing) for name, framing in FRAMINGS.items()} | HEADS
    for name, sent in requests.items():
        began = time.monotonic()
        answers = statuses(answer(front, sent))
        assert len(answers) <= 1, name
        assert all(status < 500 or status in (501, 505) for status in answers), (name, answers)
        assert time.monotonic() - began < ANSWER_S, name
    assert front.client.get("/todos?limit=1").status == 200


@pytest.mark.parametrize(
    ("path", "size"), [("/todos", 60_000), ("/todos", 900_000), ("/todos/batch", 900_000)]
)
def test_a_refusal_arrives_however_much_is_still_being_sent(front, path, size):
    """An answer before the body is read must not become a reset connection, and that a 502."""
    headers = {"Authorization": "Bearer x"}
    answers = {front.client.request("POST", path, "x" * size, headers).status for _ in range(10)}
    assert answers == {401 if size < 64_000 or path == "/todos/batch" else 413}


def test_fields_behind_a_chunked_body_do_not_reach_the_api(front):
    """meinheld 1.0.2 does not survive them."""
    pids = [instance.worker_pids() for instance in front.instances]
    token = (
        b"Authorization: Bearer " + front.client.token.encode() + b"\r\nContent-Type: application/json\r\n"
    )
    body = b'Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nd\r\n{"title":"t"}\r\n0\r\nX-Behind: 1\r\n\r\n'
    assert b" 202 " in answer(front, HEAD + token + body)[:20]
    assert [instance.worker_pids() for instance in front.instances] == pids


def test_underscored_headers_do_not_reach_the_api(front):
    """The API's server takes X_Request_Id for X-Request-Id."""
    reply = front.client.request("POST", "/todos", {"title": ""}, {"X_Request_Id": "forged"})
    assert reply.json()["request_id"] != "forged"


def test_clients_that_are_slow_to_send_hold_up_nobody(front):
    raise_open_files()
    body = json.dumps({"title": "slow"}).encode()
    head = HEAD + f"Content-Length: {len(body)}\r\nAuthorization: Bearer {front.client.token}\r\n".encode()
    head += b"Content-Type: application/json\r\nConnection: close\r\n\r\n"
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", front.nginx.port), 15))
            for _ in range(SLOW_CLIENTS)
        ]
        for client in slow:
            client.sendall(head + body[:-1])
        for _ in range(20):
            assert front.client.get("/todos?limit=2").status == 200
        assert front.client.request("POST", "/todos", {"title": "quick"}).status == 202
        for client in slow:
            client.sendall(body[-1:])
        # All at once they may be more than two processes answer in time; none is left without an answer.
        assert {client.recv(12) for client in slow} <= {b"HTTP/1.1 202", b"HTTP/1.1 503"}


def test_idle_connections_cost_the_api_nothing(front):
    raise_open_files()
    before = open_sockets(front)
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", front.nginx.port), 15))
        for _ in range(20):
            assert front.client.get("/todos?limit=2").status == 200
        assert front.client.request("POST", "/todos", {"title": "beside them"}).status == 202
        # Those nginx keeps to the API for reads: at most 64 a process of it, whatever clients do.
        assert open_sockets(front) - before < 150


def open_sockets(front: Front) -> int:
    pids = [pid for instance in front.instances for pid in instance.worker_pids()]
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def test_a_write_that_got_no_answer_is_not_sent_to_another_instance(front):
    with frozen(*(instance.master_pid for instance in front.instances)):
        reply = front.client.request("POST", "/todos", {"title": "only once"})
    assert_problem(reply, 503)
    assert int(reply.headers["Retry-After"]) >= 1
    last = front.client.create(title="the one after")
    wait_until(lambda: front.client.todo(last), 20, "applied")
    titles = [todo["title"] for todo in front.client.get("/todos").json()]
    assert titles.count("only once") <= 1


def test_an_instance_that_is_killed_fails_no_request(front):
    victim = front.instances[0]
    pids = victim.worker_pids()
    victim.kill()
    # What one of its processes had taken while it died would be a write with an unknown outcome.
    wait_until(lambda: not any(map(is_alive, pids)), 10, "killed")
    try:
        for _ in range(20):
            assert front.client.get("/todos?limit=2").status == 200
            assert front.client.request("POST", "/todos", {"title": "on the other"}).status == 202
    finally:
        victim.start()
        front.nginx.point_at([instance.port for instance in front.instances])
        front.process.send_signal(signal.SIGHUP)


def test_too_many_writes_are_refused_with_429_and_reads_are_not(instances, tmp_path):
    with fronted(tmp_path, *instances, WRITES_PER_TOKEN_PER_S="1", WRITES_BURST="3") as limited:
        replies = [limited.client.request("POST", "/todos", {"title": "one of many"}) for _ in range(12)]
        refused = [reply for reply in replies if reply.status == 429]
        assert {reply.status for reply in replies} == {202, 429}
        assert_problem(refused[0], 429)
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].headers["RateLimit-Policy"] == '"writes";q=1;w=1'
        assert refused[0].headers["RateLimit"] == '"writes";r=0;t=1'
        another = limited.client.as_user("bob").request("POST", "/todos", {"title": "of another"})
        assert another.status == 202
        assert {limited.client.get("/todos?limit=1").status for _ in range(20)} == {200}


def test_writes_beyond_those_under_way_are_refused_at_once(instances, tmp_path):
    [instance, _], secret = instances
    with (
        fronted(tmp_path, [instance], secret, WRITES_UNDER_WAY="1") as limited,
        ThreadPoolExecutor(2) as pool,
    ):
        with frozen(*instance.worker_pids()):
            writes = [
                pool.submit(limited.client.request, "POST", "/todos", {"title": "one"}) for _ in range(2)
            ]
            # One of them is under way, and would be for long.
            done, under_way = wait(writes, 10, FIRST_COMPLETED)
            [refused] = [write.result() for write in done]
            assert_problem(refused, 503)
            assert refused.json()["type"] == "/problems/overloaded"
            assert refused.headers["Retry-After"] == "1"
        assert [write.result(10).status for write in under_way] == [202]
        assert limited.client.request("POST", "/todos", {"title": "after it"}).status == 202
        assert "no live upstreams" not in (tmp_path / "nginx.out").read_text()


def test_a_write_that_is_still_being_sent_takes_no_place(instances, tmp_path):
    [instance, _], secret = instances
    with (
        fronted(tmp_path, [instance], secret, WRITES_UNDER_WAY="1") as limited,
        socket.create_connection(("127.0.0.1", limited.nginx.port)) as slow,
    ):
        token = limited.client.token
        head = f"POST /todos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        kind = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        slow.sendall((head + kind).encode() + b'{"title":')
        for _ in range(5):
            assert limited.client.request("POST", "/todos", {"title": "of another"}).status == 202


def said_by_nginx(reply: Reply) -> list[str]:
    return [each for each in reply.headers.get_all("Cache-Status") or [] if each.startswith("nginx;")]


def test_the_microcache_answers_while_the_api_is_away(instances, tmp_path):
    anonymous = {"Authorization": ""}
    with fronted(tmp_path, *instances, NGINX_MICROCACHE="todo") as cached:
        first = cached.client.request("GET", "/todos?limit=7", headers=anonymous)
        assert first.status == 200
        assert said_by_nginx(first) == ["nginx; fwd=uri-miss"]
        cached.nginx.point_at([NOBODY])
        cached.process.send_signal(signal.SIGHUP)
        # What has a token is never cached.
        wait_until(lambda: cached.client.get("/todos?limit=7").status == 503, 10, "no instance reached")
        again = cached.client.request("GET", "/todos?limit=7", headers=anonymous)
        assert (again.status, again.body) == (200, first.body)
        assert said_by_nginx(again)[0].startswith("nginx; hit")


def test_without_the_microcache_nginx_says_nothing_of_a_cache(front):
    assert said_by_nginx(front.client.get("/todos?limit=7")) == []


def test_what_did_not_go_well_is_a_line_with_the_ids_of_request_and_trace(instances, tmp_path):
    with fronted(tmp_path, *instances) as logged:
        for trace in ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", '00-"-nonsense'):
            headers = {"X-Request-Id": "of-the-client", "traceparent": trace}
            assert logged.client.request("GET", "/nowhere", headers=headers).status == 404
        logged.process.stop()
        lines = (tmp_path / "nginx" / "access.log").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(each["status"], each["request_id"]) for each in found] == [(404, "of-the-client")] * 2
    assert [each["trace_id"] for each in found] == ["4bf92f3577b34da6a3ce929d0e0e4736", ""]


def test_with_every_instance_away_the_answer_is_a_503_problem_and_health_is_nginx_own(instances, tmp_path):
    with fronted(tmp_path, *instances) as alone:
        alone.nginx.point_at([NOBODY])
        alone.process.send_signal(signal.SIGHUP)
        replies: list[Reply] = []

        def refused() -> bool:
            replies.append(alone.client.get("/todos"))
            return replies[-1].status == 503

        wait_until(refused, 10, "refusal")
        assert_problem(replies[-1], 503)
        assert int(replies[-1].headers["Retry-After"]) >= 1
        assert alone.client.get("/health").body == b"OK"
