"""Nothing accepted is lost, doubled or reordered, whatever fails: the rows of docs/reliability.md.

``make faults`` runs them all, ``make faults ROW=4`` one; every test run has a few of them, short.
"""

from itertools import product

import pytest

from tests.faults.rows import ROWS
from tests.faults.trial import EVERY_LOG, run

_ROUND_MAX_S = 900


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("fault_row")
    cases = []
    time_limit = pytest.mark.timeout(_ROUND_MAX_S * metafunc.config.getoption("fault_rounds"))
    # One kind of fleet after the other, so that each serves many rows.
    for log, proxied in product(EVERY_LOG, (False, True)):
        for row in ROWS:
            is_chosen = (
                log in row.short if chosen is None else chosen == "all" or row.number in chosen.split(",")
            )
            if is_chosen and log in row.logs and proxied == row.proxied:
                marks = [time_limit] if log == "streams" else [time_limit, pytest.mark.kafka]
                cases.append(pytest.param(row, log, id=f"row {row.number}, {row.name}, {log}", marks=marks))
    if not cases:
        raise pytest.UsageError(f"there is no row {chosen}")
    metafunc.parametrize(("row", "log"), cases)


@pytest.mark.faults
def test_nothing_accepted_is_lost_or_changed(row, log, fleets, pace, note, request):
    found, broken = [], []
    for _ in range(request.config.getoption("fault_rounds")):
        result = run(row, fleets.get(log, proxied=row.proxied), pace)
        note(result)
        found += [line for lines in result.faults.values() for line in lines]
        broken += result.broken
    # All rounds are run: one that is bad says less than how many are.
    assert not found, "\n".join(found)
    assert not broken, "\n".join(broken)
