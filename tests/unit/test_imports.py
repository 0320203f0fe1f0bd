"""What importing does, and which part may know which. The contracts themselves are import-linter's (setup.cfg)."""

import subprocess
import sys

import pytest

QUIET = """
import socket, sys, threading

def refuse(*_):
    raise AssertionError("import opened a socket")

socket.socket.connect = socket.socket.bind = refuse
import {module}
assert threading.active_count() == 1, threading.enumerate()
loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & {unwanted!r})
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("todo_worker.__main__", {"falcon", "gunicorn", "meinheld", "jwt"}),
        ("todo_api.app", {"gunicorn", "meinheld", "kafka", "scripts"}),
        ("config.settings", {"falcon", "psycopg", "redis", "kafka", "todo_api", "todo_worker"}),
        ("todo_api.core.command_log.connect", {"kafka", "redis", "falcon"}),
        ("todo_api.client", {"falcon", "gunicorn", "psycopg", "redis", "kafka", "jwt", "msgspec", "config"}),
        ("scripts.cli", {"falcon", "psycopg", "redis", "kafka"}),
    ],
)
def test_importing_opens_nothing_and_loads_only_what_it_may(module: str, unwanted: set[str]) -> None:
    code = QUIET.format(module=module, unwanted=unwanted)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
