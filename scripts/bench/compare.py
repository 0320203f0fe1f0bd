"""How fast pages are answered, beside other servers that answer the same bytes: nginx, and two of everyday use."""

import gzip
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from scripts.bench.load import Load, Plan, Refused, check_load
from scripts.bench.measure import Servers, cpu_s, servers
from scripts.bench.nginx import Nginx, find_nginx, nginx_version
from scripts.bench.peers import DATABASE, PEERS, Peer, store_pages
from scripts.bench.product import Api, get, start_product, worker_class
from scripts.bench.wrk import Wrk
from scripts.stack.server import StackError, free_port

TODOS: Final = 10_000
CONNECTIONS: Final = 64
# Enough that every process has met the page and nginx has opened the file.
_WARM_UP_S: Final = 1

BASELINE: Final = "nginx, file"
API: Final = "this API"
_KEPT_OPEN: Final = "nginx, file kept open"
_RETURN: Final = "nginx, return 200"


@dataclass(frozen=True, slots=True)
class Case:
    """One page asked for in one way; nginx serves its plain bytes as the file ``file``."""

    name: str
    target: str
    limit: int | None
    file: str
    headers: Mapping[str, str] = field(default_factory=dict)


CASES: Final = (
    Case("limit=100, plain", "/todos?limit=100", 100, "100.json"),
    Case("limit=100, gzip", "/todos?limit=100", 100, "100.json", {"Accept-Encoding": "gzip"}),
    Case(f"all {TODOS:,}, plain", "/todos", None, "all.json"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run against one server. ``cpu_s`` is what that server's own processes took meanwhile."""

    load: Load
    cpu_s: float

    @property
    def requests_per_cpu_s(self) -> float:
        return self.load.requests / self.cpu_s


Figure = Callable[[Sample], float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of one case: samples by server, the baseline first; those of a round stand at the same place."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def ratios(self, server: str, figure: Figure) -> list[float]:
        """Return each round's figure of ``server`` divided by the baseline's."""
        pairs = zip(self.samples[server], self.samples[BASELINE], strict=True)
        return [figure(one) / figure(baseline) for one, baseline in pairs]

    def median(self, server: str, figure: Figure) -> float:
        return statistics.median(map(figure, self.samples[server]))


def check_bytes(body: bytes, wanted: bytes, what: str) -> None:
    """Raise Refused when a server's answer is not the API's."""
    if body != wanted:
        raise Refused(f"{what}: its answer ({len(body)} bytes) is not the API's ({len(wanted)} bytes).")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running server. ``target`` returns what to ask it for in a case, or None when it has no part in it."""

    name: str
    port: int
    process: psutil.Process
    target: Callable[[Case], str | None]


class Bench:
    """Running servers, ready for one round after another.

    ``versions`` names what runs, ``left_out`` says which could not be had and why.
    """

    def __init__(self, contestants: Sequence[Contestant], versions: str, left_out: Sequence[str]) -> None:
        self.versions = versions
        self.left_out = left_out
        self._contestants = contestants
        self._wrk = Wrk()

    def warm_up(self) -> None:
        """Load every page of every server for a second, unmeasured."""
        for case in CASES:
            for one in self._contestants:
                if target := one.target(case):
                    self._load(one, case, target, _WARM_UP_S)

    def round(self, comparison: Comparison, seconds: int) -> None:
        """Load each server for ``seconds`` in turn and add its sample.

        Raises Refused when the figures would mean nothing.
        """
        case = comparison.case
        wanted = _body(next(one.port for one in self._contestants if one.name == API), case.target)
        for one in self._contestants:
            target = one.target(case)
            if target is None:
                continue
            what = f"{case.name}, {one.name}"
            before = cpu_s(one.process)
            load = self._load(one, case, target, seconds)
            spent_s = cpu_s(one.process) - before
            check_load(load, what)
            if spent_s <= 0:
                raise Refused(f"{what}: no CPU time was counted; measure for longer.")
            check_bytes(_body(one.port, target, _headers(one, case)), wanted, what)
            comparison.samples.setdefault(one.name, []).append(Sample(load, spent_s))

    def _load(self, one: Contestant, case: Case, target: str, seconds: int) -> Load:
        url = f"http://127.0.0.1:{one.port}{target}"
        return self._wrk.load(
            Plan(url=url, duration_s=seconds, connections=CONNECTIONS, headers=_headers(one, case))
        )


def _headers(one: Contestant, case: Case) -> Mapping[str, str]:
    # Others answer with plain bytes: the question is what a prepared compressed answer saves.
    return case.headers if one.name == API else {}


@contextmanager
def bench(processes: int, peers_folder: Path | None) -> Iterator[Bench]:
    """Start the product over 10,000 todos, nginx, and the peers when there is a folder to install them in.

    Each server has ``processes`` worker processes. Raises StackError when nginx or wrk is not installed or something
    of ours does not start; a peer that cannot be had is left out.
    """
    nginx_program, wrk = find_nginx(), Wrk()
    with servers() as started:
        settings = start_product(started, todos=TODOS)
        api = Api(free_port(), settings, processes)
        api_process = psutil.Process(started.start(api))
        bodies = {case.file: _body(api.port, case.target) for case in CASES}
        # In a configuration file, megabytes have no place.
        returned = {CASES[0].file: bodies[CASES[0].file]}
        nginx, keeping = (
            Nginx(
                nginx_program,
                started.folder / name,
                free_port(),
                processes,
                bodies,
                returned,
                keeps_open=keeps_open,
            )
            for name, keeps_open in (("nginx", False), ("nginx-kept-open", True))
        )
        nginx_process = psutil.Process(started.start(nginx))
        keeping_process = psutil.Process(started.start(keeping))
        contestants = [
            Contestant(BASELINE, nginx.port, nginx_process, lambda case: f"/{case.file}"),
            Contestant(_KEPT_OPEN, keeping.port, keeping_process, lambda case: f"/{case.file}"),
            Contestant(
                _RETURN,
                nginx.port,
                nginx_process,
                lambda case: f"/return/{case.file}" if case == CASES[0] else None,
            ),
            Contestant(API, api.port, api_process, lambda case: case.target),
        ]
        versions = [
            f"Python {platform.python_version()}",
            f"gunicorn {version('gunicorn')} ({_worker_name(worker_class(started.folder / f'{api.name}.out'))})",
            f"nginx {nginx_version(nginx_program)}",
            wrk.version,
        ]
        left_out: list[str] = []
        if peers_folder is not None:
            redis_url = settings["REDIS_URL"].removesuffix("/0") + f"/{DATABASE}"
            store_pages(redis_url, {case.limit: bodies[case.file] for case in CASES})
            for peer in PEERS:
                try:
                    contestants.append(_start_peer(peer, started, peers_folder, redis_url, processes))
                    versions.append(peer.version)
                except StackError as ex:
                    left_out.append(f"{peer.name}: {ex}")
        yield Bench(contestants, ", ".join(versions), left_out)


def _start_peer(peer: Peer, started: Servers, folder: Path, redis_url: str, processes: int) -> Contestant:
    own = folder / peer.name.lower()
    peer.install(own)
    server = peer.server(own, free_port(), redis_url, processes)
    process = psutil.Process(started.start(server))
    return Contestant(peer.name, server.port, process, lambda case: None if case.headers else case.target)


def _worker_name(worker: str) -> str:
    return f"meinheld {version('meinheld')}" if "meinheld" in worker else worker


def _body(port: int, target: str, headers: Mapping[str, str] | None = None) -> bytes:
    status, body = get(port, target, headers)
    if status != 200:
        raise Refused(f"GET {target} was answered with {status}.")
    try:
        return gzip.decompress(body) if headers else body
    except gzip.BadGzipFile as ex:
        raise Refused(f"GET {target} was not answered with gzip.") from ex
