"""What one answer of ``GET /todos`` costs, by its size."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from scripts.plan.figures import (
    LIST_GZIP_BYTES,
    LIST_PLAIN,
    LIST_PLAIN_BYTES,
    NGINX_LIST,
    NGINX_PAGE,
    PAGE_GZIP,
    PAGE_GZIP_BYTES,
    PAGE_PLAIN,
    PAGE_PLAIN_BYTES,
)

# Bytes of an answer and the CPU time it was measured to take, in microseconds; the smallest first.
_API: Final = sorted(
    (size.value, 1e6 / answers.value)
    for size, answers in (
        (PAGE_GZIP_BYTES, PAGE_GZIP),
        (PAGE_PLAIN_BYTES, PAGE_PLAIN),
        (LIST_PLAIN_BYTES, LIST_PLAIN),
    )
)
_NGINX: Final = sorted(
    (size.value, 1e6 / answers.value)
    for size, answers in ((PAGE_PLAIN_BYTES, NGINX_PAGE), (LIST_PLAIN_BYTES, NGINX_LIST))
)


@dataclass(frozen=True, slots=True)
class Payload:
    """One page as it goes over the wire, headers included."""

    name: str
    plain_bytes: float
    gzip_bytes: float

    @property
    def stored_bytes(self) -> float:
        """What Redis holds and hands to each API process: the compressed form alone."""
        return self.gzip_bytes

    def mean(self, gzip_share: float, cost: Callable[[float], float] = float) -> float:
        """Return the bytes of an answer, or what they cost, when this share of the readers takes gzip."""
        return gzip_share * cost(self.gzip_bytes) + (1 - gzip_share) * cost(self.plain_bytes)


_NAMED: Final = {
    "limit=100": Payload("limit=100", PAGE_PLAIN_BYTES.value, PAGE_GZIP_BYTES.value),
    "all": Payload("all 10,000", LIST_PLAIN_BYTES.value, LIST_GZIP_BYTES.value),
}


def payload(text: str) -> Payload:
    """Return the page that ``limit=100``, ``all`` or a number of bytes (plain) means. Raises ValueError.

    A page of so many bytes is taken to be compressed as well as ``limit=100`` is.
    """
    if text in _NAMED:
        return _NAMED[text]
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1_000_000_000):
        raise ValueError(
            f"{text!r} is none of {', '.join(_NAMED)}, or a number of bytes from 1 to 1000000000"
        )
    page = _NAMED["limit=100"]
    plain_bytes = float(text)
    return Payload(f"{int(text):,} bytes", plain_bytes, plain_bytes * page.gzip_bytes / page.plain_bytes)


def api_us(answer_bytes: float) -> float:
    """Return the CPU time of an API process for one answer of so many bytes, in microseconds."""
    return _between(_API, answer_bytes)


def nginx_us(answer_bytes: float) -> float:
    """Return the CPU time of nginx for one answer of so many bytes that it has itself, in microseconds."""
    return _between(_NGINX, answer_bytes)


def _between(measured: Sequence[tuple[float, float]], answer_bytes: float) -> float:
    """Return the cost on the straight lines between measured sizes.

    Above the largest the last line goes on; below the smallest an answer costs what the smallest does.
    """
    place = min(bisect_left(measured, (answer_bytes, 0.0)), len(measured) - 1)
    if place == 0:
        return measured[0][1]
    (small, cost), (large, more) = measured[place - 1 : place + 1]
    return cost + (more - cost) * (answer_bytes - small) / (large - small)
