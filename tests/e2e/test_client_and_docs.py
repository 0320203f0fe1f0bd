"""The Python client and the documentation, on the running service: every block of it is run as a reader would.

Import nothing of the API but its client: that is what users have.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.stack.server import wait_until
from tests.support.deployment import INHERITED, ROOT, Deployment
from todo_api.client import NotFound, Rejected, TodoClient, Unavailable, Unreachable

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):8080")
RUN_S = 60

# Lines of bash blocks that are not run, by how they begin, and what looks after them instead.
NOT_RUN = {
    "make": "runs this very suite, or `todo up` (test_todo_up.py); its targets are checked in unit/test_docs.py",
    "python3 -m venv": "what scripts/setup.sh does before any test runs",
    ". .venv/bin/activate": "likewise; the tests run in that environment",
    "python scripts/meinheld/install.py": "likewise",
    "pip install": "likewise; that an index serves this project is for a release to see",
    "todo topics": "needs Kafka: run for every deployment on it (test_main_job.py)",
    "gunicorn wsgi:app": "stays; it is what answers here, and what every end-to-end test starts",
    "python -m todo_worker": "likewise",
    "export PUBLISHER_SOCKET": "for the next",
    "python -m todo_api.relay": "stays: integration/test_relay.py starts it",
    "scripts/benchmark.sh": "half a minute of load each",
    ".venv/bin/todo bench": "minutes of load",
    "todo dlq": "needs dead letters of these numbers: integration/test_dlq.py makes them",
}
# Python blocks that are pieces of a file of ours and not programs.
FRAGMENTS = {"CONTRIBUTING.md"}


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    with servers.settings("streams") as env, Deployment(folder, env, env["JWT_SECRET"]) as running:
        yield running


@pytest.fixture(scope="module")
def todos(deployment):
    with TodoClient(deployment.gunicorn.base_url, deployment.client.token) as client:
        yield client


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What a reader sees of the checkout; what a block writes stays apart."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("scripts", "config", "wsgi.py", "gunicorn.conf.py", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def blocks(language):
    return [
        pytest.param(document, body, id=f"{document.relative_to(ROOT)}:{number}")
        for document in DOCUMENTS
        for number, (name, body) in enumerate(FENCE.findall(document.read_text()))
        if name == language
    ]


def is_run(line):
    return line.strip() != "" and not any(line.startswith(beginning) for beginning in NOT_RUN)


def run(deployment: Deployment, folder: Path, command, source: str) -> str:
    """Run a program on standard input with the settings of the deployment, at its address, and return its output."""
    env = INHERITED | deployment.env | {"TODO_TOKEN": deployment.client.token}
    # The server of the tests is small; `todo doctor` minds.
    env["DB_POOL_SIZE"] = "10"
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=RUN_S,
        input=ADDRESS.sub(deployment.gunicorn.base_url, source),
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{source}"
    return done.stdout


@pytest.mark.parametrize(
    ("document", "body"),
    [block for block in blocks("bash") if any(map(is_run, block.values[1].splitlines()))],
)
def test_a_bash_block_runs(deployment, checkout, document, body):
    lines = [line for line in body.splitlines() if is_run(line)]
    # curl succeeds on an error of the API unless it is told.
    prelude = 'set -euo pipefail\ncurl() { command curl --silent --show-error --fail "$@"; }\n'
    run(deployment, checkout, ["bash"], prelude + "\n".join(lines))


def test_every_line_that_is_not_run_is_there_and_so_is_what_looks_after_it():
    named = re.findall(r"[\w/]+\.py", " ".join(NOT_RUN.values()))
    assert [name for name in named if not list((ROOT / "tests").rglob(name))] == []
    lines = [line for block in blocks("bash") for line in block.values[1].splitlines()]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if "```python" in path.read_text() and path.name not in FRAGMENTS],
    ids=lambda path: path.name,
)  # fmt: skip
def test_the_python_blocks_of_a_document_run_as_one_program(deployment, checkout, document):
    program = "\n".join(body for name, body in FENCE.findall(document.read_text()) if name == "python")
    output = run(deployment, checkout, [sys.executable, "-W", "error", "-"], program)

    if document.name == "client.md":
        assert output.splitlines() == [
            "Buy milk",
            "(FieldProblem(pointer='/title', detail='must not be blank'),)",
            "There was no such todo",
        ]


def test_seeding_over_http_creates_each_todo_once(deployment, checkout, todos):
    command = f"todo seed --count 70 --user eve --http {deployment.gunicorn.base_url}/"
    output = run(deployment, checkout, ["bash"], command)

    assert (
        output.splitlines()[-1] == f"70 todos of eve accepted by {deployment.gunicorn.base_url}/, and applied"
    )
    wait_until(lambda: len(titles(todos, "eve")) == 70, 15, "all applied")
    assert titles(todos, "eve") == {f"Seed todo {number:05}" for number in range(70)}


def titles(todos, user):
    # In pages smaller than the list.
    return {todo.title for todo in todos.todos(page_size=30) if todo.user_id == user}


def test_what_was_written_is_seen_by_a_read_that_names_it(todos):
    write = todos.create("Käse 🧀", "two\nlines")

    todo = todos.get(write.todo_id, after=[write])

    assert (todo.title, todo.description, todo.completed, todo.user_id) == (
        "Käse 🧀",
        "two\nlines",
        False,
        "ann",
    )
    assert todo in todos.page(after=[write])
    todos.wait(todos.delete(write.todo_id))
    with pytest.raises(NotFound):
        todos.get(write.todo_id)


def test_a_rejection_is_raised_with_its_reason(deployment, todos):
    write = todos.create("ann's")
    with TodoClient(deployment.gunicorn.base_url, deployment.client.as_user("bob").token) as bob:
        stolen = bob.update(write.todo_id, title="bob's")
        with pytest.raises(Rejected, match="another user's"):
            bob.wait(stolen)
        assert bob.operation(stolen).status == "rejected"


@pytest.mark.faults
def test_a_write_while_the_log_is_away_is_sent_again_until_it_is_accepted(deployment, servers, todos):
    hurried = TodoClient(deployment.gunicorn.base_url, deployment.client.token, deadline_s=3)
    valkey = servers.process("valkey")
    write = todos.create("Patience")
    todos.wait(write)
    valkey.freeze()
    try:
        with hurried, pytest.raises((Unavailable, Unreachable)):
            hurried.update(write.todo_id, title="Impatience")
    finally:
        valkey.resume()
    # The breaker of the API is open now; this waits for it.
    todos.wait(todos.update(write.todo_id, completed=True))
    assert todos.get(write.todo_id).completed
