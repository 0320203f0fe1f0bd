"""``todo up`` as its user sees it: a command that is started, asked, and stopped."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.stack.server import free_port, wait_until

TODO = Path(sys.executable).with_name("todo")
STOP_TIMEOUT_S = 25


class Up:
    """One ``todo up`` in an empty folder."""

    def __init__(self, folder, port, *options):
        self.port = port
        self.folder = folder
        self._printed = folder / f"printed-{uuid4()}"
        with self._printed.open("wb") as output:
            self.process = subprocess.Popen(
                [TODO, "up", "--port", str(port), "--workers", "1", *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def printed(self):
        return self._printed.read_text()

    def ask(self, method, path, *, token=None, body=None):
        """Return status and JSON; no status when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body=json.dumps(body) if body else None, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")
        except (OSError, http.client.HTTPException):
            return None, None
        finally:
            connection.close()

    def is_ready(self):
        return self.ask("GET", "/ready")[0] == 200

    def wait_ready(self):
        def banner():
            assert self.process.poll() is None, self.printed
            return "Ctrl-C stops it" in self.printed

        wait_until(banner, 180, "the banner")
        wait_until(self.is_ready, 30, "/ready")

    def token(self):
        return re.findall(r"^ey[\w.-]+$", self.printed, re.MULTILINE)[0]

    def create(self, title):
        answers = []

        def is_answered():
            # The workers of a master that was killed may still say that they are ready, and then hang up; a log that
            # other tests keep from the processors may be given up for a moment.
            answers.append(self.ask("POST", "/todos", token=self.token(), body={"title": title}))
            return answers[-1][0] not in (None, 503)

        wait_until(is_answered, 30, "an answer")
        status, answer = answers[-1]
        assert status == 202, (status, answer)
        return answer["id"]

    def titles(self):
        status, todos = self.ask("GET", "/todos")
        return {todo["title"] for todo in todos} if status == 200 else set()

    def children(self):
        """Every process below it, by process id."""
        parents: dict[int, list[int]] = {}
        for line in subprocess.check_output(["ps", "-eo", "pid=,ppid=,stat="], text=True).splitlines():
            pid, parent, state = line.split()
            if not state.startswith("Z"):
                parents.setdefault(int(parent), []).append(int(pid))
        found, queue = set(), [self.process.pid]
        while queue:
            below = parents.get(queue.pop(), [])
            found.update(below)
            queue += below
        return found

    def pid_of(self, program):
        """The process that supervisord started for it last."""
        log = (self.folder / ".todo" / "logs" / "supervisord.log").read_text()
        return int(re.findall(rf"spawned: '{program}' with pid (\d+)", log)[-1])

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)


def is_running(pid):
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(shown.strip()) and not shown.startswith("Z")


