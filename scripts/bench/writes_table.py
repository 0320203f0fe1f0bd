"""The tables of ``todo bench writes``."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from scripts.bench.load import Load
from scripts.bench.tables import Table
from scripts.bench.writes import PEER, Sample, Way

# Whose CPU time is counted by writes accepted, and whose by commands applied.
_ACCEPTING: Final = ("API", "relay", "kafka")
_APPLYING: Final = ("worker", "postgres")
_MIB: Final = 1024 * 1024


def accepted_table(samples: Mapping[Way, Sequence[Sample]]) -> Table:
    """Return a row a way: what is accepted while nobody applies. Medians over the rounds."""
    columns = (
        "no worker",
        "writes/s",
        "of the peer",
        "p50",
        "p99",
        "CPU us: API",
        "relay",
        "broker",
        "memory",
    )
    rows = []
    for way, ours in samples.items():
        loads = [sample.load for sample in ours]
        cpu_us = {
            name: _us(sum(sample.cpu_s.get(name, 0.0) for sample in ours), _requests(loads) * way.items)
            for name in _ACCEPTING
        }
        rows.append(
            [
                way.name,
                f"{_median(load.requests_per_s for load in loads) * way.items:,.0f}",
                _of_the_peer(loads, samples, way.items),
                *_latencies(loads),
                *(cpu_us[name] for name in _ACCEPTING),
                f"{_median(sample.memory_bytes / _MIB for sample in ours):,.0f} MiB",
            ]
        )
    return Table(columns, rows)


def applied_table(samples: Mapping[Way, Sequence[Sample]]) -> Table:
    """Return a row for each of our ways: the same load while a worker applies."""
    columns = (
        "with a worker", "writes/s", "of the peer", "p50", "p99", "applied/s", "catching up/s",
        "CPU us: API", "relay", "broker", "worker", "PostgreSQL", "visible p50", "p99",
    )  # fmt: skip
    rows = []
    for way, all_samples in samples.items():
        ours = [(sample, sample.whole) for sample in all_samples if sample.whole is not None]
        if not ours:
            continue
        loads = [load for _, load in ours]
        spent = {
            name: sum(sample.whole_cpu_s.get(name, 0.0) for sample, _ in ours)
            for name in (*_ACCEPTING, *_APPLYING)
        }
        applied = sum(sample.applied for sample, _ in ours)
        visible = sorted(seconds for sample, _ in ours for seconds in sample.visible_s)
        rows.append(
            [
                way.name,
                f"{_median(load.requests_per_s for load in loads) * way.items:,.0f}",
                _of_the_peer(loads, samples, way.items),
                *_latencies(loads),
                f"{_median(sample.applied / load.seconds for sample, load in ours):,.0f}",
                f"{_median(sample.caught_up_per_s for sample, _ in ours):,.0f}",
                *(_us(spent[name], _requests(loads) * way.items) for name in _ACCEPTING),
                *(_us(spent[name], applied) for name in _APPLYING),
                *(f"{_at(visible, share):.2f} s" if visible else "" for share in (0.5, 0.99)),
            ]
        )
    return Table(columns, rows)


def _of_the_peer(loads: Sequence[Load], samples: Mapping[Way, Sequence[Sample]], items: int) -> str:
    """Return the ratio of each round to the peer in the same round: the median, the smallest and the largest."""
    peers = [sample.load.requests_per_s for sample in samples.get(PEER, ())]
    if not peers:
        return ""
    ratios = sorted(load.requests_per_s * items / peer for load, peer in zip(loads, peers, strict=True))
    middle = statistics.median(ratios)
    return f"{middle:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})" if len(ratios) > 1 else f"{middle:.2f}"


def _latencies(loads: Sequence[Load]) -> list[str]:
    return [f"{_median(load.latency_s[percent] for load in loads) * 1000:.1f} ms" for percent in (50.0, 99.0)]


def _requests(loads: Sequence[Load]) -> int:
    return sum(load.requests for load in loads)


def _us(seconds: float, count: int) -> str:
    return f"{seconds / count * 1e6:.0f}" if seconds and count else ""


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[int((len(ordered) - 1) * share)]
