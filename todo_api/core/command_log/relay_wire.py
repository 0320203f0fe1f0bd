"""What API processes and the relay say to each other, over a Unix stream socket.

Each message is 4 bytes of length, big-endian, and as many bytes of MessagePack. A connection carries one request at
a time and its answer. Not SOCK_SEQPACKET, which would frame by itself: a record does not fit into its largest message,
and macOS has none.
"""

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from todo_api.core.command_log import Headers, Position, Record
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

FRAME_MAX_BYTES: Final = 4 * 1024 * 1024
# So that an answer always fits into the buffer of a socket.
RECORDS_MAX: Final = 1_000

LENGTH: Final = struct.Struct(">I")

_UNAVAILABLE: Final = -1
_TOO_LARGE: Final = -2
_REASON_MAX_CHARS: Final = 500


Fields = tuple[bytes, bytes, Headers]


class Request(msgspec.Struct, array_like=True):
    """Append these records to ``log``, all in their order; without any, say whether the log would take one.

    ``deadline`` is a ``time.monotonic`` value, which all processes of one machine share: a relay that was frozen
    must not append what was refused long ago.
    """

    log: str
    deadline: float
    records: list[Fields]


class Answer(msgspec.Struct, array_like=True):
    """Partition and offset of each record in turn; the offset is below 0 where there is none, and so is that of a
    probe that failed. ``reason`` is for logs."""

    positions: list[int]
    reason: str = ""


def answer_of(results: Iterable[Position | TodoError]) -> Answer:
    """Return the answer that says the same as what ``Publisher.publish_many`` returned."""
    positions: list[int] = []
    reason = ""
    for result in results:
        if isinstance(result, Position):
            positions += result.partition, result.offset
        else:
            positions += -1, _TOO_LARGE if isinstance(result, RecordTooLarge) else _UNAVAILABLE
            reason = reason or str(result)[:_REASON_MAX_CHARS]
    return Answer(positions, reason)


def results_of(answer: Answer, log: str) -> list[Position | TodoError]:
    """Return what ``answer_of`` was given. Raises ValueError when it says half of something."""
    numbers = iter(answer.positions)
    return [
        Position(log, partition, offset)
        if offset >= 0
        else (RecordTooLarge if offset == _TOO_LARGE else LogUnavailable)(answer.reason)
        for partition, offset in zip(numbers, numbers, strict=True)
    ]


_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final = msgspec.msgpack.Decoder(Request)
_answers: Final = msgspec.msgpack.Decoder(Answer)

# What reading raises.
Malformed: Final = (msgspec.DecodeError, UnicodeDecodeError)


def frame(message: Request | Answer) -> bytes:
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def read_request(body: memoryview) -> Request:
    return _requests.decode(body)


def read_answer(body: memoryview) -> Answer:
    return _answers.decode(body)


def fields_of(record: Record) -> Fields:
    return record.key, record.value, record.headers


def size_of(record: Record) -> int:
    """Return about how many bytes the record has in a request."""
    size = len(record.key) + len(record.value)
    return size + sum(len(name) + len(value) for name, value in record.headers) if record.headers else size
