"""Failures cut by what the caller does next. The docstring of a class is what it means.

Adapters translate their driver's errors into these once, keeping the cause (``raise ... from ex``);
no psycopg, redis or kafka name appears above its adapter.
"""


class TodoError(Exception):
    """The root of everything this project raises on purpose."""


class Unavailable(TodoError):
    """A server we need did not answer in time. Nothing is wrong with the request: try again after ``retry_after_s``.

    The message is for our own log and never reaches a client.
    """

    retry_after_s: int = 1


class LogUnavailable(Unavailable):
    """The command log did not acknowledge in time. The outcome is unknown: the record may still be written."""


class StoreUnavailable(Unavailable):
    """PostgreSQL is away, too slow, full, or refused the transaction for a passing reason."""


class CacheUnavailable(Unavailable):
    """Redis is away or too slow. Callers treat it as a miss."""


class KeysUnavailable(Unavailable):
    """The keys that verify tokens could not be fetched."""


class NotYetApplied(TodoError):
    """A command the reader wants to see the effect of is not applied. It waits in the log: ask again soon."""

    # When the worker keeps up, a command is applied well within this time.
    retry_after_s: int = 1


class RecordTooLarge(TodoError):
    """The log refuses a record of this size; sending it again cannot help."""


class InvalidCommand(TodoError):
    """These bytes are not a command this version can apply, now or ever. The message says why; dead-letter them."""


class FenceLost(TodoError):
    """Another worker has moved this partition on. Roll back, read ``applied`` again, seek."""
