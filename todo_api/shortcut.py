"""What the application has to give to be asked through meinheld's shortcut (``scripts/meinheld/shortcut.h``).

The server puts a plain GET of one path to a function, before it makes anything of the request but its query and a few
header values, and writes what it returns. Everything else, and what the function has no answer for, comes through WSGI.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

# PERF: the kernel sends a file without copying it. Of a body of 2 MB that takes a third of what an answer costs, of one
# of 128 KiB a sixth; one of 20 KB costs more with a second call for it.
FILE_MIN_BYTES: Final = 128 * 1024

Prepared = tuple[bytes, bytes, "bytes | BodyFile"]
"""Status line and headers, the Content-Length line or nothing, the body. The server adds what it always does."""


class Shortcut(NamedTuple):
    """``answer`` gets the query ('' without one) and the values of the headers ``names`` (None: not sent).

    It runs in the event loop, so it must not wait.
    """

    path: str
    names: tuple[str, ...]
    answer: Callable[..., Prepared | None]


class BodyFile:
    """A body in a file in memory that nobody can change, open as long as this object lives."""

    def __init__(self, body: bytes) -> None:
        """Copies the body, about 1 ms for 2 MB. Raises OSError when memory or descriptors are short."""
        self._length = len(body)
        self._fd = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)

    def fileno(self) -> int:
        return self._fd

    def __len__(self) -> int:
        return self._length

    def __del__(self) -> None:
        # Not made when there was none left.
        with suppress(AttributeError):
            os.close(self._fd)


def prepare(head: str, body: bytes | None) -> Prepared:
    """Return the answer of this status line and these header lines; None for one that has no body."""
    if body is None:
        return head.encode("latin-1"), b"", b""
    length = b"Content-Length: %d\r\n" % len(body)
    # Where there are no such files (not Linux), or no memory for one, the bytes are sent.
    if len(body) >= FILE_MIN_BYTES and hasattr(os, "memfd_create"):
        with suppress(OSError):
            return head.encode("latin-1"), length, BodyFile(body)
    return head.encode("latin-1"), length, body


def held_bytes(body: bytes) -> int:
    """Return how much memory a body may take: a long one is there twice, once in its file."""
    return len(body) * (2 if len(body) >= FILE_MIN_BYTES else 1)
