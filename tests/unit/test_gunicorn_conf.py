import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from config.instance_memory import InstanceMemory
from scripts.stack.server import wait_until
from tests.support.api import SECRET

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gunicorn_conf(monkeypatch):
    """The module as gunicorn's master imports it."""
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("HTTP_PORT", "8123")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    monkeypatch.delitem(sys.modules, "config.gunicorn_conf", raising=False)
    yield importlib.import_module("config.gunicorn_conf")
    sys.modules.pop("config.gunicorn_conf")


@pytest.fixture
def sigterm():
    """Puts the test process's own handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class App:
    def __init__(self, told):
        self.told = told

    def join(self, _memory, slots, own):
        self.told.append(f"join {own} of {slots}")

    def start(self):
        self.told.append("start")

    def drain(self):
        self.told.append("drain")

    def stop(self, timeout_s):
        self.told.append(f"stop within {timeout_s:g}")


def test_every_name_is_a_setting_gunicorn_knows_and_takes(gunicorn_conf):
    config = Config()
    for name in gunicorn_conf.__all__:
        config.set(name, getattr(gunicorn_conf, name))
    assert config.bind == ["0.0.0.0:8123"]
    assert config.workers == 3
    assert not config.preload_app


def test_the_master_loads_what_workers_share_and_nothing_of_ours():
    program = """
import sys
from config import gunicorn_conf
before = set(sys.modules)
gunicorn_conf._load_for_all()
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    env = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing",
        "JWT_SECRET": SECRET,
    }
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"falcon", "psycopg", "psycopg_pool", "redis", "jwt", "kafka"} <= set(loaded)
    assert not {"todo_api", "todo_worker", "config", "confluent_kafka"} & set(loaded)


def test_the_file_gunicorn_loads_by_itself_has_those_names(gunicorn_conf):
    loaded: dict[str, object] = {}
    exec((Path(__file__).parents[2] / "gunicorn.conf.py").read_text(), loaded)  # noqa: S102
    assert set(gunicorn_conf.__all__) <= set(loaded)


@pytest.mark.usefixtures("sigterm")
def test_sigterm_makes_it_not_ready_before_the_worker_leaves(gunicorn_conf):
    told: list[str] = []
    worker = SimpleNamespace(
        wsgi=App(told),
        handle_exit=lambda number, _frame: told.append(f"leave {number}"),
        slot=None,
        admin_listener=None,
    )
    gunicorn_conf.post_worker_init(worker)
    os.kill(os.getpid(), signal.SIGTERM)
    # A worker class that installs its handlers later takes the same one from the worker.
    worker.handle_exit(signal.SIGTERM, None)
    assert told == ["start", "drain", f"leave {signal.SIGTERM:d}", "drain", f"leave {signal.SIGTERM:d}"]


class Master:
    """What the hooks see of gunicorn's."""

    def __init__(self):
        self.instance_memory = InstanceMemory(1)
        self.admin_listener = None


def _worker(told):
    return SimpleNamespace(wsgi=App(told), handle_exit=lambda _number, _frame: told.append("leave"))


@pytest.mark.usefixtures("sigterm")
def test_sigterm_waits_while_another_worker_boots(gunicorn_conf):
    told: list[str] = []
    master, old, new = Master(), _worker(told), _worker([])
    gunicorn_conf.pre_fork(master, old)
    gunicorn_conf.post_worker_init(old)
    gunicorn_conf.pre_fork(master, new)
    os.kill(os.getpid(), signal.SIGTERM)
    assert told == ["join 0 of 18", "start"]
    master.instance_memory.serves(new.slot)
    wait_until(lambda: "leave" in told, 10, "it leaves")
    assert told[2:] == ["drain", "leave"]


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize("patience_s", [0.0, 60.0])
def test_sigterm_does_not_wait_for_a_worker_that_died_or_boots_too_long(
    gunicorn_conf, monkeypatch, patience_s
):
    told: list[str] = []
    master, old, new = Master(), _worker(told), _worker([])
    monkeypatch.setattr(gunicorn_conf, "_SUCCESSORS_TIMEOUT_S", patience_s)
    gunicorn_conf.pre_fork(master, old)
    gunicorn_conf.post_worker_init(old)
    gunicorn_conf.pre_fork(master, new)
    if patience_s > 0:
        gunicorn_conf.child_exit(master, new)
    os.kill(os.getpid(), signal.SIGTERM)
    assert told[2:] == ["drain", "leave"]


def test_what_was_opened_is_closed_at_the_exit(gunicorn_conf):
    told: list[str] = []
    gunicorn_conf.worker_exit(None, SimpleNamespace(wsgi=App(told)))
    assert told == ["stop within 5"]


def test_the_exit_of_a_worker_that_never_loaded_the_app_is_no_error(gunicorn_conf):
    gunicorn_conf.worker_exit(None, SimpleNamespace())


def test_without_meinheld_threads_serve_the_same_app(gunicorn_conf, monkeypatch):
    monkeypatch.setitem(sys.modules, "todo_api.meinheld_worker", None)
    assert gunicorn_conf._worker_class()[0] == "gthread"
    monkeypatch.setitem(sys.modules, "todo_api.meinheld_worker", SimpleNamespace())
    assert gunicorn_conf._worker_class()[0] == "todo_api.meinheld_worker.MeinheldWorker"


def test_a_stop_takes_no_longer_than_compose_and_chart_reckon_with(gunicorn_conf):
    """25 s: what templates/validations.yaml adds to preStopSeconds, and what stop_grace_period is above."""
    # The worker class keeps some of the first for worker_exit, so this is more than it ever takes.
    assert gunicorn_conf.graceful_timeout + gunicorn_conf._STOP_TIMEOUT_S <= 25
