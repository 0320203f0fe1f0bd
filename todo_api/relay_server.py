"""The relay: one process of a machine appends to the command log for all API processes there.

An API process answers one request at a time and waits for each acknowledgement, so alone it never sends two records at
once, and a record alone is what costs. The relay takes what all of them want to append at one moment and appends it
together; what comes meanwhile is the next batch. One thread, no queue of its own: what it has not read yet waits
in the sockets, and whoever waits too long there has given up before.
"""

import logging
import os
import platform
import selectors
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from todo_api import relay_metrics as metrics
from todo_api.core.command_log import Position, Publisher, Record
from todo_api.core.command_log.relay_wire import (
    FRAME_MAX_BYTES,
    LENGTH,
    Answer,
    Malformed,
    Request,
    answer_of,
    frame,
    read_request,
)
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError
from todo_api.core.metrics import Memory, Series

_logger = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 1024
# Read in one go from one connection, and of all connections in one round.
_READ_BYTES: Final = 262_144
_ROUND_MAX_BYTES: Final = 16 * 1024 * 1024
# The largest answer; a connection that does not take it at once is not one of ours.
_ANSWER_MAX_BYTES: Final = 262_144

# For so long an acknowledgement, or a probe that succeeded, answers all probes.
_GOOD_FOR_S: Final = 1.0


class SocketTaken(TodoError):
    """The path of the socket cannot be used. The message says why."""


