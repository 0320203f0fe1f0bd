"""Faults of clients: too many of them, or too slow ones."""

import time
from typing import Final

from tests.faults.fleet import INSTANCES
from tests.faults.trial import Scene, percentile
from tests.support.cores import one_core_for_servers
from tests.support.flood import Flood, closed_loop, open_loop
from tests.support.slow_clients import SlowClients

# Enough that nobody waits for a client, few enough that nobody is refused: three quarters of what nginx lets through.
_CAPACITY_CLIENTS: Final = 48 * INSTANCES
_TIMES: Final = 3
# What an overload must be at least, to show anything.
_TIMES_MIN: Final = 2
_GOODPUT: Final = 0.8
_ANSWER_S: Final = 1.0
_SLOW_CLIENTS: Final = 512
_HEAD_CUT_S: Final = 35.0


def overload(scene: Scene) -> None:
    """Three times as many writes as can be served: measured first, then asked for, whatever becomes of them.

    The service has one core, clients and nginx have the others: a flood on the same core takes from what it asks for.
    """
    port, token, title = (
        scene.fleet.port,
        scene.fleet.client("flood").token,
        f"flood of {scene.load.ledger.name}",
    )
    with one_core_for_servers([scene.fleet.nginx_pid]) as is_apart:
        # A broker that has just been started takes half of what it takes a little later.
        closed_loop(port, token, title, _CAPACITY_CLIENTS, scene.pace.seconds / 2)
        calm = closed_loop(port, token, title, _CAPACITY_CLIENTS, scene.pace.seconds / 2)
        _note(scene, f"{_CAPACITY_CLIENTS} clients", calm)
        waited_s = scene.fleet.nginx_waited_s()
        flood = open_loop(port, token, title, _TIMES * calm.served_per_s, scene.pace.seconds)
        waited_s = scene.fleet.nginx_waited_s() - waited_s
    times = flood.asked_per_s / calm.served_per_s
    _note(scene, f"flood of {times:.1f} times that", flood)
    goodput = flood.served_per_s / calm.served_per_s
    # Where time goes when cores are short, and none of the service's doing.
    scene.notes.append(
        f"goodput {goodput:.0%}; nginx waited for a processor for {waited_s / flood.seconds:.2f} s a second"
        + ("" if is_apart else "; the service and the load had one core together")
    )
    if not scene.pace.is_short:
        scene.expect(times >= _TIMES_MIN, f"only {times:.1f} times the capacity was asked for")
        scene.expect(goodput >= _GOODPUT, f"goodput {goodput:.0%}")
        scene.expect(flood.slowest_s <= _ANSWER_S, f"an answer took {flood.slowest_s:.2f} s")


def _note(scene: Scene, who: str, result: Flood) -> None:
    others = set(result.statuses) - {202, 429, 503}
    scene.expect(not others, f"answers {dict(result.statuses)}")
    scene.notes.append(
        f"{who}: {result.asked_per_s:.0f}/s asked, {result.served_per_s:.0f}/s served, "
        f"answers p99 {result.served_p99_s:.2f} s, refusals p99 {result.refused_p99_s:.2f} s, "
        f"slowest {result.slowest_s:.2f} s ({result.slowest_status}), and then unread for up to {result.unread_s:.2f} s"
    )


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
