"""How long after its 202 a new todo is in the lists of every API process."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

from scripts.bench.load import Refused

WRITES_PER_S: Final = 50
# None is the whole list. Fewer than 10 would be pushed off the page between two looks.
LIMITS: Final[tuple[int | None, ...]] = (10, 100, 1000, None)
# PERF: at 10 ms the looks took a fifth of two cores, from what they look at. Half of it is in every figure.
_POLL_S: Final = 0.02
_TIMEOUT_S: Final = 10.0
_LEAD_S: Final = 1.0
# What has just started is slower for a while: connections are opened, plans are made, Java compiles.
WARM_UP_S: Final = 3
# An answer to a write takes milliseconds; one writer of each process would fall behind when it once takes longer.
_WRITERS_PER_PROCESS: Final = 2


class Accepted:
    """The todos that were answered with 202 so far, in that order, and when. Filled by writers, read by watches."""

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, float]] = []
        self._ids: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, todo_id: bytes, at: float) -> None:
        self._ids.add(todo_id)
        self._entries.append((todo_id, at))

    def since(self, number: int) -> list[tuple[bytes, float]]:
        return self._entries[number:]

    def __contains__(self, todo_id: bytes) -> bool:
        return todo_id in self._ids


class Watch:
    """Looks at one list of one process again and again. ``seen`` is how long each todo took, by its number."""

    def __init__(self, accepted: Accepted) -> None:
        self.seen: dict[int, float] = {}
        self._accepted = accepted
        self._noticed = 0
        self._unseen: dict[int, tuple[bytes, float]] = {}
        self._body = b""

    @property
    def missing(self) -> int:
        """How many accepted todos this list has not shown yet."""
        return len(self._accepted) - len(self.seen)

    def look(self, body: bytes | None, at: float) -> None:
        """Take the list as it was answered at that time; None when it had not changed (304)."""
        fresh = self._accepted.since(self._noticed)
        new = dict(enumerate(fresh, self._noticed))
        self._noticed += len(fresh)
        if body is not None:
            self._body = body
            new = self._unseen | new
            self._unseen = {}
        last = _last_id(self._body)
        for number, (todo_id, accepted_at) in new.items():
            # On a short list a todo may come and go between two looks: then the last one there is a later one of ours.
            pushed_off = last in self._accepted and last > todo_id
            if pushed_off or todo_id in self._body:
                self.seen[number] = max(0.0, at - accepted_at)
            else:
                self._unseen[number] = (todo_id, accepted_at)


def _last_id(body: bytes) -> bytes:
    _, _, rest = body.rpartition(b'"id":"')
    return rest[:36]


@dataclass(frozen=True, slots=True)
class Visibility:
    """For one list: how long each todo took until the last process showed it, and how many writes there were."""

    limit: int | None
    seconds: Sequence[float]


def in_every_process(limit: int | None, watches: Iterable[Watch], first: int = 0) -> Visibility:
    """Return for each todo, from the ``first`` on, the time of the process that was last."""
    slowest: dict[int, float] = {}
    for watch in watches:
        for number, seconds in watch.seen.items():
            if number < first:
                continue
            slowest[number] = max(seconds, slowest.get(number, 0.0))
    return Visibility(limit, list(slowest.values()))


def measure_visibility(ports: Sequence[int], token: str, seconds: int) -> list[Visibility]:
    """Create todos at 50 a second in turn at each port, each a process, and watch every list of every process.

    Those of the first WARM_UP_S are not in the figures. Blocks for ``seconds`` and up to 14 more. Raises Refused when a
    write or a read is not accepted, or when a todo does not show up.
    """
    accepted = Accepted()
    watches = {(port, limit): Watch(accepted) for port in ports for limit in LIMITS}
    stop = threading.Event()
    threads = _Threads(stop)
    for (port, limit), watch in watches.items():
        threads.start(partial(_watch, port, limit, watch, stop))
    count = _WRITERS_PER_PROCESS * len(ports)
    # The first look of each comes before the first write.
    began = time.monotonic() + _LEAD_S
    due = [began + number / WRITES_PER_S for number in range(WRITES_PER_S * (WARM_UP_S + seconds))]
    writers = [
        threads.start(partial(_write, ports[number % len(ports)], token, due[number::count], accepted, stop))
        for number in range(count)
    ]
    try:
        for writer in writers:
            writer.join(_LEAD_S + WARM_UP_S + seconds + _TIMEOUT_S)
        deadline = time.monotonic() + _TIMEOUT_S
        while (
            any(watch.missing for watch in watches.values())
            and time.monotonic() < deadline
            and not stop.is_set()
        ):
            time.sleep(_POLL_S)
    finally:
        stop.set()
        threads.join()
    threads.raise_first()
    for (port, limit), watch in watches.items():
        if watch.missing:
            raise Refused(
                f"{watch.missing} of {len(accepted)} accepted todos are not in {_target(limit)} of the process at "
                f"port {port} after {_TIMEOUT_S:.0f} s."
            )
    return [
        in_every_process(
            limit, [watch for (_, one), watch in watches.items() if one == limit], WARM_UP_S * WRITES_PER_S
        )
        for limit in LIMITS
    ]


class _Threads:
    """Threads that stop together: the first failure sets ``stop`` and is kept."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []

    def start(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as ex:
                self._failures.append(ex)
                self._stop.set()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    def raise_first(self) -> None:
        if self._failures:
            first = self._failures[0]
            if isinstance(first, Refused):
                raise first
            raise Refused(f"A connection to the API failed: {first!r}.") from first


def _watch(port: int, limit: int | None, watch: Watch, stop: threading.Event) -> None:
    target = _target(limit)
    etag = ""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)) as connection:
        while not stop.wait(_POLL_S):
            status, headers, body = _ask(connection, "GET", target, {"If-None-Match": etag} if etag else {})
            if status not in (200, 304):
                raise Refused(f"GET {target} was answered with {status}.")
            watch.look(body if status == 200 else None, time.monotonic())
            etag = headers.get("ETag") or ""


def _write(port: int, token: str, due: Sequence[float], accepted: Accepted, stop: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)) as connection:
        for number, at in enumerate(due):
            if stop.wait(max(0.0, at - time.monotonic())):
                return
            contents = json.dumps({"title": f"Freshness {number}"})
            status, _, body = _ask(connection, "POST", "/todos", headers, contents)
            answered_at = time.monotonic()
            if status != 202:
                raise Refused(f"POST /todos was answered with {status}: {body[:200]!r}.")
            accepted.add(json.loads(body)["id"].encode(), answered_at)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: str | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection.request(method, target, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def _target(limit: int | None) -> str:
    return "/todos" if limit is None else f"/todos?limit={limit}"
