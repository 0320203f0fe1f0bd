"""Latencies of any number of requests in little memory, exact to 1 %."""

import math
from collections import Counter
from typing import Final

_GROWTH: Final = 1.01
_LOG_GROWTH: Final = math.log(_GROWTH)
_SHORTEST_S: Final = 1e-6


class Latencies:
    """A histogram whose buckets each reach 1 % further than the one before. The slowest is kept as it is."""

    __slots__ = ("_buckets", "max_s")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.max_s = 0.0

    def __len__(self) -> int:
        return self._buckets.total()

    def add(self, latency_s: float, count: int = 1) -> None:
        self._buckets[int(math.log(max(latency_s, _SHORTEST_S) / _SHORTEST_S) / _LOG_GROWTH)] += count
        self.max_s = max(self.max_s, latency_s)

    def merge(self, other: "Latencies") -> None:
        self._buckets.update(other._buckets)
        self.max_s = max(self.max_s, other.max_s)

    def percentile(self, percent: float) -> float:
        """Return the latency that ``percent`` of the requests did not exceed; 0.0 when there are none."""
        rank = math.ceil(len(self) * percent / 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(_SHORTEST_S * _GROWTH ** (bucket + 1), self.max_s)
        return self.max_s
