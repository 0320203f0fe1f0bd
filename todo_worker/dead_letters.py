"""Dead letters: messages that can never be applied, kept with their original bytes."""

from typing import Final

from todo_api.core.command_log import Headers, Message, Publisher, Record
from todo_api.core.errors import LogUnavailable, RecordTooLarge

_REASON_MAX_CHARS: Final = 500


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
        headers: Headers = (
            *message.headers,
            ("todo-log", self._log.encode()),
            ("todo-partition", str(message.partition).encode()),
            ("todo-offset", str(message.offset).encode()),
            ("todo-reason", reason[:_REASON_MAX_CHARS].encode(errors="replace")),
            ("todo-key-is-null", b"1" if message.key is None else b"0"),
            ("todo-value-is-null", b"1" if message.value is None else b"0"),
        )
        try:
            self._publisher.publish(Record(message.key or b"", message.value or b"", headers))
        except RecordTooLarge as ex:
            # Its own topic took it, so the dead-letter topic is configured smaller: a person must see to it.
            raise LogUnavailable(
                f"dead-letter log refuses a message of {len(message.value or b'')} bytes"
            ) from ex
