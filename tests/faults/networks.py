"""Faults of the network between our processes and their servers; ``log_outages`` has those that take the log away."""

from collections.abc import Sequence
from typing import Final

from tests.faults.fleet import rolling
from tests.faults.trial import Scene

_DELAY_S: Final = 0.1
_CUTS_PER_S: Final = 2
_STORES: Final = ("DATABASE_URL", "REDIS_URL")
_LOG: Final = ("KAFKA_BROKERS",)


def delayed(scene: Scene) -> None:
    """PostgreSQL, then Redis, 100 ms away in each direction."""
    _delayed(scene, _STORES)


def log_delayed(scene: Scene) -> None:
    """Kafka, 100 ms away in each direction."""
    _delayed(scene, _LOG)


def _delayed(scene: Scene, names: Sequence[str]) -> None:
    for name in names:
        network = scene.fleet.networks[name]
        network.delay_s = _DELAY_S
        scene.go_on(1 / len(names))
        network.heal()


def cut(scene: Scene) -> None:
    """Connections to PostgreSQL, then to Redis, reset in the middle of an answer, twice a second."""
    _cut(scene, _STORES)


def log_cut(scene: Scene) -> None:
    """Connections to Kafka reset in the middle of an answer, twice a second."""
    _cut(scene, _LOG)


def _cut(scene: Scene, names: Sequence[str]) -> None:
    for name in names:
        network = scene.fleet.networks[name]
        before = network.cuts

        def cut_once(_: int, network=network) -> None:
            network.is_cutting = True
            scene.load.go_on(0.1)
            network.heal()

        seconds = scene.pace.seconds / len(names)
        rolling(seconds, round(seconds * _CUTS_PER_S), cut_once, scene.load.go_on)
        scene.expect(network.cuts > before, f"no answer was cut of {name}")
        scene.notes.append(f"{network.cuts - before} answers cut of {name}")


def postgres_swallowed(scene: Scene) -> None:
    """PostgreSQL behind a black hole: connections stay, nothing gets through, nobody is told."""
    _swallowed(scene, "DATABASE_URL")


def redis_swallowed(scene: Scene) -> None:
    """Redis behind a black hole."""
    _swallowed(scene, "REDIS_URL")


def _swallowed(scene: Scene, name: str) -> None:
    network = scene.fleet.networks[name]
    network.swallow()
    scene.go_on()
    network.heal()
