"""Faults of the network between our processes and their servers."""

from tests.faults.fleet import rolling
from tests.faults.trial import Scene

_DELAY_S = 0.1
_CUTS_PER_S = 2


def delayed(scene: Scene) -> None:
    """PostgreSQL, then Redis, 100 ms away in each direction."""
    for network in scene.fleet.networks.values():
        network.delay_s = _DELAY_S
        scene.go_on(1 / 2)
        network.heal()


def cut(scene: Scene) -> None:
    """Connections to PostgreSQL, then to Redis, reset in the middle of an answer, twice a second."""
    for name, network in scene.fleet.networks.items():
        before = network.cuts

        def cut_once(_: int, network=network) -> None:
            network.is_cutting = True
            scene.load.go_on(0.1)
            network.heal()

        seconds = scene.pace.seconds / 2
        rolling(seconds, round(seconds * _CUTS_PER_S), cut_once, scene.load.go_on)
        scene.expect(network.cuts > before, f"no answer was cut of {name}")
        scene.notes.append(f"{network.cuts - before} answers cut of {name}")
