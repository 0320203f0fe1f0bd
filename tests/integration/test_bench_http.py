"""``todo bench http`` and its own load generator, against a small server that behaves and misbehaves as it is told."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from scripts.bench.load import Plan
from scripts.bench.own_client import OwnClient
from scripts.cli import main

ROOT = Path(__file__).parents[2]


class Server:
    """Answers GET with 1,000 bytes. Paths: /good, /cold, /second-fails, /hangs, /chunked.

    Each connection to /second-fails gets one good answer, then only errors. ``stall_at`` makes the server stand still.
    """

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stall = (-1, 0.0)
        self._stalled_until = 0.0
        self._tasks = set()
        self.requests = 0

    def __enter__(self):
        self._thread.start()
        started = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(started, self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall_at(self, request, seconds):
        """From that request on, answer nothing for ``seconds``."""
        self._stall = (request, seconds)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        answers = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1].decode()
                self.requests += 1
                answers += 1
                if self.requests == self._stall[0]:
                    self._stalled_until = self._loop.time() + self._stall[1]
                await asyncio.sleep(max(0.0, self._stalled_until - self._loop.time()))
                writer.write(self._answer(path, answers))
                if path == "/hangs" and answers > 1:
                    await asyncio.Event().wait()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _answer(self, path, answers):
        body = b"x" * 1000
        if path == "/second-fails" and answers > 1:
            return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        if path == "/hangs" and answers > 1:
            return b""
        if path == "/chunked":
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + body + b"\r\n0\r\n\r\n"
        cold = b"Cache-Status: proxy; fwd=uri-miss\r\n" if path == "/cold" else b""
        return b"HTTP/1.1 200 OK\r\n" + cold + b"Content-Length: 1000\r\n\r\n" + body


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def bench(server, tmp_path):
    """Run ``todo bench http`` on a path of the server for a second, with our own client."""

    def call(path, *options):
        return CliRunner().invoke(
            main,
            ["bench", "http", server.url, "1", "4", "--path", path, "--generator", "own"]
            + ["--results", str(tmp_path / "results"), *options],
        )

    return call


def test_a_run_writes_its_figures_and_plots_and_is_compared_with_the_one_before(bench, server, tmp_path):
    baseline = tmp_path / "baseline.json"
    first = bench("/good", "--save-baseline", str(baseline))
    assert first.exit_code == 0, first.output
    (folder,) = (tmp_path / "results").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["failures"] == 0
    # The server also saw the warm-up and the probes.
    assert 0 < result["requests"] < server.requests
    assert result["answer_bytes"] == 1000
    assert sum(result["throughput"]["requests"]) == result["requests"]
    assert 0 < result["latency_ms"]["50"] <= result["latency_ms"]["99"] <= result["latency_ms"]["100"]
    # The server is a thread of this process, which the bench finds behind the port.
    assert result["requests_per_server_cpu_s"] > 0
    assert json.loads(baseline.read_text()) == result
    assert (folder / "report.md").read_text().startswith(f"# GET {server.url}/good")
    for plot in folder.glob("*.svg"):
        ElementTree.parse(plot)  # noqa: S314 written by us

    better = {**result, "requests_per_s": result["requests_per_s"] * 100}
    baseline.write_text(json.dumps(better))
    second = bench("/good", "--baseline", str(baseline))
    assert second.exit_code == 3
    assert "worse than the baseline" in second.output


def test_a_server_that_answers_with_errors_under_load_is_refused_and_nothing_is_written(bench, tmp_path):
    run = bench("/second-fails")
    assert run.exit_code == 1
    assert "more than 0.1%" in run.output
    assert [*(tmp_path / "results").glob("*")] == []


def test_a_cold_cache_is_refused(bench):
    run = bench("/cold")
    assert run.exit_code == 1
    assert "the cache was cold" in run.output


def test_the_script_hands_its_arguments_on_and_a_server_that_is_not_there_is_one_sentence():
    run = subprocess.run(
        [ROOT / "scripts" / "benchmark.sh", "http://127.0.0.1:9", "1", "1", "--path", "/nothing"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert run.returncode == 1
    assert "Nobody answers at http://127.0.0.1:9/nothing" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_every_request_that_was_due_while_the_server_stood_still_is_charged_for_it(server):
    server.stall_at(20, 0.5)
    plan = Plan(url=f"{server.url}/good", duration_s=1, connections=2, rate=100.0)
    load = OwnClient(1).load(plan)
    assert (load.requests, load.failures) == (100, 0)
    # 50 were due meanwhile, 40 of them more than 0.1 s before it went on; two connections saw it.
    assert load.latency_s[61.0] > 0.1


def test_requests_that_never_get_an_answer_are_failures(server):
    plan = Plan(url=f"{server.url}/hangs", duration_s=1, connections=2, rate=20.0)
    load = OwnClient(1).load(plan)
    assert (load.requests, load.failures) == (2, 18)
    assert load.latency_s[100.0] >= 1.0


def test_answers_of_unknown_length_are_read_as_well(server):
    begun: list[int] = []
    plan = Plan(url=f"{server.url}/chunked", duration_s=1, connections=3)
    load = OwnClient(2).load(plan, lambda: begun.append(server.requests))
    assert len(begun) == 1
    assert load.requests > 0
    assert load.failures == 0


def test_a_port_where_nobody_listens_is_only_failures():
    load = OwnClient(1).load(Plan(url="http://127.0.0.1:9/", duration_s=1, connections=1))
    assert load.requests == 0
    assert load.failures > 0
