"""The ledger of the fault suite finds what it is there to find."""

import pytest

from scripts.stack.server import free_port, wait_until
from tests.support.http_client import Client
from tests.support.ledger import FORBIDDEN, Ledger, Write, title_of
from tests.support.load import Load
from tests.support.observer import Observer, visible_after_s

TAG = "load:ann:0"
ACKED, REFUSED, UNKNOWN = 202, 422, 503


def ledger_of(*writes):
    """A ledger of writes to one todo, each as (kind, status), in order."""
    ledger = Ledger("load")
    for number, (kind, status) in enumerate(writes):
        ledger.note("ann", Write(kind, TAG, number, float(number), number + 0.5, status))
    return ledger


def row(number=0, *, version=1, **other):
    return {
        "title": title_of(TAG, number),
        "description": TAG,
        "user_id": "ann",
        "version": version,
    } | other


CREATED, UPDATED, DELETED = ("create", ACKED), ("update", ACKED), ("delete", ACKED)
MAYBE_CREATED, MAYBE_UPDATED, MAYBE_DELETED = ("create", UNKNOWN), ("update", 0), ("delete", UNKNOWN)


@pytest.mark.parametrize(
    ("writes", "rows"),
    [
        ([CREATED], [row()]),
        ([CREATED, UPDATED], [row(1, version=2)]),
        ([CREATED, UPDATED, DELETED], []),
        ([CREATED, ("update", REFUSED), UPDATED], [row(2, version=2)]),
        ([MAYBE_CREATED], []),
        ([MAYBE_CREATED], [row()]),
        ([CREATED, MAYBE_UPDATED], [row()]),
        ([CREATED, MAYBE_UPDATED], [row(1, version=2)]),
        ([CREATED, MAYBE_UPDATED, UPDATED], [row(2, version=2)]),
        ([CREATED, MAYBE_UPDATED, UPDATED], [row(2, version=3)]),
        ([CREATED, MAYBE_DELETED], []),
        ([CREATED, MAYBE_DELETED], [row()]),
    ],
)
def test_what_may_be_is_no_fault(writes, rows):
    assert ledger_of(*writes).faults(rows) == {}


@pytest.mark.parametrize(
    ("fault", "writes", "rows"),
    [
        ("lost", [CREATED], []),
        ("lost", [CREATED, MAYBE_UPDATED], []),
        ("duplicate", [CREATED], [row(), row()]),
        ("duplicate", [CREATED, UPDATED], [row(1, version=3)]),
        ("duplicate", [MAYBE_CREATED], [row(version=2)]),
        ("resurrected", [CREATED, DELETED], [row()]),
        ("misordered", [CREATED, UPDATED], [row(version=2)]),
        ("late-unknown", [CREATED, MAYBE_UPDATED, UPDATED], [row(1, version=3)]),
        ("corrupt", [CREATED], [row(7)]),
        ("corrupt", [CREATED], [row(title="something else")]),
        ("corrupt", [CREATED], [row(user_id="bob")]),
        ("corrupt", [CREATED], [row(), row(description="load:ann:9")]),
        ("corrupt", [CREATED, ("update", REFUSED)], [row(1, version=2)]),
        ("refused-applied", [CREATED], [row(title=FORBIDDEN)]),
        ("refused-applied", [CREATED], [row(), row(description=FORBIDDEN)]),
    ],
)
def test_every_kind_of_fault_is_found_and_named(fault, writes, rows):
    assert fault in ledger_of(*writes).faults(rows)


def test_rows_of_another_load_are_left_alone():
    other = row(description="other:ann:0", title="other:ann:0#3")
    assert ledger_of(CREATED).faults([row(), other]) == {}


def test_an_observer_notes_when_it_sees_a_write_and_whatever_goes_back():
    def shown(number, at):
        return {"id": TAG, "title": title_of(TAG, number), "created_at": at}

    observer = Observer(Client("127.0.0.1", 0, "s" * 32), "load")
    observer.look_at([shown(0, "1")], 3.0)
    observer.look_at([shown(2, "1")], 5.0)
    # The first write was answered at 0.5, the second at 1.5, the third at 2.5.
    assert visible_after_s(ledger_of(CREATED, UPDATED, UPDATED), [observer]) == [2.5, 2.5, 3.5]
    assert observer.backwards == []

    observer.look_at([shown(1, "1")], 6.0)
    assert len(observer.backwards) == 1
    observer.look_at([], 7.0)
    observer.look_at([shown(2, "1")], 8.0)
    assert len(observer.backwards) == 2


def test_the_book_says_why_an_answer_is_unknown():
    port = free_port()
    load = Load("away", lambda user: Client("127.0.0.1", port, "s" * 32, user), writes_per_s=100.0, readers=0)
    with load.running():
        wait_until(load.ledger.unknown, 10, "a write without an answer")
    assert "ConnectionRefusedError" in load.ledger.unknown()[0].why
