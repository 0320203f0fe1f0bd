"""More writes than can be served: many connections at once, each asking again as soon as it is answered."""

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Flood:
    """What came of it. ``statuses`` counts the answers, 0 those that did not come; ``slowest_s`` is over all."""

    connections: int
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    seconds: float = 0.0

    @property
    def served_per_s(self) -> float:
        return self.statuses[202] / self.seconds


def flood(port: int, token: str, title: str, connections: int, seconds: float) -> Flood:
    """Create todos named ``title`` on ``connections`` for ``seconds``; returns when the last one is answered.

    Each request is a new connection, as from as many clients. It comes from a thread of its own.
    """
    result = Flood(connections)
    thread = threading.Thread(target=lambda: asyncio.run(_flood(result, port, token, title, seconds)))
    thread.start()
    thread.join(seconds + 60)
    assert not thread.is_alive(), "the flood does not end"
    return result


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
    await asyncio.gather(*clients)
    result.seconds = time.monotonic() - began


async def _ask(result: Flood, port: int, request: bytes, began: float, seconds: float, number: int) -> None:
    # Clients come over half a second, not all in one moment: a thundering herd is another matter.
    await asyncio.sleep(0.5 * number / result.connections)
    while time.monotonic() < began + seconds:
        sent_at = time.monotonic()
        status = 0
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        except (OSError, TimeoutError):
            pass
        result.statuses[status] += 1
        result.slowest_s = max(result.slowest_s, time.monotonic() - sent_at)
