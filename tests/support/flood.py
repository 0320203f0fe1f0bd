"""More writes than can be served: many connections at once, each asking again as soon as it is answered."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]


@dataclass
class Flood:
    """What came of it. ``statuses`` counts the answers, 0 those that did not come; ``slowest_s`` is over all.

    ``connected_s`` is the part of it until there was a connection. ``late_s`` is by how much the flood itself was late
    at most to see what had come: on a busy machine, part of ``slowest_s``.
    """

    connections: int
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_status: int = 0
    connected_s: float = 0.0
    late_s: float = 0.0
    seconds: float = 0.0

    @property
    def served_per_s(self) -> float:
        return self.statuses[202] / self.seconds


def flood(port: int, token: str, title: str, connections: int, seconds: float) -> Flood:
    """Create todos named ``title`` on ``connections`` for ``seconds``; returns when the last one is answered.

    Each request is a new connection, as from as many clients. It comes from a process of its own, which does nothing
    else: among the threads of a load, a flood is late by a second to see its answers.
    """
    command = [sys.executable, "-m", __name__, str(port), token, title, str(connections), str(seconds)]
    done = subprocess.run(
        command, cwd=_ROOT, check=True, capture_output=True, text=True, timeout=seconds + 60
    )
    told = json.loads(done.stdout)
    statuses = Counter({int(status): count for status, count in told.pop("statuses").items()})
    return Flood(statuses=statuses, **told)


def _main(port: str, token: str, title: str, connections: str, seconds: str) -> None:
    result = Flood(int(connections))
    asyncio.run(_flood(result, int(port), token, title, float(seconds)))
    print(json.dumps(vars(result)))


async def _flood(result: Flood, port: int, token: str, title: str, seconds: float) -> None:
    body = json.dumps({"title": title}).encode()
    head = (
        f"POST /todos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    )
    request = (
        head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    began = time.monotonic()
    clients = [_ask(result, port, request, began, seconds, number) for number in range(result.connections)]
    watching = asyncio.ensure_future(_watch_the_clock(result))
    await asyncio.gather(*clients)
    watching.cancel()
    result.seconds = time.monotonic() - began


async def _watch_the_clock(result: Flood) -> None:
    while True:
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        result.late_s = max(result.late_s, time.monotonic() - due)


async def _ask(result: Flood, port: int, request: bytes, began: float, seconds: float, number: int) -> None:
    # Clients come over half a second, not all in one moment: a thundering herd is another matter.
    await asyncio.sleep(0.5 * number / result.connections)
    while time.monotonic() < began + seconds:
        sent_at = time.monotonic()
        status, connected_s = 0, 0.0
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            connected_s = time.monotonic() - sent_at
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        except (OSError, TimeoutError):
            pass
        result.statuses[status] += 1
        took = time.monotonic() - sent_at
        if took > result.slowest_s:
            result.slowest_s, result.slowest_status, result.connected_s = took, status, connected_s


if __name__ == "__main__":
    _main(*sys.argv[1:])
