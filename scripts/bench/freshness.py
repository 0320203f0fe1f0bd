"""How soon writes are seen by readers, and what they cost them."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from config.settings import Settings, load_settings
from scripts.bench.latencies import Latencies
from scripts.bench.load import Plan
from scripts.bench.measure import servers
from scripts.bench.product import Api, start_product
from scripts.bench.reads_under_writes import Round, measure_round
from scripts.bench.running_api import choose_generator
from scripts.bench.tables import Table
from scripts.bench.visibility import Visibility, measure_visibility
from scripts.stack.server import free_port
from scripts.tokens import sign_token

TODOS: Final = 10_000
CONNECTIONS: Final = 64
_TARGET: Final = "/todos?limit=100"


class Bench:
    """The product, with API instances of one process each (``watched``, by port) and one of all processes to load."""

    def __init__(self, settings: Settings, watched: Sequence[int], loaded: int) -> None:
        self._settings = settings
        self.watched = watched
        self._url = f"http://127.0.0.1:{loaded}{_TARGET}"

    def visibility(self, seconds: int) -> list[Visibility]:
        """See ``measure_visibility``."""
        token = sign_token(self._settings, "bench", timedelta(hours=1))
        return measure_visibility(self.watched, token, seconds)

    def rounds(self, count: int, seconds: int) -> Iterator[Round]:
        """Yield one round after another; see ``measure_round``."""
        plan = Plan(url=self._url, duration_s=seconds, connections=CONNECTIONS)
        generator = choose_generator("auto", plan)
        generator.load(plan)
        for _ in range(count):
            yield measure_round(self._settings, generator, plan)


@contextmanager
def bench(processes: int, *, kafka: bool, todos: int = TODOS) -> Iterator[Bench]:
    """Start the product over ``todos`` todos; stop it in the end. Raises StackError when something does not start."""
    with servers() as started:
        environment = start_product(started, todos=todos, kafka=kafka)
        watched = [Api(free_port(), environment, 1) for _ in range(processes)]
        loaded = Api(free_port(), environment, processes)
        for api in [*watched, loaded]:
            started.start(api)
        yield Bench(load_settings("api", environment), [api.port for api in watched], loaded.port)


def visibility_table(lists: Sequence[Visibility]) -> Table:
    rows = []
    for each in lists:
        latencies = Latencies()
        for seconds in each.seconds:
            latencies.add(seconds)
        name = "all" if each.limit is None else f"limit={each.limit}"
        figures = [latencies.percentile(50), latencies.percentile(99), latencies.max_s]
        rows.append([name, f"{len(latencies):,}", *[f"{figure * 1000:,.0f} ms" for figure in figures]])
    return Table(("GET /todos", "writes", "p50", "p99", "slowest"), rows)


def reads_table(rounds: Sequence[Round]) -> Table:
    def spread(figure: Callable[[Round], float], form: str) -> str:
        values = sorted(map(figure, rounds))
        return f"{statistics.median(values):{form}} ({values[0]:{form}}-{values[-1]:{form}})"

    row = [
        "limit=100",
        spread(lambda each: each.applied_per_s, ",.0f"),
        spread(lambda each: each.idle_per_s, ",.0f"),
        spread(lambda each: each.busy_per_s, ",.0f"),
        spread(lambda each: each.share, ".0%"),
    ]
    return Table(("GET /todos", "applied/s", "requests/s, no writes", "requests/s, writes", "share"), [row])
