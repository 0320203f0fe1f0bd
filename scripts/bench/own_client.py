"""Our own load generator, for machines without wrk and hey, and for a rate: processes of one asyncio loop each.

With a rate, a latency counts from when the request was due, not from when a connection was free to send it: a server
that stops for a second is charged with every request that was due in that second (no "coordinated omission"). What was
never sent or answered counts as a failure. Without a rate it counts from the sending.
"""

import asyncio
import selectors
import signal
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Final
from urllib.parse import urlsplit

import httptools

from scripts.bench.latencies import Latencies
from scripts.bench.load import INTERVAL_S, PERCENTILES, TIMEOUT_S, Load, Plan, ignore
from scripts.stack.server import StackError

# Starting Python takes long on a busy machine.
_START_TIMEOUT_S: Final = 60
# What was due may still be sent and answered this long after the end.
_OVERTIME_S: Final = 2.0
_RECONNECT_S: Final = 0.1
_SELECT_MAX: Final = 900


@dataclass(slots=True)
class Share:
    """What one process saw."""

    requests: int = 0
    failures: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    timeline: Counter[int] = field(default_factory=Counter)


class OwnClient:
    """Makes load with ``processes`` processes.

    A request took 19 to 110 us of CPU on a machine shared with others (answers of 20 kB, 32 connections); with a rate
    it takes more, because each wakes the process up.
    """

    def __init__(self, processes: int) -> None:
        self.cores = processes

    def load(self, plan: Plan, begun: Callable[[], None] = ignore) -> Load:
        """See ``Generator.load``. Takes both loops."""
        assert plan.body is None
        shares = _divided(plan, min(self.cores, plan.connections))
        context = get_context("spawn")
        barrier = context.Barrier(len(shares) + 1)
        try:
            with ProcessPoolExecutor(len(shares), context, _wait_for, (barrier,)) as pool:
                running = pool.map(run_share, shares)
                barrier.wait(_START_TIMEOUT_S)
                begun()
                return _merged(plan, list(running))
        except (BrokenExecutor, BrokenBarrierError) as ex:
            raise StackError("The processes that make the load ended early or did not start in time.") from ex


