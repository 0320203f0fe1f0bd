"""A run compared with an older one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from scripts.stack.server import StackError

# Below this, two runs on the same machine differ by themselves.
_RATE_LOSS_MAX: Final = 0.10
_LATENCY_GAIN_MAX: Final = 0.25
_LATENCY_GAIN_MIN_MS: Final = 1.0
# Runs that differ in one of these measured something else.
_SAME: Final = ("machine", "headers", "connections", "rate_per_s", "generator")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure now and then."""

    name: str
    now: float
    then: float
    is_worse: bool

    def __str__(self) -> str:
        change = f"{self.now / self.then - 1:+.1%}" if self.then else "new"
        return f"{self.name}: {self.now:,.2f}, was {self.then:,.2f} ({change}){', worse' if self.is_worse else ''}"


def load_baseline(path: Path) -> dict[str, Any]:
    """Return a stored result. Raises StackError when the file is not one."""
    try:
        values = json.loads(path.read_text())
        if not {"requests_per_s", "latency_ms", "url", *_SAME} <= set(values):
            raise ValueError("it lacks figures")
    except (OSError, ValueError, TypeError) as ex:
        raise StackError(f"{path} is not a result of `todo bench http`: {ex}.") from ex
    assert isinstance(values, dict)
    return values


def compare(now: dict[str, Any], then: dict[str, Any]) -> list[Difference]:
    """Return how the figures changed.

    Worse is: 10 % fewer requests a second, or a p50 or p99 that is 25 % and 1 ms higher. Raises StackError when the
    two runs measured different things.
    """
    other = [name for name in _SAME if now[name] != then[name]]
    if _target(now) != _target(then):
        other.append("page")
    if other:
        raise StackError(f"The baseline is not comparable: another {', '.join(other)}.")
    rates = now["requests_per_s"], then["requests_per_s"]
    differences = [Difference("requests a second", *rates, rates[0] < rates[1] * (1 - _RATE_LOSS_MAX))]
    for percent in ("50", "99"):
        new, old = now["latency_ms"][percent], then["latency_ms"][percent]
        is_worse = new > old * (1 + _LATENCY_GAIN_MAX) and new - old > _LATENCY_GAIN_MIN_MS
        differences.append(Difference(f"p{percent} in ms", new, old, is_worse))
    return differences


def _target(values: dict[str, Any]) -> tuple[str, str]:
    # Another port or host is the same page.
    parts = urlsplit(values["url"])
    return parts.path, parts.query
