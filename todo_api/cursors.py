"""Cursors: where a page ends, signed, so that only places we handed out reach the cache and the database."""

import base64
import hashlib
import hmac
import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from todo_api.core.errors import TodoError
from todo_api.core.store import Cursor

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PLACE: Final = struct.Struct(">q16s")
_SIGNATURE_BYTES: Final = 12
# 36 bytes are exactly 48 characters: no padding and no spare bits, so each cursor has one spelling.
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{48}")


class InvalidCursor(TodoError):
    """This text is not a cursor that one of our processes made."""


class CursorSigner:
    """Makes and reads cursors. Every API process that shares ``key`` reads the cursors of the others."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, cursor: Cursor, filters: str = "") -> str:
        """Return the text of ``cursor`` in the list with these filters: 48 URL-safe characters."""
        packed = _PLACE.pack((cursor.created_at - _EPOCH) // _MICROSECOND, cursor.todo_id.bytes)
        return base64.urlsafe_b64encode(packed + self._signature(packed, filters)).decode()

    def decode(self, text: str, filters: str = "") -> Cursor:
        """Return the cursor in ``text``. Raises InvalidCursor for anything we did not make for these filters."""
        if not _SHAPE.fullmatch(text):
            raise InvalidCursor("shape")
        raw = base64.urlsafe_b64decode(text)
        packed, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        # APPSEC: without this a client could make up cursors and fill the cache with pages of its own.
        if not hmac.compare_digest(signature, self._signature(packed, filters)):
            raise InvalidCursor("signature")
        micros, todo_id = _PLACE.unpack(packed)
        return Cursor(_EPOCH + micros * _MICROSECOND, UUID(bytes=todo_id))

    def _signature(self, packed: bytes, filters: str) -> bytes:
        # What is packed has a fixed length: no other pair makes the same bytes.
        return hmac.digest(self._key, packed + filters.encode(), hashlib.sha256)[:_SIGNATURE_BYTES]
