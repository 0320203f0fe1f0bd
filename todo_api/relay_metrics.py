"""What the relay exports on RELAY_METRICS_PORT. docs/telemetry.md has a table of the same."""

from typing import Final

from todo_api.core.metrics import Kind, Metric

# Values of the labels of RECORDS and REFUSALS.
OUTCOMES: Final = ("acknowledged", "unavailable", "too_large")
REASONS: Final = ("too_late", "other_log")

BATCH_RECORDS: Final = Metric(
    Kind.HISTOGRAM, "todo_relay_batch_records", "Records appended together",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)  # fmt: skip
BATCH_SECONDS: Final = Metric(
    Kind.HISTOGRAM, "todo_relay_batch_duration_seconds", "Time until the log acknowledged or failed a batch",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)  # fmt: skip
RECORDS: Final = Metric(
    Kind.COUNTER, "todo_relay_records_total", "Records, by what became of them", ("outcome",)
)
REFUSALS: Final = Metric(
    Kind.COUNTER,
    "todo_relay_refusals_total",
    "Requests that were answered without asking the log",
    ("reason",),
)
CONNECTIONS: Final = Metric(
    Kind.GAUGE, "todo_relay_connections", "Connections from API processes and their threads"
)
BUILD: Final = Metric(Kind.GAUGE, "todo_relay_build_info", "1, for this version", ("version", "python"))

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
