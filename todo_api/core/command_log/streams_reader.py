"""Look into a log on Valkey or Redis Streams; see ``reader.LogReader``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from todo_api.core.command_log import Message
from todo_api.core.command_log.reader import TIMEOUT_S, Bounds
from todo_api.core.command_log.streams import connect, message_of, next_offsets_key, stream_key
from todo_api.core.errors import LogUnavailable

_CHUNK: Final = 500


class StreamsReader:
    """A ``LogReader`` of one topic."""

    def __init__(self, redis_url: str, topic: str, partitions: int) -> None:
        self._topic = topic
        self._partitions = partitions
        self._redis: Any = connect(redis_url, connect_timeout_s=TIMEOUT_S, timeout_s=TIMEOUT_S)

    @property
    def log(self) -> str:
        return f"streams:{self._topic}"

    def bounds(self) -> dict[int, Bounds]:
        with self._translated():
            ends = self._redis.hmget(next_offsets_key(self._topic), list(map(str, range(self._partitions))))
            return {number: self._bounds(number, int(end or 0)) for number, end in enumerate(ends)}

    def _bounds(self, partition: int, end: int) -> Bounds:
        first = self._redis.xrange(stream_key(self._topic, partition), count=1)
        return Bounds(message_of(partition, *first[0]).offset if first else end, end)

    def read(self, partition: int, start: int, end: int) -> Iterator[Message]:
        while start < end:
            with self._translated():
                entries = self._redis.xrange(
                    stream_key(self._topic, partition), min=f"{start}-0", max=f"{end - 1}-1", count=_CHUNK
                )
            if not entries:
                return
            for entry in entries:
                message = message_of(partition, *entry)
                yield message
                start = message.offset + 1

    def cut(self, partition: int, before: int) -> None:
        with self._translated():
            self._redis.xtrim(stream_key(self._topic, partition), minid=f"{before}-0", approximate=False)

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RedisError as ex:
            raise LogUnavailable(f"{self.log}: {ex}") from ex
