"""The command log on Valkey or Redis Streams: a stream per partition, ids ``<offset>-1``, no consumer groups.

An acknowledgement means fsync only on a server with ``appendonly yes`` and ``appendfsync always``, and the log
is kept only with ``maxmemory-policy noeviction``. ``{topic}`` in the names of the keys keeps them on one node
of a cluster.
"""

import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from todo_api.core.command_log import Headers, Message, Position, Record
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

logger = logging.getLogger(__name__)

# ARGV: per record the number of its stream in KEYS, its partition, the number of its fields, the fields.
# The offset is written after the record, so that a refused XADD leaves no hole.
_APPEND: Final = """
local offsets = {}
local i = 1
while i <= #ARGV do
  local stream, partition, fields = KEYS[1 + ARGV[i]], ARGV[i + 1], tonumber(ARGV[i + 2])
  local offset = redis.call('HGET', KEYS[1], partition) or '0'
  redis.call('XADD', stream, offset .. '-1', unpack(ARGV, i + 3, i + 2 + fields))
  redis.call('HINCRBY', KEYS[1], partition, 1)
  offsets[#offsets + 1] = offset
  i = i + 3 + fields
end
return offsets
"""


def connect(redis_url: str, *, connect_timeout_s: float, timeout_s: float) -> Redis:
    # Without retries: the library's own take up to a minute.
    return Redis.from_url(
        redis_url,
        socket_connect_timeout=connect_timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )


def next_offsets_key(topic: str) -> str:
    return f"{{{topic}}}:next"


def stream_key(topic: str, partition: int) -> str:
    return f"{{{topic}}}:{partition}"


