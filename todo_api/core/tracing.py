"""Spans: of OpenTelemetry when it is set up (otel.py), else of nobody.

A span is known by the record headers that name it (trace_context.py), in both directions: ``parent`` and ``links`` are
headers, and a span gives headers. So nothing here needs OpenTelemetry, and without it what came in is passed on.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Protocol

from todo_api.core.command_log import Headers
from todo_api.core.trace_context import TRACEPARENT, TRACESTATE


class SpanKind(StrEnum):
    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"


Attributes = Mapping[str, str | int | bool]


class Span(Protocol):
    @property
    def headers(self) -> Headers:
        """What makes another span this one's child: its trace context."""

    def end(self, name: str, attributes: Attributes, *, is_error: bool = False) -> None: ...


class Tracing(Protocol):
    """Makes spans. Of its calls only ``stop`` waits."""

    @property
    def is_on(self) -> bool:
        """Whether anybody will see them."""

    def start(self) -> None:
        """Call it after the fork, once."""

    def stop(self, timeout_s: float) -> None:
        """Send what there is, within ``timeout_s``."""

    def begin(
        self, kind: SpanKind, parent: Headers, links: Sequence[Headers] = (), *, ago_s: float = 0.0
    ) -> Span:
        """Return a span that began ``ago_s`` ago. It gets its name when it ends."""


class PassedOn:
    """No span: the next one's parent is whoever was ours."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers

    def end(self, name: str, attributes: Attributes, *, is_error: bool = False) -> None: ...


class NoTracing:
    is_on = False

    def start(self) -> None: ...

    def stop(self, timeout_s: float) -> None: ...

    def begin(
        self,
        kind: SpanKind,  # noqa: ARG002 nobody looks at the span
        parent: Headers,
        links: Sequence[Headers] = (),  # noqa: ARG002
        *,
        ago_s: float = 0.0,  # noqa: ARG002
    ) -> Span:
        return PassedOn(tuple(header for header in parent if header[0] in (TRACEPARENT, TRACESTATE)))


def make_tracing(service: str, endpoint: str | None) -> Tracing:
    """Return what sends the spans of ``service`` to the collector at ``endpoint``. Opens nothing yet.

    Raises ImportError when there is an endpoint and OpenTelemetry is not installed (extra ``otel``).
    """
    if endpoint is None:
        return NoTracing()
    from todo_api.core.otel import OtelTracing, otlp_processor

    return OtelTracing(service, partial(otlp_processor, endpoint))
