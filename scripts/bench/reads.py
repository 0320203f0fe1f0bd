"""How fast pages are answered, beside nginx answering the same bytes from a file."""

import gzip
import platform
import secrets
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

import psutil
import psycopg

from config.settings import load_settings
from scripts.bench import wrk
from scripts.bench.measure import cpu_s, servers
from scripts.bench.reads_servers import Api, Nginx, Worker, find_nginx, get, nginx_version, worker_class
from scripts.bench.wrk import Load
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import free_port
from scripts.stack.valkey import LocalValkey
from scripts.verbs.seed import insert_seed
from todo_api.core.migrations import migrate

TODOS: Final = 10_000
_FAILURES_MAX: Final = 0.001
# Enough that every API process has met the page and nginx has opened the file.
_WARM_UP_S: Final = 1


class Refused(Exception):
    """What was measured says nothing about speed; the message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One page asked for in one way; ``file`` is the name nginx serves its plain bytes by."""

    name: str
    target: str
    file: str
    headers: Mapping[str, str] = field(default_factory=dict)


CASES: Final = (
    Case("limit=100, plain", "/todos?limit=100", "100.json"),
    Case("limit=100, gzip", "/todos?limit=100", "100.json", {"Accept-Encoding": "gzip"}),
    Case(f"all {TODOS:,}, plain", "/todos", "all.json"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run against one server. ``cpu_s`` is what that server's own processes took meanwhile."""

    load: Load
    cpu_s: float

    @property
    def requests_per_cpu_s(self) -> float:
        return self.load.requests / self.cpu_s


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of one case; the samples of a round stand at the same place in both."""

    case: Case
    nginx: list[Sample]
    ours: list[Sample]

    def ratio(self, figure: Callable[[Sample], float]) -> float:
        """Return the median over the rounds of ours divided by nginx's."""
        return statistics.median(
            figure(ours) / figure(nginx) for nginx, ours in zip(self.nginx, self.ours, strict=True)
        )


def check_load(load: Load, what: str) -> None:
    """Raise Refused when there was no answer, or more than 0.1 % of the requests failed."""
    if load.requests == 0:
        raise Refused(f"{what}: not one request was answered.")
    if load.failures > load.requests * _FAILURES_MAX:
        raise Refused(
            f"{what}: {load.failures} failures in {load.requests} requests, more than {_FAILURES_MAX:.1%}; "
            "how fast errors are answered is not the question."
        )


def check_bytes(ours: bytes, nginx: bytes, what: str) -> None:
    """Raise Refused when the two answers differ."""
    if ours != nginx:
        raise Refused(
            f"{what}: the API's answer ({len(ours)} bytes) is not what nginx serves ({len(nginx)} bytes)."
        )


class Bench:
    """The API and nginx, both warm, ready for one round after another. ``versions`` names what runs."""

    def __init__(self, api: Api, api_pid: int, nginx: Nginx, nginx_pid: int, versions: str) -> None:
        self.versions = versions
        self._api, self._nginx = api, nginx
        self._api_process, self._nginx_process = psutil.Process(api_pid), psutil.Process(nginx_pid)
        self._wrk = wrk.find_wrk()

    def warm_up(self) -> None:
        """Load every page of both servers for a second each, unmeasured."""
        for case in CASES:
            self.pair(case, _WARM_UP_S)

    def pair(self, case: Case, seconds: int) -> tuple[Sample, Sample]:
        """Load nginx, then the API, for ``seconds`` each. Raises Refused when the figures would mean nothing."""
        file = f"/{case.file}"
        nginx = self._sample(self._nginx.port, file, {}, self._nginx_process, seconds, f"{case.name}, nginx")
        ours = self._sample(
            self._api.port, case.target, case.headers, self._api_process, seconds, f"{case.name}, API"
        )
        check_bytes(
            _body(self._api.port, case.target, case.headers), _body(self._nginx.port, file), case.name
        )
        return nginx, ours

    def _sample(
        self,
        port: int,
        target: str,
        headers: Mapping[str, str],
        server: psutil.Process,
        seconds: int,
        what: str,
    ) -> Sample:
        before = cpu_s(server)
        load = wrk.load(self._wrk, f"http://127.0.0.1:{port}{target}", seconds, headers)
        spent_s = cpu_s(server) - before
        check_load(load, what)
        if spent_s <= 0:
            raise Refused(f"{what}: no CPU time was counted; measure for longer.")
        return Sample(load, spent_s)


@contextmanager
def bench(processes: int) -> Iterator[Bench]:
    """Start PostgreSQL, Valkey, the worker, the API and nginx over 10,000 todos; stop them in the end.

    Raises StackError when nginx or wrk is not installed or something does not start.
    """
    nginx_program, wrk_program = find_nginx(), wrk.find_wrk()
    with servers() as started:
        postgres = LocalPostgres(started.folder / "postgres", free_port())
        valkey = LocalValkey(started.folder / "valkey", free_port())
        started.start(postgres)
        started.start(valkey)
        migrate(postgres.url)
        with psycopg.connect(postgres.url) as connection:
            insert_seed(connection, "bench", range(TODOS))
        settings = _settings(postgres.url, valkey.url, processes)
        started.start(Worker(settings))
        api = Api(free_port(), settings)
        api_pid = started.start(api)
        files = {case.file: _body(api.port, case.target) for case in CASES}
        nginx = Nginx(nginx_program, started.folder / "nginx", free_port(), processes, files)
        nginx_pid = started.start(nginx)
        versions = (
            f"Python {platform.python_version()}, gunicorn {version('gunicorn')} "
            f"({_worker_name(worker_class(started.folder / f'{api.name}.out'))}), "
            f"nginx {nginx_version(nginx_program)}, {wrk.version(wrk_program)}"
        )
        yield Bench(api, api_pid, nginx, nginx_pid, versions)


def _settings(database_url: str, redis_url: str, processes: int) -> dict[str, str]:
    # An empty value is the default: whatever the caller's environment and .env say, two runs measure the same.
    defaults = dict.fromkeys(load_settings("tool", {}).shown(), "")
    return defaults | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "COMMAND_LOG": "streams",
        "JWT_SECRET": secrets.token_hex(32),
        "WEB_CONCURRENCY": str(processes),
        "GUNICORN_CMD_ARGS": "",
    }


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
