"""Spans of OpenTelemetry, sent by OTLP over HTTP. Needs the extra ``otel``; imported only when an endpoint is set.

What else there is to configure (sampling, headers, resource attributes) is read from the OTEL_* variables by the SDK.
"""

import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from todo_api.core.command_log import Headers
from todo_api.core.trace_context import TRACEPARENT, TRACESTATE
from todo_api.core.tracing import Attributes, Span, SpanKind

_KINDS: Final = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.PRODUCER: trace.SpanKind.PRODUCER,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def otlp_processor(endpoint: str) -> SpanProcessor:
    """Return what sends spans to the collector at ``endpoint``, in a thread of its own."""
    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=5))


class OtelTracing:
    """A ``Tracing`` with a provider of its own, not the global one. ``make_processor`` is called by ``start``."""

    is_on = True

    def __init__(self, service: str, make_processor: Callable[[], SpanProcessor]) -> None:
        resource = Resource.create({"service.name": service, "service.version": version("todo-api")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = self._provider.get_tracer("todo-api", version("todo-api"))
        self._make_processor = make_processor

    def start(self) -> None:
        # A thread, which would not survive the fork.
        self._provider.add_span_processor(self._make_processor())

    def stop(self, timeout_s: float) -> None:
        # It sends what there is, and takes no bound: a collector that does not answer holds it up for an export's 5 s.
        stopping = threading.Thread(target=self._provider.shutdown, name="spans-stopping", daemon=True)
        stopping.start()
        stopping.join(timeout_s)

    def begin(
        self, kind: SpanKind, parent: Headers, links: Sequence[Headers] = (), *, ago_s: float = 0.0
    ) -> Span:
        began_ns = time.time_ns() - int(ago_s * 1e9)
        contexts = [trace.get_current_span(_context(link)).get_span_context() for link in links]
        return _OtelSpan(
            self._tracer.start_span(
                kind,
                _context(parent),
                _KINDS[kind],
                links=[trace.Link(context) for context in contexts if context.is_valid],
                start_time=began_ns,
            )
        )


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def headers(self) -> Headers:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span))
        return tuple((name, value.encode()) for name, value in carrier.items())

    def end(self, name: str, attributes: Attributes, *, is_error: bool = False) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if is_error:
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


def _context(headers: Headers) -> Context:
    carrier = {
        name: value.decode(errors="replace") for name, value in headers if name in (TRACEPARENT, TRACESTATE)
    }
    return _PROPAGATOR.extract(carrier, Context())
