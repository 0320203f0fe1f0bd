"""Dead letters: messages that can never be applied, kept with their original bytes."""

from datetime import UTC, datetime
from typing import Final

from todo_api.core.command_log import Headers, Message, Publisher, Record
from todo_api.core.errors import LogUnavailable, RecordTooLarge

_REASON_MAX_CHARS: Final = 500
# The headers of ours, in their order, behind those of the message itself. Text in UTF-8.
HEADER_NAMES: Final = (
    "todo-log",
    "todo-partition",
    "todo-offset",
    "todo-reason",
    "todo-time",
    "todo-key-is-null",
    "todo-value-is-null",
)


class DeadLetters:
    """Appends to the dead-letter log (the topic of the commands with ``.dlq``)."""

    def __init__(self, publisher: Publisher, *, log: str) -> None:
        self._publisher = publisher
        self._log = log

    def write(self, message: Message, reason: str) -> None:
        """Append ``message`` and wait for the acknowledgement; bounded by the publisher.

        Value and headers are the original ones; headers of ours name where it came from and why. A message whose
        batch is applied only later may be written twice, never not at all. Raises LogUnavailable.
        """
        values = (
            self._log,
            str(message.partition),
            str(message.offset),
            reason[:_REASON_MAX_CHARS],
            datetime.now(UTC).isoformat(timespec="seconds"),
            str(int(message.key is None)),
            str(int(message.value is None)),
        )
        ours = [
            (name, value.encode(errors="replace")) for name, value in zip(HEADER_NAMES, values, strict=True)
        ]
        headers: Headers = (*message.headers, *ours)
        try:
            self._publisher.publish(Record(message.key or b"", message.value or b"", headers))
        except RecordTooLarge as ex:
            # Its own topic took it, so the dead-letter topic is configured smaller: a person must see to it.
            raise LogUnavailable(
                f"dead-letter log refuses a message of {len(message.value or b'')} bytes"
            ) from ex
