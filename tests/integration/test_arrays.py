"""What the worker sends as arrays, read back by PostgreSQL."""

import struct
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from todo_worker.arrays import BigInts, Ints, Uuids, register


@pytest.fixture(scope="module")
def connection(postgres: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        register(connection)
        yield connection


@pytest.mark.parametrize(
    "sent",
    [
        Uuids(),
        Uuids([UUID(int=0), UUID(int=2**128 - 1), *(uuid4() for _ in range(2000))]),
        BigInts(),
        BigInts([0, -1, 2**63 - 1, -(2**63)]),
        Ints(),
        Ints([0, -1, 2**31 - 1, -(2**31)]),
    ],
    ids=lambda sent: f"{type(sent).__name__} {len(sent)}",
)
def test_an_array_arrives_as_it_is_and_as_its_type(
    connection: psycopg.Connection[Any], sent: list[Any]
) -> None:
    expected = {Uuids: "uuid[]", BigInts: "bigint[]", Ints: "integer[]"}[type(sent)]
    found = connection.execute("select %(a)b, pg_typeof(%(a)b)::text", {"a": sent}).fetchone()
    assert found == (list(sent), expected)
    unnested = connection.execute(f"select * from unnest(%(a)b::{expected})", {"a": sent}).fetchall()
    assert unnested == [(element,) for element in sent]


@pytest.mark.parametrize("sent", [BigInts([2**63]), Ints([2**31])])
def test_a_number_that_does_not_fit_is_an_error_and_not_another_number(
    connection: psycopg.Connection[Any], sent: list[int]
) -> None:
    with pytest.raises(struct.error):
        connection.execute("select %(a)b", {"a": sent})
