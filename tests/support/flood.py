"""Writes from many clients at once, each on a new connection: as many as are served, or more than can be.

It is a process of its own with nothing but a loop over sockets, so that as little as can be of what it measures is
itself. What is left it tells apart: the kernel knows when an answer arrived, and how long it lay there unread.
"""

import errno
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
# Where struct tcp_info (linux/tcp.h) has the milliseconds since data last arrived.
_LAST_RECEIVED: Final = struct.Struct("52xI")
_GIVE_UP_S: Final = 20.0
# Who could not send in time does not make up for more than this: an overload shall not come in bursts.
_MADE_UP_S: Final = 0.1
_TURN_S: Final = 0.005


@dataclass
class Flood:
    """What came of it. ``statuses`` counts the answers, 0 those that did not come.

    ``slowest_s`` is from the moment before a client connected until the last byte of its answer was in the kernel of
    this machine, ``unread_s`` how long an answer lay there at most before it was looked at, which is not the
    service's doing: both together are what a clock in the client would have said.
    """

    seconds: float = 0.0
    asked: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_status: int = 0
    refused_p50_s: float = 0.0
    refused_p99_s: float = 0.0
    served_p50_s: float = 0.0
    served_p99_s: float = 0.0
    unread_s: float = 0.0

    @property
    def asked_per_s(self) -> float:
        return self.asked / self.seconds

    @property
    def served_per_s(self) -> float:
        return self.statuses[202] / self.seconds


def closed_loop(port: int, token: str, title: str, clients: int, seconds: float) -> Flood:
    """Create todos named ``title`` for ``seconds`` by ``clients``, who ask again as soon as they are answered."""
    return _run("closed", port, token, title, clients, seconds)


def open_loop(port: int, token: str, title: str, per_s: float, seconds: float) -> Flood:
    """Create todos named ``title`` for ``seconds``, ``per_s`` new clients a second, whatever becomes of those before.

    Ask less, when the machine does not let it: ``asked`` says how much that was.
    """
    return _run("open", port, token, title, per_s, seconds)


def _run(kind: str, port: int, token: str, title: str, amount: float, seconds: float) -> Flood:
    command = [sys.executable, "-m", __name__, kind, str(port), token, title, str(amount), str(seconds)]
    done = subprocess.run(
        command, cwd=_ROOT, check=True, capture_output=True, text=True, timeout=seconds + 3 * _GIVE_UP_S
    )
    told = json.loads(done.stdout)
    statuses = Counter({int(status): count for status, count in told.pop("statuses").items()})
    return Flood(statuses=statuses, **told)


class _Clients:
    """The clients of one flood, and what they were answered."""

    def __init__(self, port: int, token: str, title: str) -> None:
        body = json.dumps({"title": title}).encode()
        head = f"POST /todos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        kind = "Content-Type: application/json\r\n"
        self._request = f"{head}{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._address = ("127.0.0.1", port)
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, float]] = {}
        self._sending: set[int] = set()
        self.result = Flood()
        self._took: dict[int, list[float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        asked_at = time.monotonic()
        self.result.asked += 1
        failed = client.connect_ex(self._address)
        if failed not in (0, errno.EINPROGRESS):
            client.close()
            self.result.statuses[0] += 1
            return
        fd = client.fileno()
        self._open[fd] = (client, asked_at)
        # On one machine it is connected by now, unless nobody can be.
        try:
            client.send(self._request)
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            self._sending.add(fd)
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLOUT)

    def answers(self, timeout_s: float) -> int:
        """Take what has come, within this time at most; return how many clients have their answer."""
        answered = 0
        for fd, _ in self._epoll.poll(timeout_s):
            client, asked_at = self._open[fd]
            if fd in self._sending:
                self._sending.remove(fd)
                self._epoll.modify(fd, select.EPOLLIN)
                try:
                    client.send(self._request)
                except OSError:
                    answered += self._over(fd, asked_at, 0, 0.0)
                continue
            now = time.monotonic()
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
            try:
                answer = client.recv(65536)
            except OSError:
                answer = b""
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
            # Sent in one piece, head and body; with less there is no status.
            unread_s = min(_LAST_RECEIVED.unpack(info)[0] / 1000, now - asked_at) if status else 0.0
            answered += self._over(fd, now - unread_s - asked_at, status, unread_s)
        return answered

    def _over(self, fd: int, took_s: float, status: int, unread_s: float) -> int:
        client, _ = self._open.pop(fd)
        client.close()
        result = self.result
        result.statuses[status] += 1
        result.unread_s = max(result.unread_s, unread_s)
        self._took.setdefault(status, []).append(took_s)
        if took_s > result.slowest_s:
            result.slowest_s, result.slowest_status = took_s, status
        return 1

    def finish(self, began: float) -> Flood:
        """Wait for the last answers and return the result."""
        deadline = time.monotonic() + _GIVE_UP_S
        while self._open and time.monotonic() < deadline:
            self.answers(0.1)
        for fd, (_, asked_at) in list(self._open.items()):
            self._over(fd, time.monotonic() - asked_at, 0, 0.0)
        self.result.seconds = time.monotonic() - began
        served, refused = sorted(self._took.get(202, [])), sorted(self._took.get(503, []))
        self.result.served_p50_s, self.result.served_p99_s = (
            _percentile(served, 0.5),
            _percentile(served, 0.99),
        )
        self.result.refused_p50_s, self.result.refused_p99_s = (
            _percentile(refused, 0.5),
            _percentile(refused, 0.99),
        )
        return self.result


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _main(kind: str, port: str, token: str, title: str, amount: str, seconds: str) -> None:
    clients = _Clients(int(port), token, title)
    began = time.monotonic()
    end = began + float(seconds)
    if kind == "closed":
        for _ in range(int(float(amount))):
            clients.ask()
        while time.monotonic() < end:
            for _ in range(clients.answers(_TURN_S)):
                clients.ask()
    else:
        interval_s = 1 / float(amount)
        due = began
        while (now := time.monotonic()) < end:
            due = max(due, now - _MADE_UP_S)
            while due <= now:
                clients.ask()
                due += interval_s
            clients.answers(min(max(due - time.monotonic(), 0.0), _TURN_S))
    print(json.dumps(vars(clients.finish(began))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
