"""gunicorn's settings and hooks. Imported by the master, before any fork, through gunicorn.conf.py.

Each name in ``__all__`` is one of gunicorn's; the command line can still override it.
"""

import gc
import importlib
import math
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any, Final

from config.instance_memory import InstanceMemory
from config.logs import log_config
from config.settings import Settings, SettingsError, load_settings

__all__ = [
    "accesslog",
    "bind",
    "child_exit",
    "control_socket_disable",
    "forwarded_allow_ips",
    "graceful_timeout",
    "keepalive",
    "limit_request_field_size",
    "limit_request_fields",
    "limit_request_line",
    "logconfig_dict",
    "loglevel",
    "on_starting",
    "post_worker_init",
    "pre_fork",
    "preload_app",
    "threads",
    "timeout",
    "worker_class",
    "worker_exit",
    "worker_tmp_dir",
    "workers",
]

# PERF: shared, a worker has 19 MB of its own; importing these by itself, 42.
_SHARED: Final = ("falcon", "psycopg", "psycopg_pool", "redis", "jwt", "msgspec", "ujson", "isal.isal_zlib")
# What is in flight at the end: a publisher waiting for its last acknowledgement.
_STOP_TIMEOUT_S: Final = 5.0
# How long an old worker goes on for new ones that boot. That is a reload, for which no orchestrator waits; a stop
# of the whole instance meets this only while it boots.
_SUCCESSORS_TIMEOUT_S: Final = 8.0
_SUCCESSORS_POLL_S: Final = 0.1


def _settings() -> Settings:
    # A worker that meets a bad setting would be started again and again; the master just says what is wrong.
    try:
        return load_settings("api")
    except SettingsError as ex:
        sys.exit(str(ex))


def _worker_class() -> tuple[str, str | None]:
    """Return the fast worker where it can be had, else gunicorn's threads and why; both serve the same app."""
    try:
        importlib.import_module("todo_api.meinheld_worker")
    except ImportError as ex:
        return "gthread", str(ex)
    return "todo_api.meinheld_worker.MeinheldWorker", None


def _load_for_all() -> None:
    """Import in the master what every worker needs of others, so that they share it.

    Nothing of ours: a reload (HUP) finds the code as it is then. Importing these opens nothing.
    """
    client = {"kafka-python": "kafka", "librdkafka": "confluent_kafka"}[_SETTINGS.kafka_client]
    publishes_to_kafka = _SETTINGS.command_log == "kafka" and _SETTINGS.publisher_socket is None
    for name in (*_SHARED, *([client] if publishes_to_kafka else [])):
        importlib.import_module(name)
    # The garbage collector writes to what it looks at, and what is written to is shared no more.
    gc.collect()
    gc.freeze()


def _admin_listener() -> socket.socket | None:
    # Not one of gunicorn's addresses: those its workers would serve with everything else, each in its turn.
    if _SETTINGS.admin_port is None:
        return None
    try:
        return socket.create_server(("0.0.0.0", _SETTINGS.admin_port), backlog=128)
    except OSError as ex:
        sys.exit(f"settings:\n  - ADMIN_PORT {_SETTINGS.admin_port} cannot be had: {ex.strerror}")


def on_starting(server: Any) -> None:
    """Open and make what the workers share, and say how this instance is set up."""
    server.admin_listener = _admin_listener()
    _load_for_all()
    server.instance_memory = InstanceMemory(server.cfg.workers)
    fields = {
        "event": "api.start",
        "worker_class": server.cfg.worker_class_str,
        "settings": _SETTINGS.shown(),
    }
    server.log.info("API starts", extra=fields)
    if server.cfg.worker_class_str == "gthread" and _NO_FAST_WORKER is not None:
        server.log.warning("no fast worker: %s", _NO_FAST_WORKER, extra={"event": "api.no_fast_worker"})


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker the admin port and a slot of the memory that all of this instance share."""
    worker.admin_listener = server.admin_listener
    worker.memory = server.instance_memory
    worker.slot = server.instance_memory.take(worker)
    if worker.slot is None:
        server.log.warning("a worker counts for itself alone", extra={"event": "api.no_slot"})


def child_exit(server: Any, worker: Any) -> None:
    """Take the slot back from a worker that has died."""
    server.instance_memory.release(worker)


def post_worker_init(worker: Any) -> None:
    """Open what the app needs, in the new process, and let SIGTERM make it not ready and leave.

    On a reload (HUP) gunicorn sends SIGTERM to the old workers as soon as the new ones are forked, and those need a
    second to boot: until they serve, the old ones do.
    """
    app = worker.wsgi
    if worker.slot is not None:
        app.join(worker.memory.view, worker.memory.slots, worker.slot)
    if worker.admin_listener is not None:
        app.serve_admin(worker.admin_listener)
    app.start()
    if worker.slot is not None:
        worker.memory.serves(worker.slot)
    leave = worker.handle_exit
    leave_at = math.inf

    def drain_and_leave(_number: int, frame: FrameType | None) -> None:
        nonlocal leave_at
        now = time.monotonic()
        leave_at = min(leave_at, now + _SUCCESSORS_TIMEOUT_S)
        if worker.slot is not None and worker.memory.is_booting and now < leave_at:
            signal.setitimer(signal.ITIMER_REAL, _SUCCESSORS_POLL_S)
            return
        app.drain()
        leave(signal.SIGTERM, frame)

    # Replaced on the worker too, for a worker class that installs its handlers later.
    worker.handle_exit = drain_and_leave
    signal.signal(signal.SIGTERM, drain_and_leave)
    signal.signal(signal.SIGALRM, drain_and_leave)


def worker_exit(_server: Any, worker: Any) -> None:
    """Close what was opened. gunicorn also calls this in the master, for a worker that was killed: nothing to do."""
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.stop(_STOP_TIMEOUT_S)


_SETTINGS: Final = _settings()

bind = f"0.0.0.0:{_SETTINGS.http_port}"
workers = _SETTINGS.processes
worker_class, _NO_FAST_WORKER = _worker_class()
threads = 8
# The app is imported in each worker: pools, producers and threads do not survive a fork.
preload_app = False

timeout = 30
graceful_timeout = 20
# Longer than a proxy keeps an idle connection, or it meets one that is just being closed.
keepalive = 20
# The heartbeat files of the workers; a busy disk must not look like a dead worker.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
# APPSEC: the app believes no forwarded header, so nobody may set the scheme or the script name.
forwarded_allow_ips = ""

# A second gunicorn of the same user would take the socket over.
control_socket_disable = True
accesslog = None
loglevel = _SETTINGS.log_level
logconfig_dict = log_config(_SETTINGS.log_level, _SETTINGS.log_format)
