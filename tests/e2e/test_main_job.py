"""The main job over real processes: what is written is acknowledged, applied and read again, on both command logs."""

import gzip
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from scripts.stack.process_tree import frozen
from scripts.stack.server import wait_until
from tests.support.deployment import INHERITED, ROOT, Deployment
from tests.support.http_client import Client, Reply, Todo

GUNICORN = ("gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app")
WORKER = ("todo_worker",)
ABSENT_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
APPLIED_S = 20


@pytest.fixture(scope="module", params=[pytest.param("kafka", marks=pytest.mark.kafka), "streams"])
def deployment(request, servers, tmp_path_factory):
    """Two API processes and a worker, for the tests that leave them as they were."""
    folder = tmp_path_factory.mktemp(request.param)
    with (
        servers.settings(request.param) as env,
        Deployment(folder, env, env["JWT_SECRET"], processes=2) as running,
    ):
        yield running


@pytest.fixture
def client(deployment):
    return deployment.client


def applied(client: Client, todo_id: str, **contents: object) -> Todo:
    """Wait until the todo shows ``contents`` and return it."""
    found: Todo = {}

    def shows() -> bool:
        found.clear()
        found.update(client.todo(todo_id) or {})
        return bool(found) and found.items() >= contents.items()

    wait_until(shows, APPLIED_S, f"{contents} applied")
    return found


def listed(client: Client, todo_id: str) -> Todo | None:
    return next((todo for todo in client.get("/todos").json() if todo["id"] == todo_id), None)


def test_a_created_todo_is_accepted_and_then_shown_by_itself_and_in_the_list(client):
    contents = {"title": "Milch & Käse 🧀", "description": 'two lines\n"quoted"'}
    reply = client.request("POST", "/todos", contents)
    todo_id = reply.json()["id"]

    assert reply.status == 202
    assert reply.headers["Location"] == f"/todos/{todo_id}"
    assert reply.headers["Operation-Location"] == f"/operations/{reply.json()['operation']}"
    todo = applied(client, todo_id)
    assert todo.items() >= {"id": todo_id, "completed": False, "user_id": "ann", **contents}.items()
    assert todo["created_at"] == todo["updated_at"]
    wait_until(lambda: listed(client, todo_id) == todo, APPLIED_S, "listed")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_update_changes_what_it_names_and_keeps_the_rest(client, method):
    todo_id = client.create(title="milk", description="two")

    assert client.request(method, f"/todos/{todo_id}", {"completed": True}).status == 202
    assert client.request(method, f"/todos/{todo_id}", {"title": "cheese"}).status == 202

    todo = applied(client, todo_id, title="cheese")
    assert (todo["description"], todo["completed"]) == ("two", True)
    wait_until(lambda: listed(client, todo_id) == todo, APPLIED_S, "listed")


def test_a_deleted_todo_is_gone_from_the_list_and_by_its_id(client):
    todo_id = client.create(title="milk")
    applied(client, todo_id)

    assert client.request("DELETE", f"/todos/{todo_id}").status == 202

    wait_until(lambda: client.todo(todo_id) is None, APPLIED_S, "gone")
    wait_until(lambda: listed(client, todo_id) is None, APPLIED_S, "gone from the list")


def test_what_another_user_writes_to_a_todo_changes_nothing(client):
    todo_id = client.create(title="milk")
    bob = client.as_user("bob")

    assert bob.request("PATCH", f"/todos/{todo_id}", {"title": "stolen"}).status == 202
    assert bob.request("DELETE", f"/todos/{todo_id}").status == 202

    # One todo, one order: when this shows, the two before it have been dealt with.
    assert client.request("PATCH", f"/todos/{todo_id}", {"completed": True}).status == 202
    todo = applied(client, todo_id, completed=True)
    assert (todo["title"], todo["user_id"]) == ("milk", "ann")


