"""The app under a real gunicorn with our configuration, while every server behind it is away."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from scripts.stack.server import free_port, wait_until
from tests.support.api import SECRET, token
from tests.support.gunicorn import GunicornProcess

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "DATABASE_URL": "postgres://nobody:hunter2@127.0.0.1:1/nothing",
    "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
    "COMMAND_LOG": "streams",
    "JWT_SECRET": SECRET,
    "WEB_CONCURRENCY": "1",
}
CONFIG = ["--config", str(ROOT / "gunicorn.conf.py"), "--pythonpath", str(ROOT)]
HAS_MEINHELD = importlib.util.find_spec("meinheld") is not None


@pytest.fixture(
    scope="module",
    params=[
        "gthread",
        pytest.param(
            "meinheld", marks=pytest.mark.skipif(not HAS_MEINHELD, reason="meinheld is not installed")
        ),
    ],
)
def server(request, tmp_path_factory):
    chosen = ["--worker-class", "gthread"] if request.param == "gthread" else []
    folder = tmp_path_factory.mktemp(request.param)
    environment = ENVIRONMENT | {"ADMIN_PORT": str(free_port())}
    with GunicornProcess([*CONFIG, *chosen, "wsgi:app"], folder, environment).start() as process:
        yield process


def send(server, method, path, body=None, *, port=None, **headers):
    url = f"http://{server.host}:{port or server.port}{path}"
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as ex:
        with ex:
            return ex.code, ex.headers, ex.read()


def exchange(server, raw):
    """Send these bytes over one connection and return everything that comes back until it is closed."""
    with socket.create_connection((server.host, server.port), 10) as client:
        client.sendall(raw)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


def authorised():
    return {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}


def test_the_process_lives_and_says_that_it_is_not_ready(server):
    assert send(server, "GET", "/health")[0] == 200
    wait_until(lambda: b'"down"' in send(server, "GET", "/ready")[2], 10, "the monitor noticed")
    status, headers, body = send(server, "GET", "/ready")
    assert (status, headers["Content-Type"]) == (503, "application/problem+json")
    assert json.loads(body)["missing"] == ["pages"]


def test_figures_are_on_the_admin_port_alone_and_count_what_the_first_one_answered(server):
    for path in ("/metrics", "/status.json", "/status", "/version"):
        assert send(server, "GET", path)[0] == 404
        assert send(server, "GET", path, port=server.admin_port)[0] == 200
    assert send(server, "GET", "/health", port=server.admin_port)[0] == 200
    metrics = send(server, "GET", "/metrics", port=server.admin_port)[2]
    assert b'todo_api_http_requests_total{method="GET",route="other",status="4xx"}' in metrics


def test_an_admin_port_that_is_taken_is_said_and_ends_the_start(server, tmp_path):
    environment = ENVIRONMENT | {"ADMIN_PORT": str(server.admin_port)}
    ran = subprocess.run(
        [sys.executable, "-m", "gunicorn", *CONFIG, "--bind", "127.0.0.1:0", "wsgi:app"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert f"ADMIN_PORT {server.admin_port} cannot be had: Address already in use" in ran.stderr


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/todos", None),
        ("GET", "/todos?limit=10", None),
        ("GET", "/todos/018f0000-0000-7000-8000-00000000000a", None),
        ("POST", "/todos", b'{"title":"t"}'),
        ("DELETE", "/todos/018f0000-0000-7000-8000-00000000000a", None),
    ],
)
def test_what_needs_a_server_that_is_away_is_503_soon(server, method, path, body):
    began = time.monotonic()
    status, headers, answer = send(server, method, path, body, **authorised())
    assert (status, headers["Content-Type"]) == (503, "application/problem+json"), answer
    assert headers["Retry-After"] == "1"
    assert b"127.0.0.1" not in answer
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("size", [0, 100_000, 900_000])
def test_a_large_body_nobody_wants_does_not_break_the_answer(server, size):
    for _ in range(5):
        status, headers, _ = send(server, "POST", "/todos", b"x" * size)
        assert (status, headers["Content-Type"]) == (401, "application/problem+json")


def test_a_body_over_the_cap_is_413(server):
    status, headers, _ = send(server, "POST", "/todos", b" " * 70_000, **authorised())
    assert (status, headers["Content-Type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(("size", "status"), [(10, b"400"), (70_000, b"413")])
def test_a_chunked_body_is_read_and_has_the_same_cap(server, size, status):
    head = "".join(f"{name}: {value}\r\n" for name, value in authorised().items())
    raw = (
        f"POST /todos HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{head}\r\n"
        f"{size:x}\r\n{'[' * size}\r\n0\r\n\r\n"
    )
    answer = exchange(server, raw.encode())
    assert answer.split()[1] == status
    assert b"application/problem+json" in answer


def test_a_broken_chunk_is_refused_and_the_next_client_served(server):
    head = "".join(f"{name}: {value}\r\n" for name, value in authorised().items())
    raw = f"POST /todos HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{head}\r\nxyz\r\n"
    answer = exchange(server, raw.encode())
    assert answer == b"" or answer.split()[1] == b"400"
    assert send(server, "GET", "/health")[0] == 200


def test_head_is_framed_like_get_without_the_body(server):
    raw = b"HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    first, _, second = exchange(server, raw).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 404")
    assert second.startswith(b"HTTP/1.1 200")
    assert second.endswith(b"OK")


@pytest.mark.parametrize("path", ["//todos", "/todos/", "/todos%00", "/..%2ftodos"])
def test_a_path_that_is_not_ours_is_404(server, path):
    raw = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert exchange(server, raw.encode()).split()[1] == b"404"


def test_every_line_of_output_is_json_and_holds_no_secret(server):
    send(server, "GET", "/todos")
    lines = [json.loads(line) for line in server.output.splitlines()]
    (start,) = [line for line in lines if line.get("event") == "api.start"]
    assert start["settings"]["DATABASE_URL"] == "***"
    assert {"request.unavailable", "dependency.down"} <= {line.get("event") for line in lines}
    assert "hunter2" not in server.output
    assert SECRET not in server.output


@pytest.mark.parametrize("worker_class", [["--worker-class", "gthread"], []], ids=["gthread", "ours"])
def test_sigterm_ends_it_in_order(worker_class, tmp_path):
    with GunicornProcess([*CONFIG, *worker_class, "wsgi:app"], tmp_path, ENVIRONMENT).start() as process:
        assert send(process, "GET", "/health")[0] == 200
        process.signal(signal.SIGTERM)
        assert process.wait(25) == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("worker_class", [["--worker-class", "gthread"], []], ids=["gthread", "ours"])
def test_on_a_reload_the_old_worker_serves_until_the_new_one_does(worker_class, tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text("from wsgi import app")
    arguments = [*CONFIG, *worker_class, "--pythonpath", f"{ROOT},{tmp_path}", "slow:app"]
    with GunicornProcess(arguments, tmp_path, ENVIRONMENT).start() as process:
        [old] = process.worker_pids()
        slow.write_text("import time; time.sleep(1.5); print('loaded', flush=True); from wsgi import app")
        process.signal(signal.SIGHUP)
        wait_until(lambda: old not in process.worker_pids(), 25, "the old worker leaves")
        new = process.worker_pids()
        assert send(process, "GET", "/health")[0] == 200
        output = process.output
        assert output.index("loaded") < output.index(f"Worker exiting (pid: {old})")
        # Nobody boots now, so nobody is waited for.
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 8
        assert not set(new) & set(process.worker_pids())
        assert "Traceback" not in output


def test_bad_settings_are_one_message_and_no_worker(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "gunicorn", *CONFIG, "wsgi:app"],
        cwd=tmp_path,
        env={"HTTP_PORT": "x", "JWT_SECRET": "hunter2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "settings:",
        "  - HTTP_PORT must be a whole number from 1 to 65535, is 'x'",
        "  - DATABASE_URL is not set (PostgreSQL, `postgres://user:password@host:5432/name`)",
        "  - JWT_SECRET must have at least 32 bytes",
    ]
    assert "hunter2" not in ran.stdout


def test_a_meinheld_that_a_request_can_end_is_not_used_and_the_start_says_so(tmp_path):
    released = tmp_path / "path" / "meinheld-1.0.2.dist-info"
    released.mkdir(parents=True)
    (released / "METADATA").write_text("Metadata-Version: 2.1\nName: meinheld\nVersion: 1.0.2\n")
    environment = ENVIRONMENT | {"PYTHONPATH": str(released.parent)}
    with GunicornProcess([*CONFIG, "wsgi:app"], tmp_path, environment).start() as process:
        lines = [json.loads(line) for line in process.output.splitlines()]
        assert send(process, "GET", "/health")[0] == 200
    by_event = {line.get("event"): line for line in lines}
    assert by_event["api.start"]["worker_class"] == "gthread"
    assert "scripts/meinheld/install.py" in by_event["api.no_fast_worker"]["message"]
