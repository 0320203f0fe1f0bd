"""What somebody hostile may send to a running API: every request here is answered or cut off, no harm done."""

import base64
import json
import socket
import time
from contextlib import ExitStack
from functools import partial

import jwt
import pytest

from scripts.stack.server import wait_until
from tests.support.deployment import Deployment
from tests.support.hostile_requests import FRAMINGS, GET, HEADS, HOST, patch, post, statuses
from tests.support.http_client import Client

# An answer, or the end of the connection, comes within this time.
ANSWER_S = 5.0


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    """Two API processes and a worker, which have to outlive everything below."""
    folder = tmp_path_factory.mktemp("attacks")
    with (
        servers.settings("streams") as env,
        Deployment(folder, env, env["JWT_SECRET"], processes=2) as running,
    ):
        pids = running.gunicorn.worker_pids()
        yield running
        assert running.gunicorn.worker_pids() == pids, "a process was killed by a request"


@pytest.fixture
def client(deployment):
    return deployment.client


@pytest.fixture
def unharmed(deployment):
    """New connections are served as ever, after the test."""
    yield
    assert [deployment.client.get("/health").status for _ in range(4)] == [200] * 4


def exchange(deployment, request):
    """Send bytes as they are; return everything that comes until the other side hangs up, which it must."""
    address = (deployment.gunicorn.host, deployment.gunicorn.port)
    received = b""
    deadline = time.monotonic() + ANSWER_S
    with socket.create_connection(address, ANSWER_S) as connection:
        connection.sendall(request)
        while piece := _receive(connection, deadline):
            received += piece
    return received


def _receive(connection, deadline):
    connection.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", FRAMINGS)
def test_a_request_whose_end_is_not_clear_gets_one_answer_at_most_and_no_error_of_ours(
    deployment, client, name
):
    headers, body = FRAMINGS[name]
    answers = statuses(exchange(deployment, post(client.token, headers, body)))
    # What follows the one request is a second one only where the first had a clear end.
    assert len(answers) <= 1 or name == "a request in the body"
    assert all(status in (202, 400, 405, 411, 413, 415, 417, 501) for status in answers), answers


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", HEADS)
def test_an_odd_head_gets_one_answer_at_most_and_no_error_of_ours(deployment, name):
    received = exchange(deployment, HEADS[name])
    answers = statuses(received)
    assert len(answers) <= 1
    assert all(status in (200, 400, 404, 405, 414, 431, 501, 505) for status in answers), answers
    assert b"secret" not in received
    assert b"root:" not in received


@pytest.mark.parametrize(
    ("path", "request_id"),
    [
        (b"/todos/%0d%0aSet-Cookie:%20a=b", b"x"),
        (b"/todos/x", b"a%0d%0aSet-Cookie: a=b"),
        (b"/x", b"a\tb\x1b[2J"),
    ],
)
def test_no_header_line_can_be_put_into_an_answer(deployment, path, request_id):
    head = b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"X-Request-Id: " + request_id + b"\r\n\r\n"
    received = exchange(deployment, head)
    assert b"\r\nset-cookie" not in received.lower()
    assert b"\x1b" not in received


BOMBS = {
    "deep lists": b"[" * 60_000,
    "deep objects": b'{"a":' * 12_000,
    "a long number": b'{"title":' + b"9" * 60_000 + b"}",
    "a large exponent": b'{"title":1e999999999}',
    "many members": json.dumps({str(n): 0 for n in range(5_500)}).encode(),
    "one name many times": b'{"title":"a",' + b'"a":1,' * 9_000 + b'"b":1}',
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", BOMBS)
def test_json_that_is_meant_to_burst_a_parser_is_refused_in_time(deployment, client, name):
    length = b"Content-Length: %d" % len(BOMBS[name])
    received = exchange(deployment, post(client.token, length, BOMBS[name]))
    assert statuses(received)[0] in (400, 422)
    assert b"application/problem+json" in received


def unsigned(header, claims):
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)
    )
    return ".".join(parts) + "."


def test_forged_tokens_are_refused_and_call_nobody(deployment, client):
    secret = deployment.env["JWT_SECRET"]
    claims = {"sub": "ann", "exp": int(time.time()) + 600}
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/keys"
        forged = [
            unsigned({"alg": "none"}, claims),
            unsigned({"alg": "HS256"}, claims),
            *(jwt.encode(claims, "x" * 32, "HS256", {name: url}) for name in ("jku", "x5u", "kid")),
            jwt.encode(claims, "x" * 32, "HS256", {"kid": "../../../dev/null"}),
            jwt.encode(claims, secret, "HS512"),
            jwt.encode(claims | {"exp": 1}, secret, "HS256"),
            jwt.encode(claims | {"nbf": claims["exp"]}, secret, "HS256"),
            jwt.encode({"sub": "ann"}, secret, "HS256"),
            jwt.encode(claims, secret, "HS256")[:-1],
            "a" * 7000,
        ]
        for token in forged:
            reply = client.request(
                "POST", "/todos", {"title": "forged"}, {"Authorization": f"Bearer {token}"}
            )
            assert reply.status == 401, token
            assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_a_token_that_was_used_is_refused_after_its_end_by_every_process(deployment, client):
    ends_at = int(time.time()) + 2
    token = jwt.encode({"sub": "ann", "exp": ends_at}, deployment.env["JWT_SECRET"], "HS256")
    headers = {"Authorization": f"Bearer {token}"}

    def answers():
        # An operation that never was: 404 with a good token, and nothing is written.
        return {client.request("GET", "/operations/none", None, headers).status for _ in range(10)}

    assert answers() <= {404, 401}
    wait_until(lambda: time.time() >= ends_at, 5, "the end of the token")
    assert answers() == {401}