class _Connection:
    """One API process's, or one of its threads'. It waits for each answer before it sends again."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self._begun = bytearray()

    def read(self, space: memoryview) -> Request | None:
        """Read what is there, into ``space``; return the request once it is whole.

        Raises OSError or one of ``Malformed``.
        """
        # PERF: a new buffer for each read of this size would come from the kernel and go back to it: 5 us.
        count = self.socket.recv_into(space)
        if count == 0:
            raise ConnectionError("closed")
        if not self._begun and _length(space[:count]) == count:
            return read_request(space[LENGTH.size : count])
        self._begun += space[:count]
        length = _length(self._begun)
        if length > FRAME_MAX_BYTES or length < len(self._begun):
            raise ConnectionError("not one request of a size that we take")
        if length > len(self._begun):
            return None
        begun, self._begun = self._begun, bytearray()
        return read_request(memoryview(begun)[LENGTH.size :])

    def answer(self, answer: Answer) -> None:
        """Raises OSError when the other side is gone, or does not take it."""
        message = frame(answer)
        if self.socket.send(message) < len(message):
            raise ConnectionError("does not read its answer")


def _length(begun: bytearray | memoryview) -> int:
    """Return how long the message that begins like this is; more than this while that cannot be told."""
    if len(begun) < LENGTH.size:
        return LENGTH.size
    return LENGTH.size + int(LENGTH.unpack_from(begun)[0])


class Relay:
    """Serves ``publisher`` on a Unix socket at ``path`` until ``stop`` is called."""

    def __init__(self, publisher: Publisher, path: Path) -> None:
        self.path = path
        self._publisher = publisher
        self._selector = selectors.DefaultSelector()
        self._space = memoryview(bytearray(_READ_BYTES))
        self._connections = 0
        self._good_until = 0.0
        self._is_stopping = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._memory = Memory(metrics.METRICS)
        self._slot = self._memory.slot
        self._slot.set(metrics.BUILD, version("todo-api"), platform.python_version(), value=1)
        self._slot.set(metrics.CONNECTIONS, value=0)
        # An increase from nothing is no increase to Prometheus.
        for outcome in metrics.OUTCOMES:
            self._slot.add(metrics.RECORDS, outcome, amount=0)
        for reason in metrics.REASONS:
            self._slot.add(metrics.REFUSALS, reason, amount=0)

    def read(self) -> list[Series]:
        """Return what is exported, as of now. From any thread."""
        return self._memory.read()

    def stop(self) -> None:
        """Make ``run`` return after the batch at hand. Safe in a signal handler and from any thread."""
        self._is_stopping = True
        with suppress(OSError):
            self._wake_sender.send(b"\0")

    def run(self) -> None:
        """Serve; blocks until ``stop``. Raises SocketTaken."""
        listener = listen(self.path)
        inode = self.path.stat().st_ino
        try:
            self._selector.register(listener, selectors.EVENT_READ)
            self._selector.register(self._wake_receiver, selectors.EVENT_READ)
            while not self._is_stopping:
                self._turn(listener)
        finally:
            # A relay that was started since then has put its own there.
            with suppress(OSError):
                if self.path.stat().st_ino == inode:
                    self.path.unlink()
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
            self._wake_sender.close()

    def _turn(self, listener: socket.socket) -> None:
        """Wait until something comes, and deal with all of it."""
        asked: list[tuple[_Connection, Request]] = []
        size = 0
        for key, _ in self._selector.select():
            connection = key.data
            if connection is None:
                if key.fileobj is listener:
                    self._accept(listener)
                continue
            try:
                request = connection.read(self._space)
            except (OSError, *Malformed) as ex:
                self._drop(connection, ex)
                continue
            if request is not None:
                asked.append((connection, request))
                size += sum(len(value) for _, value, _ in request.records)
                if size >= _ROUND_MAX_BYTES:
                    # The rest is still there in the next turn.
                    break
        if asked:
            self._serve(asked)

    def _serve(self, asked: Sequence[tuple[_Connection, Request]]) -> None:
        now = time.monotonic()
        batch: list[tuple[_Connection, Request]] = []
        probes: list[_Connection] = []
        for connection, request in asked:
            if request.log != self._publisher.log:
                self._refuse(connection, request, "other_log", f"this relay serves {self._publisher.log}")
            elif request.deadline <= now:
                self._refuse(connection, request, "too_late", "too late")
            elif request.records:
                batch.append((connection, request))
            else:
                probes.append(connection)
        if batch:
            self._append(batch)
        if probes:
            self._probe(probes)

    def _append(self, batch: Sequence[tuple[_Connection, Request]]) -> None:
        began = time.perf_counter()
        results = self._publisher.publish_many(
            [Record(*fields) for _, request in batch for fields in request.records]
        )
        self._note(results, time.perf_counter() - began)
        if any(isinstance(result, LogUnavailable) for result in results):
            self._good_until = 0.0
        elif any(isinstance(result, Position) for result in results):
            self._good_until = time.monotonic() + _GOOD_FOR_S
        begin = 0
        for connection, request in batch:
            end = begin + len(request.records)
            self._answer(connection, answer_of(results[begin:end]))
            begin = end

    def _note(self, results: Sequence[Position | TodoError], seconds: float) -> None:
        self._slot.observe(metrics.BATCH_RECORDS, values=(len(results),))
        self._slot.observe(metrics.BATCH_SECONDS, values=(seconds,))
        acknowledged = sum(isinstance(result, Position) for result in results)
        too_large = sum(isinstance(result, RecordTooLarge) for result in results)
        unavailable = len(results) - acknowledged - too_large
        for outcome, count in zip(metrics.OUTCOMES, (acknowledged, unavailable, too_large), strict=True):
            self._slot.add(metrics.RECORDS, outcome, amount=count)

    def _probe(self, probes: Sequence[_Connection]) -> None:
        answer = Answer([])
        # PERF: every API process probes once a second, and each probe holds up all writes: with kafka-python for 0.1 s,
        # which is how long it leaves between two looks at the metadata. 16 processes got 148 writes a second.
        if time.monotonic() >= self._good_until:
            try:
                self._publisher.probe()
                self._good_until = time.monotonic() + _GOOD_FOR_S
            except LogUnavailable as ex:
                answer = answer_of([ex])
        for connection in probes:
            self._answer(connection, answer)

    def _refuse(self, connection: _Connection, request: Request, reason: str, detail: str) -> None:
        self._slot.add(metrics.REFUSALS, reason)
        self._answer(connection, answer_of([LogUnavailable(detail)] * max(len(request.records), 1)))

    def _answer(self, connection: _Connection, answer: Answer) -> None:
        try:
            connection.answer(answer)
        except OSError as ex:
            self._drop(connection, ex)

    def _accept(self, listener: socket.socket) -> None:
        """Accept all that wait to be accepted."""
        while True:
            try:
                opened, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as ex:
                _logger.warning("no connection accepted: %s", ex)
                return
            if self._connections >= CONNECTIONS_MAX:
                opened.close()
                continue
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ANSWER_MAX_BYTES)
            self._count(1)
            self._selector.register(opened, selectors.EVENT_READ, _Connection(opened))

    def _drop(self, connection: _Connection, why: Exception) -> None:
        _logger.debug("connection dropped: %s", why)
        if connection.socket.fileno() >= 0:
            self._selector.unregister(connection.socket)
            connection.socket.close()
            self._count(-1)

    def _count(self, change: int) -> None:
        self._connections += change
        self._slot.set(metrics.CONNECTIONS, value=self._connections)


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``, for this user only; one that a dead relay left there is replaced.

    Raises SocketTaken.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.exists():
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise SocketTaken(f"{path} is there and is not a socket")
            with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError):
                probe.connect(str(path))
                raise SocketTaken(f"another relay serves {path}")
            path.unlink()
        # APPSEC: whoever may write to the socket may write commands in anybody's name.
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError as ex:
        listener.close()
        raise SocketTaken(f"{path}: {ex}") from ex
    except BaseException:
        listener.close()
        raise
    return listener
