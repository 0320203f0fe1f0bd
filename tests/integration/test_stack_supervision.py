"""Programs kept running, stopped in order, and never left behind."""

import os
import signal
import subprocess
import sys

import pytest

from scripts.stack.server import StackError, wait_until
from scripts.stack.supervision import Program, Supervision, tail

# Writes its name and environment when it starts and its name when it is asked to stop.
PROGRAM = """
import os, signal, sys, time
name, record = sys.argv[1:]
def note(what):
    with open(record, "a") as file:
        file.write(f"{what} {name}\\n")
def stop(*_):
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("GIVEN", os.environ.get("GIVEN"), flush=True)
note("started")
while True:
    time.sleep(1)
"""


def program(name, record, *, stage=1, given="", code=PROGRAM):
    file = record.with_name(f"{name}.py")
    file.write_text(code)
    return Program(
        name=name,
        command=[sys.executable, str(file), name, str(record)],
        environment={"GIVEN": given},
        stage=stage,
        stop_signal=signal.SIGTERM,
        stop_timeout_s=5.0,
    )


@pytest.fixture
def lock(tmp_path):
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def record(tmp_path):
    return tmp_path / "record"


@pytest.fixture
def supervise(tmp_path, lock):
    """Start a Supervision of these programs, all of them running."""
    started = []

    def start(*programs, folder=tmp_path):
        supervision = Supervision(folder, programs, lock)
        started.append(supervision)
        supervision.start()
        for each in programs:
            supervision.start_program(each.name)
        return supervision

    yield start
    for supervision in started:
        supervision.stop()


def lines(record):
    return record.read_text().splitlines() if record.exists() else []


def is_gone(pid):
    """Say whether the process has ended (a zombie that nobody has collected yet has)."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not shown.strip() or shown.startswith("Z")


def test_a_higher_stage_is_stopped_before_a_lower_one(supervise, record):
    supervision = supervise(
        program("server", record, stage=1),
        program("worker", record, stage=2),
        program("api", record, stage=3),
    )
    wait_until(lambda: len(lines(record)) == 3, 20, "all started")
    supervision.stop()
    assert lines(record)[3:] == ["stopped api", "stopped worker", "stopped server"]


def test_a_killed_program_comes_back(supervise, record):
    supervision = supervise(program("api", record))
    wait_until(lambda: supervision.state("api").name == "RUNNING", 20, "running")
    first = supervision.state("api").pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(lines(record)) == 2, 20, "started twice")
    assert supervision.state("api").pid != first


def test_a_program_that_keeps_failing_is_tried_again_after_supervisor_gave_up(supervise, record, monkeypatch):
    monkeypatch.setattr("scripts.stack.supervision._ATTEMPTS", 1)
    supervision = supervise(program("api", record, code="raise SystemExit('no luck')"))
    log = supervision.log("api")
    wait_until(lambda: supervision.state("api").name == "FATAL", 20, "given up")
    attempts = log.read_text().count("no luck")
    supervision.keep_running()
    wait_until(lambda: log.read_text().count("no luck") > attempts, 20, "tried again")
    assert "no luck" in tail(log)


def test_a_program_that_is_not_there_is_said_to_be(supervise, record):
    missing = Program(
        name="api", command=["/nonexistent/api"], environment={}, stage=1, stop_signal=signal.SIGTERM, stop_timeout_s=1
    )  # fmt: skip
    said = ""
    try:
        supervision = supervise(missing)
    except StackError as ex:
        said = str(ex)
    if said:
        assert "api cannot be started" in said
    else:
        # setpriv was started in its place, and had not ended again when the supervisor looked.
        assert os.path.exists("/usr/bin/setpriv")
        wait_until(lambda: "nonexistent" in tail(supervision.log("api")), 20, "said so")


@pytest.mark.parametrize("value", ["plain", "50%", "a b", "a=b,c", "%(ENV_HOME)s", "naïve", "x#y;z"])
def test_a_program_gets_its_environment_unchanged(supervise, record, value):
    supervision = supervise(program("api", record, given=value))
    wait_until(lambda: lines(record), 20, "started")
    wait_until(lambda: f"GIVEN {value}\n" in supervision.log("api").read_text(), 20, "said so")


@pytest.mark.parametrize("value", ["it's", 'the "word"'])
def test_an_environment_that_supervisor_would_change_is_refused(supervise, record, value):
    with pytest.raises(StackError, match="quotation mark"):
        supervise(program("api", record, given=value))


def test_a_folder_with_an_odd_or_a_long_name_will_do(supervise, record, tmp_path):
    folder = tmp_path / 'it\'s 100% "odd"' / ("x" * 100)
    folder.mkdir(parents=True)
    supervise(program("api", record), folder=folder)
    wait_until(lambda: lines(record), 20, "started")


@pytest.mark.parametrize("name", ["a #1", "a ;b", "a\nb"])
def test_a_folder_that_supervisor_cannot_cope_with_is_refused(supervise, record, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(StackError, match="--data-dir"):
        supervise(program("api", record), folder=folder)


def test_stopping_twice_or_before_the_start_does_nothing(tmp_path, lock, record):
    supervision = Supervision(tmp_path, [program("api", record)], lock)
    supervision.stop()
    supervision.start()
    supervision.stop()
    supervision.stop()
    assert not supervision.is_alive()


OWNER = """
import os, signal, sys, time
from pathlib import Path
from scripts.stack.supervision import Program, Supervision
folder = Path(sys.argv[1])
programs = [
    Program(name=name, command=[sys.executable, str(folder / "program.py"), name, str(folder / "record")],
            environment={}, stage=stage, stop_signal=signal.SIGTERM, stop_timeout_s=5.0)
    for stage, name in enumerate(["server", "worker", "api"])
]
supervision = Supervision(folder, programs, os.open(folder / "lock", os.O_RDWR | os.O_CREAT))
supervision.start()
for program in programs:
    supervision.start_program(program.name)
time.sleep(1000)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that supervises three programs and can be killed."""
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)])
    yield process
    process.kill()
    process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_when_we_are_killed_everything_is_stopped_in_order(owner, tmp_path, record):
    wait_until(lambda: len(lines(record)) == 3, 20, "all started")
    supervisord = int((tmp_path / "supervisord.pid").read_text())
    owner.kill()
    wait_until(lambda: is_gone(supervisord), 20, "supervisord ended")
    assert lines(record)[3:] == ["stopped api", "stopped worker", "stopped server"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_when_supervisord_is_killed_every_program_is_stopped(owner, tmp_path, record):
    wait_until(lambda: len(lines(record)) == 3, 20, "all started")
    os.kill(int((tmp_path / "supervisord.pid").read_text()), signal.SIGKILL)
    wait_until(lambda: len(lines(record)) == 6, 20, "all stopped")
    assert sorted(lines(record)[3:]) == ["stopped api", "stopped server", "stopped worker"]