def read_after(client: Client, path: str, operation: str) -> Reply:
    """Read ``path`` with If-Applied, again and again while the answer is 425."""
    replies: list[Reply] = []

    def answered() -> bool:
        replies.append(client.get(path, if_applied=operation))
        assert replies[-1].status == 200 or replies[-1].headers["Retry-After"] == "1", replies[-1]
        return replies[-1].status != 425

    wait_until(answered, APPLIED_S, "applied")
    return replies[-1]


def test_the_first_answer_to_a_reader_that_names_its_write_shows_it(client):
    # Whatever the two processes have in memory.
    for number in range(5):
        accepted = client.request("POST", "/todos", {"title": f"mine {number}"}).json()
        assert read_after(client, "/todos?limit=5", accepted["operation"]).json()[0]["id"] == accepted["id"]
        path = f"/todos/{accepted['id']}"
        assert read_after(client, path, accepted["operation"]).json()["title"] == f"mine {number}"


def test_pages_linked_by_next_walk_the_whole_list_newest_first(client):
    for number in range(7):
        applied(client, client.create(title=f"walk {number}"))
    pages: list[list[Todo]] = []
    newest: list[Todo] = []

    # Pages of the two processes may be of different states for a moment.
    def agree() -> bool:
        pages[:] = client.walk("/todos?limit=3")
        newest[:] = client.get("/todos").json()
        return [todo for page in pages for todo in page] == newest and len(newest) >= 7

    wait_until(agree, APPLIED_S, "the pages together are the list")
    assert [len(page) for page in pages[:-1]] == [3] * (len(pages) - 1)
    assert newest == sorted(newest, key=lambda todo: (todo["created_at"], todo["id"]), reverse=True)


