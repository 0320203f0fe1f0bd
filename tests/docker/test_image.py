"""What docker/Dockerfile puts into the image works by itself, outside a checkout."""

import os
import signal
import subprocess
from contextlib import contextmanager

import psycopg
import pytest

from scripts.cli import VERBS
from scripts.stack.server import free_port, wait_until
from tests.docker.walk import DOCKERFILE, build, stages

pytestmark = pytest.mark.timeout(300)


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
        assert api.poll() is None
        assert worker.poll() is None
    assert (api.returncode, worker.returncode) == (0, 0)


@pytest.mark.parametrize("verb", ["api", "worker", "migrate", "topics", "seed", "token", "bench", "health"])
def test_every_command_of_the_image_is_there(image, settings, tmp_path, verb):
    assert verb in VERBS
    done = todo(image, tmp_path, settings, verb, "--help")
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
