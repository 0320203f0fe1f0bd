"""A write is one trace from the request to the row; without OpenTelemetry what came in is passed on."""

import gzip
import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.api import Api, MemoryPublisher
from todo_api.core.command_log import Message
from todo_api.core.commands import decode
from todo_api.core.errors import LogUnavailable
from todo_api.core.otel import OtelTracing
from todo_api.core.trace_context import current, is_sampled, origin, trace_headers
from todo_api.core.tracing import NoTracing, SpanKind, make_tracing
from todo_api.instrumented_publisher import InstrumentedPublisher
from todo_api.telemetry import Telemetry
from todo_worker.applier import Applied, PartitionBatch, Progress
from todo_worker.telemetry import WorkerTelemetry

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


class Rig:
    """An API that publishes into memory, and a worker's telemetry that reads from there."""

    def __init__(self, tracing):
        self.tracing = tracing
        self.log = MemoryPublisher()
        telemetry = Telemetry()
        publisher = InstrumentedPublisher(self.log, telemetry, tracing)
        publisher.start()
        self.api = Api(publisher=publisher, telemetry=telemetry, tracing=tracing)  # type: ignore[arg-type]

    def write(self, **headers):
        self.api.send("POST", "/todos", b'{"title": "a"}', **headers)

    def headers(self):
        """The headers of the one record that was published."""
        (record,) = self.log.records
        return dict(record.headers)

    def apply(self):
        messages = [
            Message(0, offset, record.key, record.value, record.headers)
            for offset, record in enumerate(self.log.records)
        ]
        commands = [(message.offset, decode(message.value)) for message in messages]
        batch = PartitionBatch(0, Progress(0, 0), Progress(len(messages), 0), commands)
        worker = WorkerTelemetry(lambda _lags, _newest: None, self.tracing)
        worker.applied({0: messages}, [batch], Applied(len(messages), 0, 0), 0.25)


@pytest.fixture
def exported():
    return InMemorySpanExporter()


@pytest.fixture
def traced(exported):
    tracing = OtelTracing("todo-test", lambda: SimpleSpanProcessor(exported))
    tracing.start()
    yield Rig(tracing)
    tracing.stop(1)


@pytest.fixture
def plain():
    return Rig(NoTracing())


def test_without_opentelemetry_the_record_carries_what_the_request_brought(plain):
    plain.write(traceparent=TRACEPARENT, tracestate="vendor=1", x_request_id="r1")
    assert plain.headers() == {
        "request-id": b"r1",
        "traceparent": TRACEPARENT.encode(),
        "tracestate": b"vendor=1",
    }


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        TRACEPARENT.upper(),
        TRACEPARENT + "\u00e9",
    ],
)
def test_a_trace_context_that_is_not_well_formed_is_left_out(plain, traceparent):
    plain.write(traceparent=traceparent, tracestate="vendor=1", x_request_id="r1")
    assert plain.headers() == {"request-id": b"r1"}


def test_a_request_leaves_nothing_behind_for_the_next(plain):
    plain.write(traceparent=TRACEPARENT)
    assert current.get() == ()
    plain.log.records.clear()
    plain.write()
    assert set(plain.headers()) == {"request-id"}


def test_a_write_is_one_trace_from_the_request_to_its_application(traced, exported):
    traced.write(traceparent=TRACEPARENT, x_request_id="r1")
    traced.apply()
    spans = {span.name: span for span in exported.get_finished_spans()}
    assert set(spans) == {"POST /todos", "publish", "apply", "apply batch"}
    request, publish, apply, batch = (
        spans[name] for name in ("POST /todos", "publish", "apply", "apply batch")
    )
    assert {format(span.context.trace_id, "032x") for span in (request, publish, apply)} == {TRACE_ID}
    assert format(request.parent.span_id, "016x") == SPAN_ID
    assert publish.parent.span_id == request.context.span_id
    assert apply.parent.span_id == publish.context.span_id
    assert [link.context.span_id for link in batch.links] == [publish.context.span_id]
    assert [link.context.span_id for link in apply.links] == [batch.context.span_id]
    assert request.attributes["http.route"] == "/todos"
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["request_id"] == apply.attributes["request_id"] == "r1"
    assert batch.end_time - batch.start_time == pytest.approx(0.25e9, abs=0.05e9)
    assert request.resource.attributes["service.name"] == "todo-test"