@contextmanager
def ups(folder):
    """Yield a function that starts ``todo up``; all that is left of it at the end is stopped."""
    started = []

    def start(*options, port=None):
        started.append(Up(folder, port or free_port(), *options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.wait(STOP_TIMEOUT_S + 5)


@pytest.fixture
def up(tmp_path):
    with ups(tmp_path) as start:
        yield start


@pytest.fixture
def stack(up, tmp_path):
    # What is there for other servers must not matter.
    (tmp_path / ".env").write_text(
        "DATABASE_URL=postgres://db.invalid/x\nREDIS_URL=redis://cache.invalid\nPUBLISHER_SOCKET=/nowhere/relay.sock\n"
    )
    stack = up()
    stack.wait_ready()
    return stack


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """A stack for the tests that leave it running."""
    with ups(tmp_path_factory.mktemp("lasting")) as start:
        stack = start()
        stack.wait_ready()
        yield stack


def test_what_the_banner_says_to_copy_makes_a_todo_that_is_listed_and_still_there_after_a_restart(up, stack):
    create, listing = re.findall(r"^curl .*$", stack.printed, re.MULTILINE)
    subprocess.run(f"{create} --fail --silent --max-time 10", shell=True, check=True, capture_output=True)  # noqa: S602
    wait_until(lambda: "Buy milk" in stack.titles(), 20, "the todo is listed")
    listed = subprocess.run(f"{listing} --fail --silent", shell=True, capture_output=True, text=True)  # noqa: S602
    assert "Buy milk" in listed.stdout

    assert stack.stop(signal.SIGINT) == 0
    again = up(port=stack.port)
    again.wait_ready()
    wait_until(lambda: "Buy milk" in again.titles(), 20, "the todo is still listed")


def test_a_killed_api_and_a_killed_worker_come_back(lasting):
    stack = lasting
    api, worker = stack.pid_of("api"), stack.pid_of("worker")
    os.kill(api, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: stack.pid_of("api") != api and stack.pid_of("worker") != worker, 30, "started again")
    wait_until(stack.is_ready, 30, "ready again")
    stack.create("after the kill")
    wait_until(lambda: "after the kill" in stack.titles(), 30, "the todo is listed")
    wait_until(lambda: "api had died and was started again" in stack.printed, 10, "it is said")


def test_killed_servers_come_back_with_what_was_acknowledged(lasting):
    stack = lasting
    stack.create("before the kill")
    for server in ("valkey", "postgres"):
        os.kill(stack.pid_of(server), signal.SIGKILL)
    wait_until(stack.is_ready, 60, "ready again")
    wait_until(lambda: "before the kill" in stack.titles(), 60, "the todo is listed")


def test_sigterm_stops_every_program_in_time_and_a_second_one_changes_nothing(stack):
    children = stack.children()
    # supervisord, postgres and its own, valkey, the worker, gunicorn and its own
    assert len(children) >= 7
    stack.process.send_signal(signal.SIGTERM)
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(STOP_TIMEOUT_S) == 0
    assert not [pid for pid in children if is_running(pid)]
    assert "Stopped; the data is kept" in stack.printed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_stack_whose_owner_was_killed_ends_and_makes_way_for_the_next(up, stack):
    children = stack.children()
    stack.process.kill()
    stack.process.wait()
    again = up(port=stack.port)
    again.wait_ready()
    assert not [pid for pid in children if is_running(pid)]


def test_a_second_one_on_the_same_folder_names_the_first(lasting):
    with ups(lasting.folder) as up:
        second = up()
        assert second.process.wait(20) == 1
    assert f"process {lasting.process.pid}, http://127.0.0.1:{lasting.port}" in second.printed
    assert lasting.is_ready()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_nobody_elsewhere_can_reach_it(lasting):
    socket.create_connection(("127.0.0.1", lasting.port), 10).close()
    # Another address of this machine, as a neighbour would use.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", lasting.port), 10)


def test_a_port_that_is_taken_is_named_and_another_is_offered(up, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = up(port=port)
        assert refused.process.wait(20) == 2
    (offered,) = re.findall(r"todo up --port (\d+)", refused.printed)
    assert f"Port {port} is taken" in refused.printed
    assert int(offered) != port
    assert not (tmp_path / ".todo" / "postgres").exists()


def test_a_wrong_setting_is_named_before_anything_runs(tmp_path):
    done = subprocess.run(
        [TODO, "up"], cwd=tmp_path, env=os.environ | {"JWT_SECRET": "short"}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "JWT_SECRET must have at least" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_does_not_start_is_shown_with_the_end_of_its_log(up, tmp_path):
    data = tmp_path / ".todo" / "valkey"
    data.mkdir(parents=True)
    (data / "appendonlydir").write_text("not a folder")
    stack = up()
    assert stack.process.wait(30) == 1
    assert "valkey stopped while starting" in stack.printed
    assert "appendonlydir" in stack.printed
    assert "Traceback" not in stack.printed
    assert not stack.children()


@pytest.mark.kafka
def test_commands_wait_in_kafka_when_asked_for(up):
    stack = up("--kafka")
    stack.wait_ready()
    stack.create("through Kafka")
    wait_until(lambda: "through Kafka" in stack.titles(), 60, "the todo is listed")
    assert "commands wait in Kafka (started here)" in stack.printed
    assert "Starting relay, worker and API" in stack.printed
    assert "relay starts" in (stack.folder / ".todo" / "logs" / "relay.log").read_text()
    assert stack.stop() == 0
