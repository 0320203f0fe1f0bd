"""Defects of kafka-python 3.0.12 put right: one bad record, or one short poll, stops a consumer for ever; leaks.

The version is pinned exactly: look at each of these again when it is raised.
"""

import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, SupportsIndex
from weakref import WeakKeyDictionary, WeakSet

from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.future import Future
from kafka.net.inet import KafkaNetSocket
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch

# The sockets of each client.
_sockets: Final[WeakKeyDictionary[Any, WeakSet[socket.socket]]] = WeakKeyDictionary()


_HEARTBEAT_DUE_S: Final = 0.05
_HANDSHAKE_MAX_S: Final = 2.0


class _AnyText(bytearray):
    """The bytes of a record batch, of which any slice can be decoded."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        part = super().__getitem__(index)
        return _AnyText(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


def repair() -> None:
    """Change the library's classes in this process. Done once, however often it is called."""
    partition_records = Fetcher.PartitionRecords
    if not hasattr(partition_records.take, "repaired"):
        partition_records.take = _give_up_after_failure(partition_records.take)
        DefaultRecordBatch._read_msg = _read_any_header_name(DefaultRecordBatch._read_msg)
        ConsumerCoordinator.need_rejoin = _join_is_open(ConsumerCoordinator.need_rejoin)
        ConsumerCoordinator.time_to_next_poll = _never_at_once(ConsumerCoordinator.time_to_next_poll)
        ConsumerCoordinator.join_group_async = _take_finished_join(ConsumerCoordinator.join_group_async)
        KafkaNetSocket.sock_connect = _keep(KafkaNetSocket.sock_connect)
        KafkaSSLTransport.handshake = _handshake
        for transport in (KafkaTCPTransport, KafkaSSLTransport):
            transport._sock_recv = _data_before_its_end(transport._sock_recv)
        NetworkSelector.close = _close_what_is_left(NetworkSelector.close)


def _give_up_after_failure(take: Callable[..., Any]) -> Callable[..., Any]:
    # The library keeps a batch that failed to decode, whose iterator is at its end, and asks it for records in
    # a loop that never ends; heartbeats go on, so that nobody else gets the partition. Dropped, it is fetched again.
    def repaired(self: Any, n: int | None = None) -> Any:
        try:
            return take(self, n)
        except Exception:
            self.drain()
            raise

    repaired.repaired = True  # type: ignore[attr-defined]
    return repaired


def _read_any_header_name(read_msg: Callable[..., Any]) -> Callable[..., Any]:
    # APPSEC: the name of a header is text by convention only; brokers take any bytes. Ours are not needed to
    # apply a command, so that a bad one must not keep the record from being read.
    def repaired(self: Any) -> Any:
        try:
            return read_msg(self)
        except UnicodeDecodeError:
            # The position has not moved yet.
            self._buffer = _AnyText(self._buffer)
            return read_msg(self)

    return repaired


def _join_is_open(need_rejoin: Callable[..., bool]) -> Callable[..., bool]:
    # A poll that ends before its join does leaves the join to the next poll. But where new partitions were the
    # reason to join, the reason is gone as soon as the leader has assigned them: no poll asks again, the answer is
    # never taken, and the member stays without partitions and without heartbeats.
    def repaired(self: Any) -> bool:
        return self._join_task is not None or need_rejoin(self)

    return repaired


def _never_at_once(time_to_next_poll: Callable[..., float]) -> Callable[..., float]:
    # This is how long a poll waits for records at most. It is 0 while a heartbeat is due and its answer does not come,
    # from a broker that hangs or behind a black hole: the poll then goes round without waiting, and each time leaves
    # a future behind the fetch in flight. Seen: half a core, and 6 MB more memory a second. The heartbeats themselves
    # are sent by another thread.
    def repaired(self: Any) -> float:
        return max(time_to_next_poll(self), _HEARTBEAT_DUE_S)

    return repaired


def _take_finished_join(join_group: Callable[..., Any]) -> Callable[..., Any]:
    # A join that finished between two polls is thrown away and begun again, which sends the whole group into
    # another round. Offered as one that finishes just now, it is taken.
    async def repaired(self: Any, timeout_ms: float | None = None) -> Any:
        finished = self._join_task
        if finished is not None and finished.is_done:
            self._join_task = Future()
            self._net.call_soon(partial(_pass_on, finished, self._join_task))
        return await join_group(self, timeout_ms=timeout_ms)

    return repaired


async def _pass_on(finished: Any, future: Any) -> None:
    if finished.exception is None:
        future.success(finished.value)
    else:
        future.failure(finished.exception)


def _keep(sock_connect: Callable[..., Any]) -> Callable[..., Any]:
    # A refused or timed out connection leaves its socket to the garbage collector, one for every attempt. So does one
    # that is made, in the client's thread, while another thread closes the client and takes it for closed already.
    async def repaired(self: Any, net: Any, sock: socket.socket, *arguments: Any, **options: Any) -> Any:
        _sockets.setdefault(net, WeakSet()).add(sock)
        try:
            return await sock_connect(self, net, sock, *arguments, **options)
        except BaseException:
            sock.close()
            raise

    return repaired


def _data_before_its_end(sock_recv: Callable[..., Any]) -> Callable[..., Any]:
    # What comes just before the end of a connection is thrown away with it: why a broker refuses a user, above all.
    # Told of the data first, the library reads again, and then learns of the end.
    def repaired(self: Any) -> tuple[bytes, Any]:
        data, error = sock_recv(self)
        return data, None if data else error

    return repaired


async def _handshake(self: Any) -> None:
    # A broker that takes the connection and says nothing more is waited for without end, and nothing else is tried.
    # And a handshake that fails leaves its socket to the garbage collector.
    deadline = time.monotonic() + _HANDSHAKE_MAX_S
    _sockets.setdefault(self._net, WeakSet()).add(self._sock)
    try:
        while True:
            try:
                self._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, deadline)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, deadline)
    except BaseException:
        self._sock.close()
        raise


def _close_what_is_left(close: Callable[..., None]) -> Callable[..., None]:
    def repaired(self: Any) -> None:
        close(self)
        # Its thread has ended.
        for sock in _sockets.pop(self, ()):
            sock.close()

    return repaired
