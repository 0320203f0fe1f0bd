"""Bytes that anybody may have written, as text that no terminal obeys."""

from collections.abc import Iterator
from typing import Final

_ROW_BYTES: Final = 16


def safe(value: bytes | str | None) -> str:
    """Return ``value`` on one line: UTF-8 as it reads, everything else, and every control character, escaped."""
    if value is None:
        return "(null)"
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    # APPSEC: escape sequences, bidirectional overrides and line ends are not printable for Python.
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_text(value: bytes) -> bool:
    """Say whether ``value`` is UTF-8 that can be shown as it is."""
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def hex_dump(value: bytes) -> Iterator[str]:
    """Yield lines of offset, 16 bytes in hexadecimal, and the ASCII among them."""
    for start in range(0, len(value), _ROW_BYTES):
        row = value[start : start + _ROW_BYTES]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<47}  {ascii_text}"
