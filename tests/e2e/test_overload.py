"""More than a process can do, over real sockets."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gunicorn import GunicornProcess
from tests.support.http_client import Client, Reply

WORK_S = 0.25
REQUESTS = 12


@pytest.fixture(params=["todo_api.meinheld_worker.MeinheldWorker", "gthread"])
def client(request, tmp_path):
    if request.param != "gthread":
        pytest.importorskip("meinheld")
    arguments = ["--worker-class", request.param, "--threads", "1", "tests.e2e.apps.overloaded:application"]
    with GunicornProcess(["--pythonpath", str(request.config.rootpath), *arguments], tmp_path) as server:
        yield Client(server.host, server.port, "s" * 32)


def test_who_would_wait_too_long_is_refused_and_the_others_are_served(client):
    def ask(_: int) -> tuple[Reply, float]:
        began = time.monotonic()
        return client.get(f"/sleep/{WORK_S}"), time.monotonic() - began

    with ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(ask, range(REQUESTS)))

    statuses = [reply.status for reply, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 2
    # Without refusals the last one has waited for all others.
    assert max(took_s for _, took_s in answers) < REQUESTS * WORK_S
