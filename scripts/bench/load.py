"""One run of load: what is asked for, what came of it, and when it says nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

# Every percent, then the tail. Each generator reports those it knows; all know 50, 90, 99 and 100, the slowest.
PERCENTILES: Final[tuple[float, ...]] = (*map(float, range(1, 100)), 99.5, 99.9, 99.95, 99.99, 100.0)
# A request without an answer after this long is a failure.
TIMEOUT_S: Final = 10
INTERVAL_S: Final = 0.1
FAILURES_MAX: Final = 0.001


class Refused(Exception):
    """What was measured says nothing about speed; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ask for ``url`` on ``connections`` connections for ``duration_s``.

    Without ``rate`` each connection asks again as soon as it is answered (closed loop). With it, requests are due
    ``rate`` times a second whatever the answers do (open loop). With ``body``, JSON, each is a POST; wrk can do that.
    """

    url: str
    duration_s: int
    connections: int
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    body: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run. ``requests`` were answered within the time, well or not.

    ``failures`` are answers of 400 and above, broken connections and time-outs. ``latency_s`` is by percentile.
    ``timeline`` holds the requests of each INTERVAL_S; it is empty when the generator does not tell.
    """

    generator: str
    requests: int
    failures: int
    seconds: float
    latency_s: Mapping[float, float]
    timeline: Sequence[int] = ()

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds

    @property
    def p99_s(self) -> float:
        return self.latency_s[99.0]


def ignore() -> None:
    pass


class Generator(Protocol):
    """Makes load. ``cores`` is how many cores it can use at most."""

    @property
    def cores(self) -> int: ...

    def load(self, plan: Plan, begun: Callable[[], None] = ignore) -> Load:
        """Run the plan; blocks for its duration and up to TIMEOUT_S more. Raises StackError when it fails.

        ``begun`` is called once, when everything is ready and the first request about to be sent.
        """


def check_load(load: Load, what: str) -> None:
    """Raise Refused when there was no answer, or more than 0.1 % of the requests failed."""
    if load.requests == 0:
        raise Refused(f"{what}: not one request was answered.")
    if load.failures > load.requests * FAILURES_MAX:
        raise Refused(
            f"{what}: {load.failures} failures in {load.requests} requests, more than {FAILURES_MAX:.1%}; "
            "how fast errors are answered is not the question."
        )
