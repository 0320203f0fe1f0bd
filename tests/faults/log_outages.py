"""Faults of the command log: it stops, hangs, or cannot be reached, and writes are refused until it is back."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from scripts.stack.server import ServerProcess
from tests.faults.trial import Scene, percentile

GROWTH_MB: Final = 50


def _process(scene: Scene) -> ServerProcess:
    return scene.fleet.servers.log_process(scene.fleet.kind)


def stopped(scene: Scene) -> None:
    log = _process(scene)
    _away(scene, log.stop, log.start)


def killed(scene: Scene) -> None:
    log = _process(scene)
    _away(scene, log.kill, log.start, 1 / 3)


def frozen(scene: Scene) -> None:
    log = _process(scene)
    _away(scene, log.freeze, log.resume)


def swallowed(scene: Scene) -> None:
    """The log behind a black hole: connections stay, nothing gets through, nobody is told."""
    network = scene.fleet.log_network()
    _away(scene, network.swallow, network.heal)


def answers_swallowed(scene: Scene) -> None:
    """What is written arrives, and no answer comes back: every write is unknown, and most of them take effect."""
    network = scene.fleet.log_network()
    _away(scene, partial(network.swallow, requests=False), network.heal)


def _away(scene: Scene, take: Callable[[], None], bring: Callable[[], None], share: float = 1.0) -> None:
    memory = scene.fleet.memory_bytes()
    took_at = time.monotonic()
    take()
    away_at = time.monotonic()
    scene.go_on(share)
    back_at = time.monotonic()
    bring()
    growth_mb = {name: (now - memory[name]) / 1e6 for name, now in scene.fleet.memory_bytes().items()}
    scene.expect(sum(growth_mb.values()) <= GROWTH_MB, f"memory grew by {growth_mb} MB")
    inside = [w for w in list(scene.load.ledger.writes) if away_at < w.sent_at and w.answered_at < back_at]
    acked = [write for write in inside if write.status == 202]
    scene.expect(not acked, f"{len(acked)} writes acknowledged without a log")
    # A status of another kind would be an answer of nginx's, or none.
    others = (
        {write.status for write in inside}
        - {202, 503}
        - {write.status for write in inside if write.outcome == "refused"}
    )
    scene.expect(not others, f"answers {others}")
    waits = [
        w.took_s for w in list(scene.load.ledger.writes) if w.sent_at > took_at and w.answered_at < back_at
    ]
    # The first in each process waits for the log, and whoever queues behind it meanwhile: each user at most once.
    long = sum(wait > 1.0 for wait in waits)
    if not scene.pace.is_short:
        scene.expect(long <= scene.load.users, f"{long} waited above 1 s")
    scene.notes.append(
        f"{len(inside)} refused, {long} waited above 1 s, "
        f"memory {', '.join(f'{name} {mb:+.0f} MB' for name, mb in growth_mb.items())}"
    )
    reads = list(scene.load.reads)
    before = sorted(read.took_s for read in reads if read.sent_at < took_at)
    during = sorted(read.took_s for read in reads if took_at < read.sent_at < back_at)
    scene.notes.append(
        f"reads p99 {percentile(before, 0.99):.3f} s before, {percentile(during, 0.99):.3f} s during, "
        f"{sum(wait > 0.5 for wait in during)} of {len(during)} above 0.5 s"
    )


def stopped_and_api_rolled(scene: Scene) -> None:
    log = _process(scene)
    log.stop()
    for instance in scene.fleet.instances:
        # It gets ready without the log: reads must be answered.
        scene.fleet.restart(instance)
    scene.go_on(1 / 2)
    log.start()
