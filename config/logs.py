"""Logs of every process: a JSON object a line on stdout, or plain lines for a terminal."""

import json
import logging
import logging.config
import re
import time
from datetime import UTC, datetime
from typing import Any, Final

# What a LogRecord always has; everything else came in through ``extra``.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# APPSEC: we log no secrets, but drivers quote URLs and headers in their errors.
_SECRETS: Final = (
    (re.compile(r"(?<=://)[^\s/@]*:[^\s/@]*(?=@)"), "***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?"), "***"),
    (re.compile(r"(?i)(?<=password=)[^\s&]+"), "***"),
)


def configure_logging(level: str, log_format: str) -> None:
    """Log to stdout from now on. For processes that gunicorn does not start."""
    logging.config.dictConfig(log_config(level, log_format))


def log_config(level: str, log_format: str) -> dict[str, Any]:
    """Return the configuration for ``logging.config.dictConfig`` (and gunicorn's ``logconfig_dict``).

    ``level`` and ``log_format`` are LOG_LEVEL and LOG_FORMAT.
    """
    formatter = JsonFormatter if log_format == "json" else ConsoleFormatter
    through_root: dict[str, Any] = {"handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "filters": {"kafka seldom": {"()": KafkaSeldom}},
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "formatter": "lines",
                "filters": ["kafka seldom"],
                "stream": "ext://sys.stdout",
            },
        },
        "root": {"level": level.upper(), "handlers": ["stdout"]},
        # gunicorn's own handlers would say everything twice, in another form. Kafka's client tells of each broken
        # connection several times.
        "loggers": {
            "gunicorn.error": through_root | {"level": level.upper()},
            "gunicorn.access": through_root | {"level": level.upper()},
            "kafka": {"level": "WARNING"},
        },
    }


class KafkaSeldom(logging.Filter):
    """Lets one record of each of kafka-python's loggers through in 10 s: without brokers they write ten a second."""

    def __init__(self, interval_s: float = 10.0) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "kafka" and not record.name.startswith("kafka."):
            return True
        now = time.monotonic()
        if now < self._next.get(record.name, 0.0):
            return False
        self._next[record.name] = now + self._interval_s
        return True


class JsonFormatter(logging.Formatter):
    """``ts``, ``level``, ``logger``, ``pid``, ``message``, the ``extra`` fields, ``exception`` with the traceback.

    ``event``, one of the extra fields, names what happened in a text that does not change (``worker.start``).
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ASCII only: no terminal is confused by what somebody put into a header.
        return _without_secrets(json.dumps(line, default=str))


class ConsoleFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        first, newline, traceback = super().format(record).partition("\n")
        fields = "".join(f" {name}={value!r}" for name, value in _extra(record).items())
        return _without_secrets(first + fields + newline + traceback)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _without_secrets(line: str) -> str:
    for pattern, stars in _SECRETS:
        line = pattern.sub(stars, line)
    return line
