"""Nothing accepted is lost, doubled or reordered, whatever fails: the rows of docs/reliability.md.

``make faults`` runs them all, ``make faults ROW=4`` one; every test run has a few of them, short.
"""

import pytest

from tests.faults.rows import ROWS
from tests.faults.trial import run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("fault_row")
    cases = []
    # One kind after the other, so that a fleet serves many rows.
    for kind in ("kafka", "streams"):
        for row in ROWS:
            is_chosen = (
                kind in row.short if chosen is None else chosen == "all" or row.number in chosen.split(",")
            )
            if is_chosen and kind in row.kinds:
                marks = [pytest.mark.kafka] if kind == "kafka" else []
                cases.append(pytest.param(row, kind, id=f"row {row.number}, {row.name}, {kind}", marks=marks))
    if not cases:
        raise pytest.UsageError(f"there is no row {chosen}")
    metafunc.parametrize(("row", "kind"), cases)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_nothing_accepted_is_lost_or_changed(row, kind, fleets, pace, results, request):
    for _ in range(request.config.getoption("fault_rounds")):
        result = run(row, fleets.get(kind, proxied=row.proxied), pace)
        results.append(result)
        assert not result.faults, "\n".join(line for lines in result.faults.values() for line in lines)
        assert not result.broken, "\n".join(result.broken)
