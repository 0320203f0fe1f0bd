"""The running service against its own OpenAPI document, with requests that a generator makes up from it."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.stack.server import wait_until
from tests.support.deployment import INHERITED, Deployment

PAGE = "https://app.example"


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    """One API process that pages of one origin may use."""
    with servers.settings("streams") as env:
        env = env | {"CORS_ALLOW_ORIGINS": PAGE}
        with Deployment(tmp_path_factory.mktemp("openapi"), env, env["JWT_SECRET"]) as running:
            yield running


# What cannot be made up from the document: ids of what there is, and headers with a grammar of their own.
CONFIG = """
[parameters]
"If-Applied" = "{operation}"
"If-Match" = "*"
"Idempotency-Key" = "once"
"path.todo_id" = "{todo_id}"

[[operations]]
include-name = "GET /todos"
# A cursor is good for its filters alone.
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", "400"]

[[operations]]
include-name = "GET /operations/{{operation_id}}"
parameters = {{ "path.operation_id" = "{operation}" }}

[[operations]]
include-name = "GET /problems/{{name}}"
parameters = {{ "path.name" = "not-found" }}

[[operations]]
include-name = "GET /assets/{{name}}"
parameters = {{ "path.name" = "todos.js" }}
"""


@pytest.mark.timeout(240)  # some 300 requests, on whatever machine
def test_what_the_service_answers_is_what_its_document_says(deployment, tmp_path):
    """Statuses, media types, headers and bodies; bad requests refused, good ones accepted, no answer 500."""
    client = deployment.client
    created = client.request("POST", "/todos", {"title": "milk"})
    status = created.headers["Operation-Location"]
    wait_until(lambda: client.get(status).json()["status"] == "applied", 20, "applied")
    names = {"operation": created.json()["operation"], "todo_id": created.json()["id"]}
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(**names))
    document = client.get("/openapi.json")
    # From a file: of a document it fetched itself, it would leave the path of the document out.
    (tmp_path / "document.json").write_bytes(document.body)

    host, port = deployment.gunicorn.host, deployment.gunicorn.port
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", "document.json",
            "--url", f"http://{host}:{port}",
            "--header", f"Authorization: Bearer {client.token}", "--no-color",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "5",
            "--generation-deterministic", "--generation-allow-x00", "false",
            # It would send tokens of its own in place of ours.
            "--generation-with-security-parameters", "false",
            # meinheld answers 400 itself to a method it does not know; the others are in the unit test.
            "--exclude-checks", "unsupported_method",
        ],
        cwd=tmp_path, env=INHERITED, check=False, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    described = sum(map(len, document.json()["paths"].values()))
    assert f"{described} selected / {described} total" in done.stdout, done.stdout
    assert "Warnings" not in done.stdout, done.stdout


def test_a_page_of_an_allowed_origin_may_read_hot_lists_too(deployment):
    client = deployment.client
    for _ in range(3):
        reply = client.get("/todos?limit=3", origin=PAGE)
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE
        assert reply.headers.get_all("Vary") == ["Accept-Encoding, If-Applied, Origin"]
        assert client.get("/todos?limit=3").headers["Access-Control-Allow-Origin"] is None
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    preflight = client.request("OPTIONS", "/todos", headers=asked)
    assert preflight.status == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]


def test_the_versioned_paths_work_as_the_others(deployment):
    client = deployment.client
    created = client.request("POST", "/v1/todos", {"title": "milk"})
    assert created.status == 202
    assert created.headers["Location"] == f"/v1/todos/{created.json()['id']}"
    assert client.get(created.headers["Operation-Location"]).status == 200
    assert client.get("/v1/todos?limit=1").headers["ETag"]