def test_cursors_and_operations_cannot_be_made_up(client):
    todo = client.request("POST", "/todos", {"title": "mine"}).json()
    operation = f"/operations/{todo['operation']}"
    assert client.get(operation).status == 200
    assert client.as_user("bob").get(operation).status == 404
    changed = operation[:-1] + ("A" if operation[-1] != "A" else "B")
    assert client.get(changed).status == 404
    for cursor in ("A" * 48, "a", "../../x", "%00", "'or''='"):
        assert client.get(f"/todos?limit=1&after={cursor}").status == 400


def applied(client, todo_id, **contents):
    def shows():
        todo = client.todo(todo_id)
        return todo is not None and todo.items() >= contents.items()

    wait_until(shows, 20, f"{contents} applied")
    return client.todo(todo_id)


def is_rejected(client, operation):
    return client.get(f"/operations/{operation}").json()["status"] == "rejected"


def test_a_todo_is_its_owners_whatever_body_and_headers_claim(client):
    mine = client.request("POST", "/todos", {"title": "mine"}).json()["id"]
    claimed = {
        "id": mine,
        "user_id": "bob",
        "created_at": "1970-01-01T00:00:00Z",
        "completed": True,
        "version": 9,
    }
    other = client.create(title="claimed", **claimed)
    bob = client.as_user("bob")
    for method, contents in (("PUT", {"title": "bob's"}), ("PATCH", {"completed": True}), ("DELETE", None)):
        headers = {"X-User-Id": "ann", "X-Forwarded-User": "ann", "X-Original-User": "ann"}
        operation = bob.request(method, f"/todos/{mine}", contents, headers).json()["operation"]
        wait_until(partial(is_rejected, bob, operation), 20, "rejected")
    overridden = client.request(
        "PATCH", f"/todos/{mine}", {"title": "still"}, {"X-HTTP-Method-Override": "DELETE"}
    )
    assert overridden.status == 202
    assert applied(client, mine, title="still")["user_id"] == "ann"
    todo = applied(client, other, title="claimed")
    assert other != mine
    assert todo["user_id"] == "ann"
    assert todo["completed"] is False
    assert not todo["created_at"].startswith("1970")


TEXTS = [
    "caf\u00e9 cafe\u0301", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u202e abc", "a\u200bb\u2060c\ufeffd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufdfa\ufffd\uffff", "\U0010ffff", "z\u0334\u0335" * 20,
    "\u0130\u0131\u00df\u1e9e", "\x01\x1b[31m\x7f", "\u2028\u2029", "line\nline\ttab", '"quoted"', "\\u0041\\x00\\",
    "'; drop table todos; --", "<script>alert(1)</script>", "${7*7}{{7*7}}%s%n", "=cmd|' /C calc'!A0",
    "../../etc/passwd", "null", "0",
]  # fmt: skip


def test_every_text_that_is_accepted_is_read_back_exactly_from_create_and_update(deployment, client):
    made = {client.create(title=f"t{text}t", description=text): text for text in TEXTS}
    for todo_id, text in made.items():
        todo = applied(client, todo_id, description=text)
        assert (todo["title"], todo["description"]) == (f"t{text}t", text)
    for todo_id, text in made.items():
        # As it is, where it was escaped before.
        raw = json.dumps({"title": f"{text}u".strip()}, ensure_ascii=False).encode()
        answer = exchange(deployment, patch(client.token, todo_id, raw))
        assert statuses(answer) == [202]
    for todo_id, text in made.items():
        assert applied(client, todo_id, title=f"{text}u".strip())["description"] == text


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\\udc00\\ud800", "\0", "\x1f"])
def test_what_cannot_be_stored_exactly_is_refused(deployment, client, text):
    body = f'{{"title":"a{text}b"}}'.encode()
    received = exchange(deployment, post(client.token, b"Content-Length: %d" % len(body), body))
    assert statuses(received)[0] in (400, 422)


def test_nobody_waits_for_those_who_send_slowly(deployment, client):
    with ExitStack() as stack:
        for number in range(100):
            slow = socket.create_connection((deployment.gunicorn.host, deployment.gunicorn.port), ANSWER_S)
            stack.callback(slow.close)
            slow.sendall(
                GET + b"Host: a\r\n" if number % 2 else post(client.token, b"Content-Length: 1000", b"{")
            )
        quick = Client(
            deployment.gunicorn.host, deployment.gunicorn.port, deployment.env["JWT_SECRET"], timeout_s=5
        )
        assert [quick.get("/health").status for _ in range(10)] == [200] * 10
        assert quick.request("POST", "/todos", {"title": "quick"}).status == 202


def test_what_was_sent_puts_no_line_of_its_own_into_the_logs(deployment, client):
    forged = '{"level": "critical", "message": "forged"}'
    for path in ("/%0a" + forged.replace(" ", ""), "/todos/%1b[2J", "/todos?limit=%0aforged"):
        client.request(
            "GET", path.replace('"', "%22"), None, {"X-Request-Id": "a b", "User-Agent": "\x1b[31mforged"}
        )
    lines = deployment.output.splitlines()
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert "\x1b" not in deployment.output
    assert '"message": "forged"' not in deployment.output
