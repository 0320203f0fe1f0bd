"""One page of a running API under load: warm it, load it, and refuse when the figures would mean nothing."""

import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from scripts.bench.hey import Hey
from scripts.bench.load import INTERVAL_S, Generator, Load, Plan, Refused, check_load
from scripts.bench.own_client import OwnClient
from scripts.bench.usage import Meter, Usage
from scripts.bench.wrk import Wrk
from scripts.stack.server import StackError

GeneratorName = Literal["auto", "wrk", "hey", "own"]

# Enough that each of a handful of API processes has met the page.
_WARM_UP_S: Final = 2
# New connections, so that probably each process is asked.
_PROBES: Final = 16
_PROBE_TIMEOUT_S: Final = 10
# A cache that fills while it is measured shows as a slow first second.
_SLOW_START: Final = 0.5
_INTERVALS_PER_S: Final = round(1 / INTERVAL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run that counts. ``answer_bytes`` is the length of one answer's body as it was sent."""

    plan: Plan
    load: Load
    usage: Usage
    answer_bytes: int


def measure(plan: Plan, generator: Generator) -> Measured:
    """Warm up, run the plan and check it. Blocks for its duration and a few seconds.

    Raises StackError when nobody answers, Refused when errors or a cold cache make the figures worthless.
    """
    answer_bytes = _probe(plan)
    # Nothing is due in a warm-up: as fast as it goes.
    generator.load(replace(plan, duration_s=min(_WARM_UP_S, plan.duration_s), rate=None))
    for _ in range(_PROBES):
        _probe(plan)
    parts = urlsplit(plan.url)
    meter = Meter(
        parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), generator.cores
    )
    load = generator.load(plan, meter.start)
    usage = meter.read()
    check_load(load, plan.url)
    check_start(load.timeline, plan.url)
    _probe(plan)
    return Measured(plan=plan, load=load, usage=usage, answer_bytes=answer_bytes)


def choose_generator(name: GeneratorName, plan: Plan) -> Generator:
    """Return the generator of that name; ``auto`` is wrk, else hey, else ours, and with a rate always ours.

    Raises StackError when it is not installed or cannot keep a rate.
    """
    if name == "auto":
        name = (
            "own" if plan.rate else "wrk" if shutil.which("wrk") else "hey" if shutil.which("hey") else "own"
        )
    if plan.rate and name != "own":
        raise StackError(f"{name} waits for answers, so it cannot keep a rate: leave --generator out.")
    cores = os.cpu_count() or 1
    if name == "wrk":
        return Wrk(max(1, cores // 2), timeline=True)
    return Hey() if name == "hey" else OwnClient(cores)


def check_cache(headers: Sequence[tuple[str, str]], what: str) -> None:
    """Raise Refused when an answer says that a cache did not have it, or had only an old one (RFC 9211)."""
    for name, value in headers:
        lowered = value.lower()
        missed = name.lower() == "cache-status" and any(
            parameter.strip().startswith(("fwd=", "ttl=-")) for parameter in lowered.split(";")
        )
        if missed or (name.lower() in ("x-cache", "x-cache-status") and "hit" not in lowered):
            raise Refused(f"{what}: the cache was cold or cut off after the warm-up ({name}: {value}).")


def check_start(timeline: Sequence[int], what: str) -> None:
    """Raise Refused when the first second was much slower than the others: something was still warming up.

    A run of less than four seconds is not judged.
    """
    seconds = [
        sum(timeline[at : at + _INTERVALS_PER_S])
        for at in range(0, len(timeline) - _INTERVALS_PER_S + 1, _INTERVALS_PER_S)
    ]
    if len(seconds) >= 4 and seconds[0] < _SLOW_START * statistics.median(seconds[1:]):
        raise Refused(
            f"{what}: {seconds[0]} answers in the first second, {statistics.median(seconds[1:]):.0f} in a usual one: "
            "the cache was cold when it began. Try again."
        )


def _probe(plan: Plan) -> int:
    """Ask once on a new connection and return the length of the body as sent."""
    request = Request(plan.url, headers=dict(plan.headers))  # noqa: S310 the user's own URL
    try:
        with urlopen(request, timeout=_PROBE_TIMEOUT_S) as answer:  # noqa: S310
            check_cache(answer.getheaders(), plan.url)
            return len(answer.read())
    except HTTPError as ex:
        raise Refused(f"{plan.url}: answered with {ex.code} before any load.") from ex
    except (URLError, OSError) as ex:
        raise StackError(f"Nobody answers at {plan.url}: {getattr(ex, 'reason', ex)}.") from ex
