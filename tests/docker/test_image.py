"""What docker/Dockerfile puts into the image works by itself, outside a checkout."""

import os
import signal
import subprocess
from contextlib import contextmanager

import psycopg
import pytest

from scripts.cli import VERBS
from scripts.stack.server import free_port, wait_until
from scripts.verbs.bench import bench
from tests.docker.walk import DOCKERFILE, build, stages

# Most of it is the building, which compiles meinheld and downloads what pip has not kept.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The environment of the image."""
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def settings(postgres, redis_url):
    """An empty database, a cache, and nothing else of ours."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database image")
        yield {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": postgres.database_url("image"),
            "REDIS_URL": redis_url,
            "COMMAND_LOG": "streams",
            "JWT_SECRET": "0123456789abcdef-0123456789abcdef",
            "HTTP_PORT": str(free_port()),
            "WEB_CONCURRENCY": "1",
        }
        connection.execute("drop database image with (force)")


def todo(image, folder, settings, *arguments):
    return subprocess.run(
        [image / "bin" / "todo", *arguments],
        cwd=folder, env=settings, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def benchmark(image, settings, *arguments):
    """Let our own client read the list for a second, from a folder that cannot be written, as in the container."""
    url = f"http://127.0.0.1:{settings['HTTP_PORT']}"
    return todo(image, "/proc", settings, "bench", "http", url, "1", "2", *arguments)


@contextmanager
def running(image, folder, settings, name):
    output = folder / f"{name}.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [image / "bin" / "todo", name], cwd=folder, env=settings, stdout=file, stderr=file
        )
    try:
        yield process, output
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_it_migrates_serves_applies_and_tells_whether_it_lives(image, settings, tmp_path):
    migrated = todo(image, tmp_path, settings, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert todo(image, tmp_path, settings, "health").returncode == 1
    with (
        running(image, tmp_path, settings, "api") as (api, output),
        running(image, tmp_path, settings, "worker") as (worker, _),
    ):
        wait_until(lambda: todo(image, tmp_path, settings, "health").returncode == 0, 60, "health")
        assert "MeinheldWorker" in output.read_text()
        measured = benchmark(image, settings, "--generator", "own")
        assert measured.returncode == 0, measured.stderr
        assert "own client" in measured.stdout
        assert "Only shown: --results names a folder" in measured.stderr
        refused = benchmark(image, settings, "--results", "/proc/results")
        assert (refused.returncode, refused.stdout) == (1, "")
        api_url = f"http://127.0.0.1:{settings['HTTP_PORT']}"
        seeded = todo(image, tmp_path, settings, "seed", "--http", api_url, "--count", "3")
        assert seeded.returncode == 0, seeded.stderr
        assert api.poll() is None
        assert worker.poll() is None
    assert (api.returncode, worker.returncode) == (0, 0)


@pytest.mark.parametrize("verb", ["api", "worker", "migrate", "topics", "seed", "token", "bench", "health"])
def test_every_command_of_the_image_is_there(image, settings, tmp_path, verb):
    assert verb in VERBS
    done = todo(image, tmp_path, settings, verb, "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", sorted(set(bench.commands) - {"http"}))
def test_what_starts_servers_of_its_own_says_that_the_image_has_none(image, tmp_path, command):
    done = todo(image, tmp_path, {"PATH": str(tmp_path)}, "bench", command)
    assert done.returncode == 1
    assert "pip install 'todo-api[stack]'; the container image leaves it out" in done.stderr
    assert "Traceback" not in done.stderr


def test_spans_can_be_sent(image, tmp_path):
    done = subprocess.run(
        [image / "bin" / "python", "-c", "import todo_api.core.otel"],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_last_stage_is_a_user_with_a_number_that_is_asked_by_our_own_command():
    last = stages(DOCKERFILE.read_text())[-1]
    texts = {instruction.name: instruction.text for instruction in last}
    assert texts["USER"] == "10001:10001"
    assert texts["STOPSIGNAL"] == "SIGTERM"
    assert texts["ENTRYPOINT"] == '["todo"]'
    assert texts["HEALTHCHECK"].endswith('CMD ["todo", "health"]')
    assert "apt-get" not in str(last), "tools of the build stay in the build"
    assert "org.opencontainers.image.licenses" in texts["LABEL"]