def _divided(plan: Plan, processes: int) -> list[Plan]:
    """Return one plan a process; they add up to the whole."""
    counts = [plan.connections // processes + (n < plan.connections % processes) for n in range(processes)]
    rates = [plan.rate and plan.rate * count / plan.connections for count in counts]
    return [replace(plan, connections=count, rate=rate) for count, rate in zip(counts, rates, strict=True)]


def _merged(plan: Plan, shares: list[Share]) -> Load:
    latencies = Latencies()
    timeline: Counter[int] = Counter()
    for share in shares:
        latencies.merge(share.latencies)
        timeline.update(share.timeline)
    return Load(
        generator="own client",
        requests=sum(share.requests for share in shares),
        failures=sum(share.failures for share in shares),
        seconds=plan.duration_s,
        latency_s={percent: latencies.percentile(percent) for percent in PERCENTILES},
        timeline=[timeline[slot] for slot in range(round(plan.duration_s / INTERVAL_S))],
    )


def _wait_for(barrier: Barrier) -> None:
    # Ctrl-C reaches every process; only the parent has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    barrier.wait(_START_TIMEOUT_S)


def run_share(plan: Plan) -> Share:
    """Make the load of one process. Blocks for the duration and up to TIMEOUT_S more."""
    # epoll counts in milliseconds, select in microseconds, so that what is due is sent on time; but only few files.
    exact = plan.rate is not None and plan.connections <= _SELECT_MAX
    selector = selectors.SelectSelector() if exact else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(_Run(plan, _Sender(plan.url, plan.headers)).run())


class _Sender:
    """Where to connect and what to send."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.request = "\r\n".join([*lines, "", ""]).encode()


class _Run:
    """The load of one process while it lasts."""

    def __init__(self, plan: Plan, sender: _Sender) -> None:
        self._plan = plan
        self._sender = sender
        self._share = Share()
        self._idle: deque[_Connection] = deque()
        self._connections: set[_Connection] = set()
        self._due = 0
        self._start = self._end = 0.0

    async def run(self) -> Share:
        self._start = time.monotonic()
        self._end = self._start + self._plan.duration_s
        connecting = [asyncio.ensure_future(self._connect()) for _ in range(self._plan.connections)]
        sending = asyncio.ensure_future(self._send_what_is_due()) if self._plan.rate else None
        try:
            await asyncio.sleep(self._plan.duration_s)
            await self._overtime(sending)
        finally:
            for task in [*connecting, *([sending] if sending else [])]:
                task.cancel()
        self._count_what_is_missing()
        for connection in list(self._connections):
            connection.abort()
        return self._share

    async def _connect(self) -> None:
        """Keep one connection until the end."""
        loop = asyncio.get_running_loop()
        while time.monotonic() < self._end:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self._sender.request, self._answered, self._failed),
                        self._sender.host,
                        self._sender.port,
                        ssl=self._sender.tls,
                    )
            except (OSError, TimeoutError):
                self._share.failures += 1
                await asyncio.sleep(_RECONNECT_S)
                continue
            self._connections.add(connection)
            self._next(connection)
            await connection.closed.wait()
            self._connections.discard(connection)
            with suppress(ValueError):
                self._idle.remove(connection)

    def _next(self, connection: "_Connection") -> None:
        """Let a free connection ask again, or wait until something is due."""
        if self._plan.rate:
            self._idle.append(connection)
            self._send_due(time.monotonic())
        elif (now := time.monotonic()) < self._end:
            connection.send(now)

    def _answered(self, connection: "_Connection", status: int) -> None:
        now = time.monotonic()
        self._share.latencies.add(now - connection.since)
        if now < self._end:
            self._share.requests += 1
            self._share.timeline[int((now - self._start) / INTERVAL_S)] += 1
        elif self._plan.rate:
            # Due in time, answered late: its latency says so.
            self._share.requests += 1
        if status >= 400:
            self._share.failures += 1
        if not connection.is_closing:
            self._next(connection)

    def _failed(self) -> None:
        self._share.failures += 1

    async def _send_what_is_due(self) -> None:
        assert self._plan.rate is not None
        while True:
            now = time.monotonic()
            self._send_due(now)
            following = self._start + (int((now - self._start) * self._plan.rate) + 1) / self._plan.rate
            await asyncio.sleep(following - now)

    def _send_due(self, now: float) -> None:
        while self._idle and self._due < self._due_by(now):
            assert self._plan.rate is not None
            self._idle.popleft().send(self._start + self._due / self._plan.rate)
            self._due += 1

    def _due_by(self, now: float) -> int:
        """Return how many requests were due until now."""
        assert self._plan.rate is not None
        return int((min(now, self._end) - self._start) * self._plan.rate)

    async def _overtime(self, sending: "asyncio.Future[None] | None") -> None:
        """Wait for the answers that are out, and with a rate also for those that were not asked for in time."""
        deadline = self._end + (_OVERTIME_S if sending else TIMEOUT_S)
        while time.monotonic() < deadline and (
            any(connection.is_busy for connection in self._connections)
            or (sending is not None and self._due < self._due_by(self._end))
        ):
            await asyncio.sleep(0.01)

    def _count_what_is_missing(self) -> None:
        now = time.monotonic()
        for connection in self._connections:
            if connection.is_busy:
                self._share.failures += 1
                self._share.latencies.add(now - connection.since)
                # Counted: its end is no second failure.
                connection.is_busy = False
        if self._plan.rate:
            for number in range(self._due, self._due_by(self._end)):
                self._share.failures += 1
                self._share.latencies.add(now - self._start - number / self._plan.rate)


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(
        self, request: bytes, answered: Callable[["_Connection", int], None], failed: Callable[[], None]
    ) -> None:
        self.since = 0.0
        self.is_busy = False
        self.closed = asyncio.Event()
        self._request = request
        self._answered = answered
        self._failed = failed
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    @property
    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, since: float) -> None:
        """Send the request; ``since`` is what its latency counts from."""
        assert self._transport is not None
        self.since = since
        self.is_busy = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_message_complete(self) -> None:
        self.is_busy = False
        if not self._parser.should_keep_alive():
            assert self._transport is not None
            self._transport.close()
        self._answered(self, self._parser.get_status_code())

    def connection_lost(self, _ex: Exception | None) -> None:
        self.closed.set()
        if self.is_busy:
            self.is_busy = False
            self._failed()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
