"""Dead letters as text, as a table and as JSON."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.dead_letters.letters import DeadLetter
from scripts.dead_letters.safe_text import hex_dump, is_text, safe

_COLUMNS: Final = ("position", "from", "key", "reason", "time", "bytes", "replayed")


def row(letter: DeadLetter) -> tuple[str, ...]:
    """Return one safe text a column; "from" is partition/offset in the log of the commands."""
    original = letter.original
    return (
        str(letter.position),
        f"{original.partition}/{original.offset}" if original else "?",
        safe(letter.message.key),
        safe(letter.reason),
        letter.time.isoformat() if letter.time else "?",
        str(letter.size_bytes),
        letter.replayed_to or "no",
    )


def members(letter: DeadLetter) -> dict[str, Any]:
    """Return what a list says of the letter, for JSON."""
    original = letter.original
    return {
        "position": letter.position,
        "log": letter.log or None,
        "partition": original.partition if original else None,
        "offset": original.offset if original else None,
        "key": _text(letter.message.key),
        "reason": letter.reason,
        "time": letter.time.isoformat() if letter.time else None,
        "bytes": letter.size_bytes,
        "replayed_to": letter.replayed_to,
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def print_table(letters: Iterable[DeadLetter], console: Console) -> None:
    """Print the letters as a table."""

    table = Table()
    for name in _COLUMNS:
        # The others may take several lines.
        table.add_column(name, no_wrap=name in ("position", "from", "time"))
    for letter in letters:
        # Text, not markup: a key may hold [brackets].
        table.add_row(*map(Text, row(letter)))
    console.print(table)


def full_members(letter: DeadLetter) -> dict[str, Any]:
    """Return all of the letter, for JSON; bytes in hexadecimal."""
    message = letter.message
    return members(letter) | {
        "key_hex": _hex(message.key),
        "value_hex": _hex(message.value),
        "headers_hex": [[name, value.hex()] for name, value in message.headers],
    }


def full_text(letter: DeadLetter) -> Iterator[str]:
    """Yield all of the letter as safe lines; a value that is not plain text in hexadecimal."""
    message = letter.message
    for name, text in zip(_COLUMNS, row(letter), strict=True):
        yield f"{name + ':':<11}{text}"
    for header, content in message.headers:
        yield f"header:    {safe(header)} = {safe(content)}"
    yield "value:"
    if message.value is None or is_text(message.value):
        yield f"  {safe(message.value)}"
    else:
        yield from (f"  {line}" for line in hex_dump(message.value))
