"""Arrays of UUIDs and of integers in PostgreSQL's binary form, made in one pass.

PERF: psycopg makes a list element by element, in 0.3 us each; these take 0.1. A command brings about ten elements.
"""

import struct
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any, ClassVar, Final
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format

# Number of dimensions, whether there are NULLs, type of the elements; then for the one dimension its length and lower
# bound. Each element has its length in front.
_EMPTY: Final = struct.Struct(">iii")
_HEADER: Final = struct.Struct(">iiiii")
_UUID_LENGTH: Final = struct.pack(">i", 16)


class Uuids(list[UUID]):
    """A ``uuid[]`` without NULLs."""


class BigInts(list[int]):
    """A ``bigint[]`` without NULLs."""


class Ints(list[int]):
    """An ``int[]`` without NULLs."""


def register(connection: psycopg.Connection[Any]) -> None:
    """Let these be parameters of the connection's statements."""
    for kind, dumper in ((Uuids, _UuidsDumper), (BigInts, _BigIntsDumper), (Ints, _IntsDumper)):
        connection.adapters.register_dumper(kind, dumper)


class _ArrayDumper(Dumper):
    format = Format.BINARY
    element: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.oid = types[cls.element].array_oid

    def dump(self, obj: Any) -> bytes:
        element = types[self.element].oid
        if not obj:
            return _EMPTY.pack(0, 0, element)
        return _HEADER.pack(1, 0, element, len(obj), 1) + self.elements(obj)

    def elements(self, values: list[Any]) -> bytes:
        raise NotImplementedError


class _UuidsDumper(_ArrayDumper):
    element = "uuid"

    def elements(self, values: list[UUID]) -> bytes:
        return _UUID_LENGTH + _UUID_LENGTH.join([value.bytes for value in values])


class _BigIntsDumper(_ArrayDumper):
    element = "int8"

    def elements(self, values: list[int]) -> bytes:
        return struct.pack(f">{'iq' * len(values)}", *_with_length(8, values))


class _IntsDumper(_ArrayDumper):
    element = "int4"

    def elements(self, values: list[int]) -> bytes:
        return struct.pack(f">{'ii' * len(values)}", *_with_length(4, values))


def _with_length(length: int, values: list[int]) -> Iterable[int]:
    return chain.from_iterable(zip(repeat(length), values))
