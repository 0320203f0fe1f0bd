"""The command log through the relay of this machine (``todo_api/relay_server.py``): the publisher."""

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from todo_api.core.command_log import Position, Record
from todo_api.core.command_log.relay_wire import (
    FRAME_MAX_BYTES,
    LENGTH,
    RECORDS_MAX,
    Answer,
    Malformed,
    Request,
    fields_of,
    frame,
    read_answer,
    results_of,
    size_of,
)
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

# Beside the largest record there is room for the rest of a request.
_REQUEST_MAX_BYTES: Final = FRAME_MAX_BYTES // 4
_READ_BYTES: Final = 16_384
# struct timeval, as the kernel wants it for SO_RCVTIMEO and SO_SNDTIMEO.
_TIMEVAL: Final = struct.Struct("@ll")


class RelayedPublisher:
    """A ``Publisher`` that hands records to the relay at ``path`` and waits for its answers.

    A connection for each thread that waits at one time, made when it is needed. A relay that is away, hangs, or serves
    another log than ``log`` is LogUnavailable; one that was started anew is found by itself.
    """

    def __init__(self, path: Path, log: str, *, timeout_s: float, record_max_bytes: int) -> None:
        self._path = str(path)
        self._log = log
        self._timeout_s = timeout_s
        self._record_max_bytes = record_max_bytes
        self._is_open = False
        # Appending and popping are atomic.
        self._idle: list[socket.socket] = []

    @property
    def log(self) -> str:
        return self._log

    def start(self) -> None:
        """Allow connecting, which takes microseconds and happens with the first call."""
        self._is_open = True

    def publish(self, record: Record) -> Position:
        size = size_of(record)
        if size > self._record_max_bytes:
            raise self._too_large(size)
        deadline = time.monotonic() + self._timeout_s
        result = self._ask(Request(self._log, deadline, [fields_of(record)]))[0]
        if isinstance(result, TodoError):
            raise result
        return result

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        deadline = time.monotonic() + self._timeout_s
        results: list[Position | TodoError] = []
        fitting: list[int] = []
        for index, record in enumerate(records):
            size = size_of(record)
            results.append(self._too_large(size))
            if size <= self._record_max_bytes:
                fitting.append(index)
        failure: LogUnavailable | None = None
        for part in _parts(records, fitting):
            answered: Sequence[Position | TodoError] = [failure] * len(part) if failure else []
            if failure is None:
                try:
                    answered = self._ask(Request(self._log, deadline, [fields_of(records[i]) for i in part]))
                except LogUnavailable as ex:
                    failure, answered = ex, [ex] * len(part)
            for index, result in zip(part, answered, strict=True):
                results[index] = result
        return results

    def probe(self) -> None:
        for result in self._ask(Request(self._log, time.monotonic() + self._timeout_s, [])):
            assert isinstance(result, TodoError)
            raise result

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 what is in flight is on connections that are not idle
        self._is_open = False
        while self._idle:
            self._idle.pop().close()

    def _too_large(self, size: int) -> RecordTooLarge:
        return RecordTooLarge(f"{size} bytes, at most {self._record_max_bytes}")

    def _ask(self, request: Request) -> list[Position | TodoError]:
        """Send a request and return what the relay answers. Raises LogUnavailable."""
        if not self._is_open:
            raise LogUnavailable(f"{self.log}: not started, or closed")
        connection: socket.socket | None = None
        try:
            connection = self._send(frame(request))
            results = results_of(self._receive(connection, request.deadline), self._log)
        except (OSError, ValueError, *Malformed) as ex:
            if connection is not None:
                # Its answer may still come, and must not be taken for that of another request.
                connection.close()
            reason = "no answer in time" if isinstance(ex, BlockingIOError) else ex
            raise LogUnavailable(f"{self.log}: the relay at {self._path}: {reason}") from ex
        self._idle.append(connection)
        return results

    def _send(self, message: bytes) -> socket.socket:
        """Send it on an idle connection, else on a new one; return that."""
        while self._idle:
            # Two threads may both see the last one.
            with suppress(IndexError):
                connection = self._idle.pop()
                try:
                    connection.sendall(message)
                    return connection
                except BlockingIOError:
                    connection.close()
                    raise
                except OSError:
                    # Its relay has ended, so nobody has read the message; there may be a new one.
                    connection.close()
        connection = socket.socket(socket.AF_UNIX)
        try:
            _limit_waits(connection, self._timeout_s)
            connection.connect(self._path)
            connection.sendall(message)
        except BaseException:
            connection.close()
            raise
        return connection

    def _receive(self, connection: socket.socket, deadline: float) -> Answer:
        data = connection.recv(_READ_BYTES)
        is_limited = False
        while data:
            if len(data) >= LENGTH.size:
                end = LENGTH.size + LENGTH.unpack_from(data)[0]
                if len(data) >= end:
                    if is_limited:
                        _limit_waits(connection, self._timeout_s)
                    return read_answer(memoryview(data)[LENGTH.size : end])
            # In parts, which is rare: all of them within the time of one.
            _limit_waits(connection, max(deadline - time.monotonic(), 0.001))
            is_limited = True
            more = connection.recv(_READ_BYTES)
            data = data + more if more else b""
        raise ConnectionError("hung up")


def _limit_waits(connection: socket.socket, timeout_s: float) -> None:
    """Let no call on ``connection`` block for longer; it raises BlockingIOError then.

    PERF: by the kernel. Python's own timeouts ask the kernel whether it would block before each call that does.
    """
    seconds, fraction = divmod(timeout_s, 1)
    limit = _TIMEVAL.pack(int(seconds), int(fraction * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _parts(records: Sequence[Record], indexes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indexes in pieces that each fit into one request."""
    part: list[int] = []
    size = 0
    for index in indexes:
        more = size_of(records[index])
        if part and (len(part) >= RECORDS_MAX or size + more > _REQUEST_MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(index)
        size += more
    if part:
        yield part