def test_a_list_that_has_not_changed_is_answered_with_304_and_one_that_has_with_200(client):
    etag = ""

    # What the tests before wrote may reach the two processes at different moments.
    def is_unchanged() -> bool:
        nonlocal etag
        etag = client.get("/todos?limit=5").headers["ETag"]
        unchanged = client.get("/todos?limit=5", if_none_match=etag)
        return bool((unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", etag))

    wait_until(is_unchanged, APPLIED_S, "304")

    applied(client, client.create(title="something new"))
    wait_until(
        lambda: client.get("/todos?limit=5", if_none_match=etag).status == 200, APPLIED_S, "another ETag"
    )


def test_the_compressed_list_holds_the_plain_one(client):
    for number in range(3):
        applied(client, client.create(title=f"compressed {number}", description="x" * 1000))
    plain = compressed = client.get("/todos?limit=3")

    def show_one_state() -> bool:
        nonlocal plain, compressed
        plain = client.get("/todos?limit=3")
        compressed = client.get("/todos?limit=3", accept_encoding="gzip")
        return bool(plain.headers["ETag"] == compressed.headers["ETag"])

    wait_until(show_one_state, APPLIED_S, "both variants of one state")
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body
    assert len(compressed.body) < len(plain.body)
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Vary"] == compressed.headers["Vary"] == "Accept-Encoding, If-Applied"


@pytest.mark.parametrize("path", ["/todos", "/todos/{id}", "/health", "/ready"])
def test_head_answers_as_get_does_without_the_body(client, path):
    todo_id = client.create(title="milk")
    applied(client, todo_id)
    path = path.format(id=todo_id)

    head, get = client.request("HEAD", path), client.get(path)

    assert (head.status, head.body) == (get.status, b"") == (200, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(head.headers["Content-Length"]) > 0


def test_health_and_ready_say_that_all_is_well(client):
    assert (client.get("/health").status, client.get("/health").body) == (200, b"OK")
    ready = client.get("/ready")
    assert ready.status == 200
    assert {name: d["state"] for name, d in ready.json()["dependencies"].items()} == {
        "pages": "up", "postgres": "up", "redis": "up", "log": "up",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/todos"),
        ("PUT", f"/todos/{ABSENT_ID}"),
        ("PATCH", f"/todos/{ABSENT_ID}"),
        ("DELETE", f"/todos/{ABSENT_ID}"),
    ],
)
@pytest.mark.parametrize("authorization", ["", "Bearer nonsense", "Basic YW5uOmFubg=="])
def test_a_write_without_a_good_token_is_answered_with_401(client, method, path, authorization):
    reply = client.request(method, path, {"title": "milk"}, {"Authorization": authorization})

    assert reply.status == 401
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_each_api_process_has_a_producer_of_its_own_that_works(deployment, client):
    first, second = deployment.gunicorn.worker_pids()
    for other in (second, first):
        with frozen(other):
            todo_id = client.create(title=f"without {other}")
        applied(client, todo_id)


def test_no_connection_to_postgresql_is_shared_between_processes(deployment, client):
    port = urlsplit(deployment.env["DATABASE_URL"]).port
    pids = [deployment.gunicorn.master_pid, *deployment.gunicorn.worker_pids()]
    master, *workers = [
        {
            connection.laddr.port
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.raddr and connection.raddr.port == port
        }
        for pid in pids
    ]
    with psycopg.connect(deployment.env["DATABASE_URL"]) as connection:
        rows = connection.execute(
            "select client_port from pg_stat_activity where datname = current_database()"
        )
        backends = {client_port for (client_port,) in rows}

    assert master == set()
    assert len(workers) == 2
    assert all(ports & backends for ports in workers)
    assert workers[0].isdisjoint(workers[1])


def test_no_secret_is_in_the_output_after_good_and_bad_requests(deployment, client):
    client.create(title="milk")
    client.request("POST", "/todos", {"title": ""})
    client.request("POST", "/todos", {"title": "milk"}, {"Authorization": f"Bearer {client.token}x"})
    client.get(f"/todos?limit={client.token}")

    assert "worker.start" in deployment.worker.output
    assert "api.start" in deployment.gunicorn.output
    deployment.assert_output_is_clean()


def run(module: tuple[str, ...], folder, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program that is expected to end by itself, in a folder without ``.env``."""
    return subprocess.run(
        [sys.executable, "-m", *module],
        cwd=folder, env=INHERITED | env, check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


BAD = {
    "DATABASE_URL": "mysql://root:swordfish@localhost/todo",
    "REDIS_URL": "http://:swordfish@localhost",
    "KAFKA_BROKERS": "somewhere",
    "KAFKA_PARTITIONS": "many",
    "JWT_SECRET": "swordfish",
}
WRONG = [
    pytest.param(GUNICORN, BAD, set(BAD), id="api-wrong"),
    pytest.param(GUNICORN, {}, {"DATABASE_URL", "JWT_SECRET"}, id="api-missing"),
    pytest.param(WORKER, BAD, set(BAD) - {"JWT_SECRET"}, id="worker-wrong"),
    pytest.param(WORKER, {}, {"DATABASE_URL"}, id="worker-missing"),
]


@pytest.mark.parametrize(("module", "env", "named"), WRONG)
def test_bad_settings_end_the_program_with_one_message_that_names_them_all(tmp_path, module, env, named):
    ended = run(module, tmp_path, env)
    output = ended.stdout + ended.stderr

    assert ended.returncode not in (0, -signal.SIGTERM)
    lines = [line.split()[1] for line in output.splitlines() if line.startswith("  - ")]
    assert sorted(lines) == sorted(named), output
    assert "Traceback" not in output
    assert "swordfish" not in output


def test_settings_come_from_a_dotenv_file_and_the_real_environment_wins(servers, tmp_path):
    with servers.settings("streams") as env:
        in_file = env | {"JWT_SECRET": env["JWT_SECRET"][::-1], "KAFKA_PARTITIONS": "many"}
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in in_file.items()))
        real = {name: env[name] for name in ("JWT_SECRET", "KAFKA_PARTITIONS")}

        with Deployment(tmp_path, real, env["JWT_SECRET"]) as running:
            applied(running.client, running.client.create(title="milk"))
            stranger = Client(running.gunicorn.host, running.gunicorn.port, in_file["JWT_SECRET"])
            assert stranger.request("POST", "/todos", {"title": "milk"}).status == 401