class StreamsPublisher:
    """A ``Publisher`` on one topic. Every call is bounded by the timeouts of its sockets."""

    def __init__(
        self, redis_url: str, topic: str, partitions: int, *, timeout_s: float, record_max_bytes: int
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._record_max_bytes = record_max_bytes
        # Worst case: connecting, greeting and the command each take all of theirs.
        self._redis = connect(redis_url, connect_timeout_s=timeout_s, timeout_s=timeout_s)
        self._append = self._redis.register_script(_APPEND)
        self._closed = False

    @property
    def log(self) -> str:
        return f"streams:{self._topic}"

    def start(self) -> None:
        """Do nothing: connecting takes less than a millisecond and happens with the first call."""

    def publish(self, record: Record) -> Position:
        result = self.publish_many([record])[0]
        if isinstance(result, TodoError):
            raise result
        return result

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        results: list[Position | TodoError] = []
        keys = [next_offsets_key(self._topic)]
        numbers: dict[int, int] = {}
        arguments: list[Any] = []
        appended: list[tuple[int, int]] = []
        for index, record in enumerate(records):
            fields = _fields(record)
            size = sum(map(len, fields))
            results.append(RecordTooLarge(f"{size} bytes, at most {self._record_max_bytes}"))
            if size > self._record_max_bytes:
                continue
            partition = zlib.crc32(record.key) % self._partitions
            if partition not in numbers:
                keys.append(stream_key(self._topic, partition))
                numbers[partition] = len(numbers) + 1
            arguments += numbers[partition], partition, len(fields), *fields
            appended.append((index, partition))
        try:
            offsets = self._appended(keys, arguments) if appended else []
        except LogUnavailable as failure:
            for index, _ in appended:
                results[index] = failure
            return results
        for (index, partition), offset in zip(appended, offsets, strict=True):
            results[index] = Position(self.log, partition, int(offset))
        return results

    def _appended(self, keys: list[str], arguments: list[Any]) -> list[Any]:
        if self._closed:
            raise LogUnavailable(f"{self.log}: closed")
        try:
            offsets: list[Any] = self._append(keys, arguments)
            return offsets
        except RedisError as ex:
            raise LogUnavailable(f"{self.log}: {ex}") from ex
        finally:
            if self._closed:
                self._disconnect()

    def probe(self) -> None:
        """Run a write that the server would refuse (read-only, out of memory, disk full) but that changes nothing."""
        try:
            self._redis.xadd(f"{{{self._topic}}}:probe", {"probe": ""}, nomkstream=True)
        except RedisError as ex:
            raise LogUnavailable(f"{self.log}: {ex}") from ex

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 closing never waits
        self._closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        # Not those in use: taken from under another thread they fail in ways the driver does not name. That
        # thread lets go of its own.
        try:
            self._redis.connection_pool.disconnect(inuse_connections=False)
        except RedisError:
            logger.debug("%s: publisher did not close in order", self.log, exc_info=True)


class StreamsConsumer:
    """A ``Consumer`` of every partition: workers do not share them out, the fence in PostgreSQL decides.

    ``commit`` trims the streams to the last ``keep`` records before what was applied, now and then.
    """

    # How long one XREAD blocks, and how often offsets are compared with what the server has handed out.
    _BLOCK_MAX_S: Final = 1.0

    def __init__(self, redis_url: str, topic: str, partitions: int, *, keep: int = 1_000) -> None:
        self._topic = topic
        self._keep = keep
        self._redis = connect(redis_url, connect_timeout_s=1.0, timeout_s=self._BLOCK_MAX_S + 1.0)
        self._keys = {stream_key(topic, number).encode(): number for number in range(partitions)}
        self._positions = dict.fromkeys(range(partitions), 0)
        self._paused: set[int] = set()
        self._trimmed: dict[int, int] = {}
        self._compare_at = 0.0
        self._ends: dict[int, int] = {}
        self._turn = 0

    @property
    def log(self) -> str:
        return f"streams:{self._topic}"

    def poll(self, max_records: int, timeout_s: float) -> dict[int, list[Message]]:
        deadline = time.monotonic() + timeout_s
        messages: dict[int, list[Message]] = {}
        wanted = max_records
        try:
            while wanted > 0:
                self._compare_positions()
                # Never wait once there is something; block in short pieces otherwise.
                left_s = 0.0 if messages else deadline - time.monotonic()
                read = self._read(wanted, min(left_s, self._BLOCK_MAX_S))
                for message in read:
                    messages.setdefault(message.partition, []).append(message)
                wanted -= len(read)
                # Over when time is up: where each read takes long (a server far away), there is always something new.
                if time.monotonic() >= deadline or (messages and not read):
                    break
        except RedisError as ex:
            if not messages:
                raise LogUnavailable(f"{self.log}: {ex}") from ex
        return messages

    def assignment(self) -> frozenset[int]:
        return frozenset(self._positions)

    def seek(self, partition: int, offset: int) -> None:
        self._paused.discard(partition)
        self._positions[partition] = offset
        self._compare_at = 0.0

    def pause(self, partition: int) -> None:
        self._paused.add(partition)

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        # Every trim is an fsync: only when there is about as much to cut as is kept.
        cuts = {
            partition: offset - self._keep
            for partition, offset in next_offsets.items()
            if offset - self._keep >= self._trimmed.get(partition, 0) + self._keep
        }
        if not cuts:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for partition, cut in cuts.items():
                    pipeline.xtrim(stream_key(self._topic, partition), minid=f"{cut}-0", approximate=True)
                pipeline.execute()
        except RedisError as ex:
            logger.info("%s: not trimmed: %s", self.log, ex)
        else:
            self._trimmed |= cuts

    def end_offsets(self) -> dict[int, int]:
        try:
            return self._handed_out()
        except RedisError as ex:
            raise LogUnavailable(f"{self.log}: {ex}") from ex

    def known_end_offsets(self) -> dict[int, int]:
        # A poll learns of new records before it compares offsets again.
        return {number: max(end, self._positions[number]) for number, end in self._ends.items()}

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 closing never waits
        try:
            self._redis.close()
        except RedisError:
            logger.debug("%s: consumer did not close in order", self.log, exc_info=True)

    def _read(self, max_records: int, block_s: float) -> list[Message]:
        """Return up to ``max_records`` messages, an even share of each partition, and move the positions on."""
        partitions = [number for number in self._positions if number not in self._paused]
        if not partitions:
            time.sleep(max(block_s, 0.0))
            return []
        if max_records < len(partitions):
            # Fewer than one each: take turns.
            self._turn = (self._turn + max_records) % len(partitions)
            partitions = (partitions[self._turn :] + partitions[: self._turn])[:max_records]
        # An id just below "<position>-1".
        after = {stream_key(self._topic, number): f"{self._positions[number]}-0" for number in partitions}
        block_ms = int(block_s * 1000)
        answer: Any = self._redis.xread(
            after,  # type: ignore[arg-type]
            count=max_records // len(partitions),
            # 0 would be for ever.
            block=block_ms if block_ms > 0 else None,
        )
        messages = []
        for key, entries in answer.items() if isinstance(answer, dict) else answer:
            partition = self._keys[key]
            for entry_id, fields in entries:
                message = message_of(partition, entry_id, fields)
                messages.append(message)
                self._positions[partition] = message.offset + 1
        return messages

    def _compare_positions(self) -> None:
        """Begin at the oldest record again where our position is beyond what the server has handed out: the log
        was made anew."""
        if time.monotonic() < self._compare_at:
            return
        self._ends = self._handed_out()
        for partition, next_offset in self._ends.items():
            if self._positions[partition] > next_offset:
                logger.warning(
                    "%s/%s holds nothing at %s (next is %s), reading from its oldest record",
                    self.log, partition, self._positions[partition], next_offset,
                )  # fmt: skip
                self._positions[partition] = 0
        self._compare_at = time.monotonic() + self._BLOCK_MAX_S

    def _handed_out(self) -> dict[int, int]:
        values: Any = self._redis.hmget(next_offsets_key(self._topic), list(map(str, self._positions)))
        return {partition: int(value or 0) for partition, value in zip(self._positions, values, strict=True)}


def _fields(record: Record) -> list[bytes]:
    """Return a record as the fields of a stream entry; headers numbered, so that order and repeats survive."""
    fields = [b"k", record.key, b"v", record.value]
    for number, (name, value) in enumerate(record.headers):
        fields += f"h{number}:{name}".encode(), value
    return fields


def message_of(partition: int, entry_id: bytes, fields: dict[bytes, bytes]) -> Message:
    offset = int(entry_id.partition(b"-")[0])
    return Message(partition, offset, fields.get(b"k"), fields.get(b"v"), _headers(fields))


def _headers(fields: dict[bytes, bytes]) -> Headers:
    if len(fields) <= 2:
        return ()
    # APPSEC: anybody on the server may have written the entry; the names may be anything.
    return tuple(
        (name.partition(b":")[2].decode(errors="replace"), value)
        for name, value in fields.items()
        if name.startswith(b"h")
    )
