"""Faults of clients: too many of them, or too slow ones."""

import math
import time
from typing import Final

from tests.faults.trial import Scene, percentile
from tests.support.flood import flood
from tests.support.slow_clients import SlowClients
from todo_api.overload import AGE_MAX_S

# Enough that nobody waits for a client, few enough that nobody is refused.
_CAPACITY_CONNECTIONS: Final = 32
_SLOW_CLIENTS: Final = 512
_HEAD_CUT_S: Final = 35.0


def overload(scene: Scene) -> None:
    """Three times as many writes as can be served: measured first, then asked for."""
    client = scene.fleet.client("flood")
    name = scene.load.ledger.name

    def run(connections: int, seconds: float) -> tuple[float, float]:
        result = flood(scene.fleet.port, client.token, f"flood of {name}", connections, seconds)
        others = set(result.statuses) - {202, 429, 503}
        scene.expect(not others, f"answers {dict(result.statuses)}")
        scene.notes.append(
            f"{connections} connections: {result.served_per_s:.0f}/s served, "
            f"{result.statuses[503] / result.seconds:.0f}/s refused, slowest {result.slowest_s:.2f} s "
            f"({result.slowest_status}, connected after {result.connected_s:.2f} s; "
            f"flood late by up to {result.late_s:.2f} s)"
        )
        return result.served_per_s, result.slowest_s

    capacity, _ = run(_CAPACITY_CONNECTIONS, scene.pace.seconds / 2)
    # A client that is refused waited for AGE_MAX_S: so many of them ask three times what can be served.
    served, slowest_s = run(math.ceil(3 * capacity * AGE_MAX_S), scene.pace.seconds)
    scene.expect(served >= 0.8 * capacity, f"goodput {served / capacity:.0%}")
    if not scene.pace.is_short:
        scene.expect(slowest_s <= 1.0, f"an answer took {slowest_s:.2f} s")


def slow_clients(scene: Scene) -> None:
    """512 connections that are slow to write a head or a body, or to read."""
    clients = SlowClients(scene.fleet.port, _SLOW_CLIENTS)
    began = time.monotonic()
    with clients.holding():
        scene.go_on()
    seen = [read for read in list(scene.load.reads) if read.sent_at > began]
    worst_s = max(read.took_s for read in seen)
    scene.notes.append(
        f"others: p99 {percentile(sorted(r.took_s for r in seen), 0.99):.3f} s, worst {worst_s:.2f} s; "
        f"{len(clients.head_cut_after_s)} slow heads cut after {max(clients.head_cut_after_s, default=0):.0f} s"
    )
    if not scene.pace.is_short:
        scene.expect(worst_s <= 1.0, f"a read took {worst_s:.2f} s")
        cut = clients.head_cut_after_s
        scene.expect(len(cut) >= _SLOW_CLIENTS // 3, f"only {len(cut)} slow heads were cut")
        scene.expect(max(cut, default=0) <= _HEAD_CUT_S, f"a slow head was suffered for {max(cut):.0f} s")
