"""Answers too large for the kernel's send buffer, sent to the end without holding up the event loop.

meinheld built without greenlets cuts such an answer off: when ``writev`` would block it registers for the
rest and then, for want of a ``break``, closes the response at once (server.c, ``app_handler``). The client
has been promised more bytes than it ever gets. Here we write large bodies ourselves, and give the
connection of a client that does not keep up to a thread.
"""

import os
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

# A slow client holds a thread and a connection for so long at most, and only so many may do so at a time.
SEND_TIMEOUT_S: Final = 60.0
READERS_MAX: Final = 256
LINGER_S: Final = 2.0


class SlowReaders:
    """Connections that we finish ourselves. ``send`` belongs to the thread of the event loop, ``drain`` too."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()
        self._epoll: select.epoll | None = None

    def find_event_loop(self, listen_fd: int) -> None:
        """Learn which epoll instance watches ``listen_fd``. Called once from inside the running loop.

        Where there is none to be found (not Linux) a slow client blocks the loop until it has read.
        """
        watches = re.compile(rf"^tfd:\s*{listen_fd}\s", re.MULTILINE)
        for info in Path("/proc/self/fdinfo").glob("*"):
            with suppress(OSError):
                if watches.search(info.read_text()):
                    self._epoll = select.epoll.fromfd(os.dup(int(info.name)))
                    return

    def forget(self, fd: int) -> None:
        """Make the event loop watch ``fd`` no longer, before its number gets another meaning.

        The kernel forgets a watched file only when its last descriptor goes, and another one stays: without this
        the loop would spin on events of a file that it no longer knows.
        """
        # A first request is answered before its connection is watched at all.
        if self._epoll is not None:
            with suppress(FileNotFoundError):
                self._epoll.unregister(fd)

    def send(self, fd: int, body: bytes) -> None:
        """Write ``body`` to a connection whose head has been written. Returns without waiting for the client."""
        rest = memoryview(body)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            self._take_over(fd, rest)
        except OSError:
            pass  # The client has gone; the loop notices by itself at its next read.

    def drain(self, timeout_s: float) -> None:
        """Wait until every client has read its answer, ``timeout_s`` at most."""
        deadline = time.monotonic() + timeout_s
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _take_over(self, fd: int, rest: memoryview) -> None:
        if self._epoll is None:
            os.set_blocking(fd, True)
            with suppress(OSError):
                while rest:
                    rest = rest[os.write(fd, rest) :]
            os.set_blocking(fd, False)
            return
        client = socket.socket(fileno=os.dup(fd))
        self.forget(fd)
        # The loop keeps the number, which now stands for a peer that has hung up: it closes it in its own
        # way, and the answers to requests that the client has sent ahead go nowhere instead of into this one.
        ours, theirs = socket.socketpair()
        theirs.close()
        os.dup2(ours.fileno(), fd, inheritable=False)
        ours.close()
        if len(self._threads) >= READERS_MAX:
            client.close()
            return
        thread = threading.Thread(target=self._finish, args=(client, rest), name="slow-reader", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _finish(self, client: socket.socket, rest: memoryview) -> None:
        with client, suppress(OSError):
            client.settimeout(SEND_TIMEOUT_S)
            client.sendall(rest)
            # Closed with something unread, say a request sent ahead, the kernel would reset the connection and
            # throw away what the client has not fetched yet. So say that this was all, and let it hang up.
            client.shutdown(socket.SHUT_WR)
            client.settimeout(LINGER_S)
            while client.recv(65536):
                pass
        self._threads.discard(threading.current_thread())


class LargeBody:
    """A body as meinheld iterates it: first nothing, which sends the head; then it has sent itself.

    The answer must carry Content-Length. Without, meinheld begins a chunked answer that this would spoil.
    """

    def __init__(self, readers: SlowReaders, fd: int, body: bytes) -> None:
        self._readers = readers
        self._fd = fd
        self._body: bytes | None = body
        self._head_written = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._head_written:
            self._head_written = True
            return b""
        if self._body is not None:
            body, self._body = self._body, None
            self._readers.send(self._fd, body)
        raise StopIteration

    def close(self) -> None:
        """Hang up when not even the head could be written: a later answer must not be taken for this one."""
        if self._body is not None:
            self._body = None
            with socket.socket(fileno=os.dup(self._fd)) as client, suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
