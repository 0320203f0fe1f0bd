"""Fleets for the rows, and the table at the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet, Log, fleet_of
from tests.faults.report import Run, lines, write
from tests.faults.table import summaries
from tests.faults.trial import Pace, Result
from tests.support.deployment import Servers

RESULTS = pytest.StashKey[list[Result]]()
_BEGAN_AT = pytest.StashKey[datetime]()
_FOLDER = pytest.StashKey[Path]()
_TODOS_MAX = 5_000


class Fleets:
    """Hands out a fleet as asked for: the running one, unless it is another kind or its log is no longer good.

    That is when it is large, or when there is poison in it, which would be poison again where a row reads it again.
    """

    def __init__(self, tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> None:
        self._folders = tmp_path_factory
        self._servers = servers
        self._stack = ExitStack()
        self._fleet: Fleet | None = None

    def get(self, log: Log, *, proxied: bool = False) -> Fleet:
        fleet = self._fleet
        if (
            fleet is None
            or fleet.log != log
            or bool(fleet.networks) != proxied
            or len(fleet.rows()) > _TODOS_MAX
            or fleet.dead_letters() > 0
        ):
            self.close()
            running = fleet_of(self._folders.mktemp(log), self._servers, log, proxied=proxied)
            self._fleet = fleet = self._stack.enter_context(running)
        fleet.mend()
        return fleet

    def close(self) -> None:
        self._fleet = None
        self._stack.close()


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Fleets]:
    fleets = Fleets(tmp_path_factory, servers)
    try:
        yield fleets
    finally:
        fleets.close()


@pytest.fixture
def pace(request: pytest.FixtureRequest) -> Pace:
    return Pace(request.config.getoption("fault_seconds"), request.config.getoption("fault_writes"))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[Result], None]:
    """Keep the result of a round for the table at the end, and in the folder, if one is asked for."""
    config = request.config
    began_at = config.stash.setdefault(_BEGAN_AT, datetime.now(UTC))
    results = config.stash.setdefault(RESULTS, [])

    def keep(result: Result) -> None:
        results.append(result)
        folder, chosen = config.getoption("fault_results"), config.getoption("fault_row")
        if folder is not None and chosen is not None:
            asked = Run(chosen, config.getoption("fault_rounds"), config.getoption("fault_seconds"), began_at)
            config.stash[_FOLDER] = write(folder, asked, results)

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(RESULTS, [])
    if results:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(lines(summaries(results))))
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        terminalreporter.write_line(f"\nfaults.json and faults.md are in {folder}")
