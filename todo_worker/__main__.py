"""The worker process: ``python -m todo_worker``. Builds its objects once and runs until SIGTERM or SIGINT."""

import gc
import logging
import signal
import sys
import threading
from typing import Final

from config.logs import configure_logging
from config.settings import Settings, SettingsError, load_settings
from todo_api.core.cache import PageCache
from todo_api.core.command_log.connect import make_consumer, make_dead_letter_publisher
from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.metrics_server import MetricsServer
from todo_api.core.tracing import Tracing, make_tracing
from todo_worker.applier import Applier
from todo_worker.dead_letters import DeadLetters
from todo_worker.telemetry import WorkerTelemetry
from todo_worker.worker import Worker

log = logging.getLogger("todo_worker")

_DEAD_LETTER_TIMEOUT_S: Final = 10.0
# A batch is bounded by 20 s at most; with these it all ends within the 25 s that a process is given to stop.
_CLOSE_TIMEOUT_S: Final = 2.0
_GC_THRESHOLD: Final = 100_000


def main() -> int:
    """Run the worker. Returns the exit code: 0 after an orderly stop, 2 for bad settings."""
    try:
        settings = load_settings("worker")
    except SettingsError as ex:
        print(ex, file=sys.stderr)
        return 2
    configure_logging(settings.log_level, settings.log_format)
    # PERF: a batch makes tens of thousands of objects that live to its end, none of them in a cycle. With the default
    # thresholds the collector looks through them again and again, for 3.5 of 24 us a command.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        run(settings, stop)
    except SettingsError as ex:
        print(ex, file=sys.stderr)
        return 2
    return 0


def run(settings: Settings, stop: threading.Event) -> None:
    """Build the worker from ``settings``, run it until ``stop`` is set, and take it down in order.

    Raises SettingsError.
    """
    tracing = _tracing(settings)
    cache = PageCache(settings.redis_url, pool_size=2, ttl_s=settings.cache_ttl_sec)
    telemetry = WorkerTelemetry(cache.publish_progress, tracing)
    port = settings.worker_metrics_port
    metrics = None if port is None else _metrics_server(port, telemetry)
    consumer = make_consumer(
        settings.command_log,
        brokers=settings.kafka_brokers,
        topic=settings.kafka_todo_topic,
        # A group is of one topic: two deployments on one cluster must not rebalance each other.
        group=f"{settings.kafka_todo_topic}.worker",
        partitions=settings.kafka_partitions,
        redis_url=settings.redis_url,
        kafka_client=settings.kafka_client,
        security=KafkaSecurity(**settings.kafka_security),
    )
    dead_letter_publisher = make_dead_letter_publisher(
        settings.command_log,
        brokers=settings.kafka_brokers,
        topic=settings.kafka_todo_topic,
        redis_url=settings.redis_url,
        kafka_client=settings.kafka_client,
        security=KafkaSecurity(**settings.kafka_security),
        timeout_s=_DEAD_LETTER_TIMEOUT_S,
    )
    applier = Applier(settings.database_url, log=consumer.log, idempotency_hours=settings.idempotency_hours)
    worker = Worker(
        consumer,
        applier,
        DeadLetters(dead_letter_publisher, log=consumer.log),
        cache.publish,
        telemetry,
        batch_max=settings.worker_batch_max,
        dlq_limit=settings.dlq_limit,
    )
    log.info("worker starts", extra={"event": "worker.start", "settings": settings.shown()})
    try:
        tracing.start()
        dead_letter_publisher.start()
        worker.run(stop)
    finally:
        consumer.close(_CLOSE_TIMEOUT_S)
        dead_letter_publisher.close(_CLOSE_TIMEOUT_S)
        applier.close()
        cache.close()
        tracing.stop(_CLOSE_TIMEOUT_S)
        if metrics is not None:
            metrics.close()
        log.info("worker stopped", extra={"event": "worker.stop"})


def _tracing(settings: Settings) -> Tracing:
    try:
        return make_tracing("todo-worker", settings.otel_exporter_otlp_endpoint)
    except ImportError as ex:
        raise SettingsError(
            "settings:\n  - OTEL_EXPORTER_OTLP_ENDPOINT needs an extra: pip install 'todo-api[otel]'"
        ) from ex


def _metrics_server(port: int, telemetry: WorkerTelemetry) -> MetricsServer:
    try:
        return MetricsServer(port, telemetry.read)
    except OSError as ex:
        raise SettingsError(f"settings:\n  - WORKER_METRICS_PORT {port} cannot be had: {ex.strerror}") from ex


if __name__ == "__main__":
    sys.exit(main())
