"""Waiting for a server on a Unix socket."""

import socket
from pathlib import Path

from scripts.stack.server import wait_until


def wait_until_accepted(path: Path, timeout_s: float = 30.0) -> None:
    """Wait until a connection to the socket is accepted: its file is there a moment before. Raises TimeoutError."""
    wait_until(lambda: _is_accepted(path), timeout_s, f"somebody listens at {path}")


def _is_accepted(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