def test_a_write_that_fails_is_an_error_in_the_trace(traced, exported):
    traced.log.failure = LogUnavailable("away")
    traced.write()
    assert {span.name: span.status.is_ok for span in exported.get_finished_spans()} == {
        "publish": False,
        "POST /todos": False,
    }


def test_a_request_that_is_not_understood_has_a_span_without_a_route(traced, exported):
    traced.api.get("/nowhere")
    (span,) = exported.get_finished_spans()
    assert (span.name, span.attributes["http.route"], span.status.is_ok) == ("GET", "", True)


def test_what_nobody_samples_makes_no_spans_in_the_worker(traced, exported):
    traced.write(traceparent=TRACEPARENT[:-1] + "0")
    traced.apply()
    assert exported.get_finished_spans() == ()
    assert traced.headers()["traceparent"].decode().startswith(f"00-{TRACE_ID}-")


def test_a_large_batch_makes_a_bounded_number_of_spans(traced, exported):
    for _ in range(150):
        traced.write()
    exported.clear()
    traced.apply()
    names = [span.name for span in exported.get_finished_spans()]
    assert (names.count("apply"), names.count("apply batch")) == (100, 1)


def test_strangers_headers_get_into_no_log_line():
    headers = (("request-id", b"a\nb"), ("traceparent", b"\xff\xfe"), ("request-id", b"x" * 129))
    assert origin(headers) == {}
    assert not is_sampled(headers)
    assert origin((("request-id", b"r1"), ("traceparent", TRACEPARENT.encode()))) == {
        "request_id": "r1",
        "trace_id": TRACE_ID,
    }
    assert trace_headers(TRACEPARENT, "with\nbreak") == (("traceparent", TRACEPARENT.encode()),)


def test_each_applied_command_is_a_debug_line_and_no_line_above(plain, caplog):
    plain.write(x_request_id="r1")
    with caplog.at_level(logging.INFO):
        plain.apply()
    assert not caplog.records
    with caplog.at_level(logging.DEBUG):
        plain.apply()
    assert [record.request_id for record in caplog.records if hasattr(record, "request_id")] == ["r1"]


def test_without_an_endpoint_opentelemetry_is_not_even_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "todo_api.core.otel", None)
    assert isinstance(make_tracing("todo-api", None), NoTracing)
    with pytest.raises(ImportError):
        make_tracing("todo-api", "http://collector.example:4318")


class Collector(BaseHTTPRequestHandler):
    """An OpenTelemetry collector, as far as it takes what is sent to it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.received.append(  # type: ignore[attr-defined]
            (self.path, ExportTraceServiceRequest.FromString(body))
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments): ...


def test_spans_reach_a_collector_before_the_process_has_ended():
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.received = []  # type: ignore[attr-defined]
        serving = threading.Thread(target=collector.serve_forever)
        serving.start()
        tracing = make_tracing("todo-test", f"http://127.0.0.1:{collector.server_port}/")
        tracing.start()
        tracing.begin(SpanKind.SERVER, ()).end("GET /todos", {"http.route": "/todos"})
        tracing.stop(5)
        collector.shutdown()
        serving.join()
    ((path, request),) = collector.received  # type: ignore[attr-defined]
    assert path == "/v1/traces"
    ((span,),) = [scope.spans for resource in request.resource_spans for scope in resource.scope_spans]
    assert span.name == "GET /todos"


def test_a_collector_that_does_not_answer_holds_up_no_process_that_stops():
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.received = []  # type: ignore[attr-defined]
        tracing = make_tracing("todo-test", f"http://127.0.0.1:{collector.server_port}/")
        tracing.start()
        tracing.begin(SpanKind.SERVER, ()).end("GET /todos", {})
        began = time.monotonic()
        tracing.stop(0.1)
        # An export waits for 5 s.
        assert time.monotonic() - began < 4.0
        (stopping,) = [thread for thread in threading.enumerate() if thread.name == "spans-stopping"]
        collector.handle_request()
        stopping.join(10.0)
    assert len(collector.received) == 1  # type: ignore[attr-defined]
