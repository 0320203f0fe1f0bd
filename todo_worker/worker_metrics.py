"""What the worker exports on WORKER_METRICS_PORT. docs/telemetry.md has a table of the same."""

from typing import Final

from todo_api.core.metrics import Kind, Metric

# Values of the label of COMMANDS, in the order of ``applier.Applied``.
RESULTS: Final = ("changed", "rejected", "duplicate")
COMMANDS: Final = Metric(
    Kind.COUNTER, "todo_worker_commands_total", "Commands that are done with, by what they did", ("result",)
)
BATCH_COMMANDS: Final = Metric(
    Kind.HISTOGRAM, "todo_worker_batch_commands", "Commands in one transaction",
    buckets=(1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000),
)  # fmt: skip
BATCH_SECONDS: Final = Metric(
    Kind.HISTOGRAM, "todo_worker_batch_duration_seconds", "Time of one transaction",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0),
)  # fmt: skip
COMMAND_AGE: Final = Metric(
    Kind.HISTOGRAM, "todo_worker_command_age_seconds", "From being accepted by the API to being applied",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0),
)  # fmt: skip
LAG: Final = Metric(
    Kind.GAUGE, "todo_worker_lag_commands", "Commands in the log that are not applied yet", ("partition",)
)
PARTITIONS: Final = Metric(
    Kind.GAUGE,
    "todo_worker_partitions",
    "Partitions of this worker: read, or stopped with an alarm",
    ("state",),
)
GENERATION: Final = Metric(
    Kind.GAUGE, "todo_worker_generation", "Commands applied in this epoch, by all workers"
)
DEAD_LETTERS: Final = Metric(
    Kind.COUNTER, "todo_worker_dead_letters_total", "Messages that can never be applied"
)
INTERRUPTIONS: Final = Metric(
    Kind.COUNTER, "todo_worker_interruptions_total",
    "Batches that had to wait: a server was away, or another worker owned the partition", ("reason",),
)  # fmt: skip
LAST_STEP: Final = Metric(
    Kind.GAUGE, "todo_worker_last_step_timestamp_seconds", "When the loop last came to its end"
)
BUILD: Final = Metric(Kind.GAUGE, "todo_worker_build_info", "1, for this version", ("version", "python"))

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
