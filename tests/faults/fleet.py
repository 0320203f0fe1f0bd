"""The product as it runs in production, in small: nginx, two API instances, workers, real servers."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from scripts.stack.nginx import LocalNginx
from scripts.stack.server import ServerProcess, free_port, wait_until
from tests.support.deployment import INHERITED, ROOT, Kind, Servers, WorkerProcess, read_rows
from tests.support.gunicorn import GunicornProcess
from tests.support.http_client import LOST, Client
from tests.support.tcp_proxy import TcpProxy
from todo_api.core.command_log.connect import DEAD_LETTERS_PARTITIONS, dead_letters_topic, make_consumer

# The command log, for Kafka by the client.
Log = Literal["kafka-python", "librdkafka", "streams"]
INSTANCES = 2
_HEALED_S = 60.0


def kind_of(log: Log) -> Kind:
    return "streams" if log == "streams" else "kafka"


class Fleet:
    """Two API instances of one process each behind nginx, one worker or more. Use it as a context manager.

    Each instance has one process, so that every process of the fleet can be asked by itself.
    """

    def __init__(
        self,
        folder: Path,
        servers: Servers,
        log: Log,
        env: Mapping[str, str],
        networks: Mapping[str, TcpProxy] | None = None,
    ) -> None:
        self.folder = folder
        self.servers = servers
        self.log = log
        self.kind = kind_of(log)
        self.env = dict(env)
        self.networks = dict(networks or {})
        """What is between our processes and their servers, by setting; empty when nothing is."""
        self.workers: list[WorkerProcess] = []
        self.instances = [self._instance(number) for number in range(INSTANCES)]
        self._nginx: ServerProcess | None = None
        self._proxy: LocalNginx | None = None
        self.port = free_port()
        self.add_worker()

    def log_network(self) -> TcpProxy:
        """Return what is between our processes and the server that holds the command log."""
        return self.networks["KAFKA_BROKERS" if self.kind == "kafka" else "REDIS_URL"]

    def _instance(self, number: int) -> GunicornProcess:
        folder = self.folder / f"api{number}"
        folder.mkdir()
        arguments = ["--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
        return GunicornProcess(arguments, folder, INHERITED | self.env | {"WEB_CONCURRENCY": "1"})

    def add_worker(self) -> WorkerProcess:
        """Return one more worker, which does not run yet."""
        folder = self.folder / f"worker{len(self.workers)}"
        folder.mkdir()
        self.workers.append(WorkerProcess(folder, self.env))
        return self.workers[-1]

    def remove_workers(self) -> None:
        """Stop all workers but the first and forget them, with what they wrote."""
        for number, worker in enumerate(self.workers[1:], start=1):
            worker.leave()
            worker.kill()
            shutil.rmtree(self.folder / f"worker{number}")
        del self.workers[1:]

    def client(self, user: str = "ann", timeout_s: float = 15.0) -> Client:
        """Return a client that goes through nginx."""
        return Client("127.0.0.1", self.port, self.env["JWT_SECRET"], user, timeout_s)

    def direct(self, instance: GunicornProcess, timeout_s: float = 15.0) -> Client:
        """Return a client that asks one API process."""
        return Client(instance.host, instance.port, self.env["JWT_SECRET"], "observer", timeout_s)

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.env["DATABASE_URL"])

    def dead_letters(self) -> int:
        """Return how many dead letters there are."""
        topic = dead_letters_topic(self.env["KAFKA_TODO_TOPIC"])
        consumer = make_consumer(
            self.kind,
            brokers=[self.env["KAFKA_BROKERS"]],
            topic=topic,
            partitions=DEAD_LETTERS_PARTITIONS,
            redis_url=self.env["REDIS_URL"],
            group=f"{topic}.count",
        )
        try:
            return sum(consumer.end_offsets().values())
        finally:
            consumer.close(1.0)

    def memory_bytes(self) -> dict[str, int]:
        """Return the resident memory of the API processes together, and of the workers."""
        pids = {
            "API": [pid for instance in self.instances for pid in instance.worker_pids()],
            "worker": [worker.pid for worker in self.workers if worker.is_running],
        }
        return {
            name: sum(psutil.Process(pid).memory_info().rss for pid in same) for name, same in pids.items()
        }

    @property
    def nginx_pid(self) -> int:
        """The master's."""
        assert self._nginx is not None, "not started"
        return self._nginx.pid

    def nginx_waited_s(self) -> float:
        """Return how long nginx's processes together had to wait for a processor so far."""
        pids = [child.pid for child in psutil.Process(self.nginx_pid).children()]
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e9

    def start(self) -> None:
        for worker in self.workers:
            if not worker.is_running:
                worker.start()
        for instance in self.instances:
            if not instance.is_running:
                instance.start()
        if self._nginx is None:
            ports = [instance.port for instance in self.instances]
            nginx = LocalNginx(self.folder / "nginx", self.port, ports, inner_port=free_port())
            self._nginx = ServerProcess(nginx, self.folder)
            self._proxy = nginx
        if not self._nginx.server.is_ready():
            self._nginx.start()

    def is_ready(self, instance: GunicornProcess) -> bool:
        """Say whether this API instance is."""
        try:
            return bool(self.direct(instance, 3.0).get("/ready").status == 200)
        except LOST:
            return False

    def balance(self, instances: Sequence[GunicornProcess]) -> None:
        """Tell nginx to send requests to these instances, as an orchestrator does to those that are ready."""
        assert self._nginx is not None, "not started"
        assert self._proxy is not None, "not started"
        self._proxy.point_at([instance.port for instance in instances])
        self._nginx.send_signal(signal.SIGHUP)

    def restart(self, instance: GunicornProcess) -> float:
        """Stop one with SIGTERM, as an orchestrator does, start it, and give it requests when it is ready.

        Return how many seconds it took to be gone.
        """
        began = time.monotonic()
        assert instance.stop(60) == 0, "an instance did not end with 0"
        gone_s = time.monotonic() - began
        # Nobody told nginx before: it finds out.
        self.balance([other for other in self.instances if other is not instance])
        instance.start()
        wait_until(partial(self.is_ready, instance), 60, "ready")
        self.balance(self.instances)
        return gone_s

    def mend(self) -> None:
        """Make everything run, answer and be ready, whatever was done to it."""
        for network in self.networks.values():
            network.heal()
        self.servers.mend()
        self.remove_workers()
        self.start()
        for instance in self.instances:
            wait_until(partial(self.is_ready, instance), _HEALED_S, "ready")

    def kill_everything(self) -> None:
        """SIGKILL every process of ours and every server, but nginx."""
        for worker in self.workers:
            worker.kill()
        for instance in self.instances:
            instance.kill()
        self.servers.kill()

    def starters(self) -> list[Callable[[], None]]:
        """Return what starts each process and server, in no order."""
        ours: list[Callable[[], None]] = [
            *(worker.start for worker in self.workers),
            *(api.launch for api in self.instances),
        ]
        return [*ours, *self.servers.starters()]

    def stop(self) -> None:
        self.remove_workers()
        if self._nginx is not None:
            self._nginx.stop()
        for worker in self.workers:
            worker.leave()
            worker.kill()
        for instance in self.instances:
            instance.kill()


@contextmanager
def fleet_of(folder: Path, servers: Servers, log: Log, *, proxied: bool = False) -> Iterator[Fleet]:
    """Yield a running fleet on an empty database, cache and log; ``proxied`` with networks to disturb."""
    with ExitStack() as stack:
        kind = kind_of(log)
        env = stack.enter_context(servers.settings(kind))
        if kind == "kafka":
            env["KAFKA_CLIENT"] = log
        networks: dict[str, TcpProxy] = {}
        for name in ("DATABASE_URL", "REDIS_URL") if proxied else ():
            port = urlsplit(env[name]).port
            assert port is not None
            networks[name] = stack.enter_context(TcpProxy(port))
            env[name] = env[name].replace(f":{port}", f":{networks[name].port}")
        if proxied and kind == "kafka":
            way = servers.kafka_proxied
            networks["KAFKA_BROKERS"] = stack.enter_context(TcpProxy(way.port, way.proxy_port))
            env["KAFKA_BROKERS"] = f"127.0.0.1:{way.proxy_port}"
        fleet = Fleet(folder, servers, log, env, networks)
        stack.callback(fleet.stop)
        fleet.start()
        fleet.mend()
        yield fleet


def rolling(seconds: float, count: int, do: Callable[[int], None], pause: Callable[[float], None]) -> None:
    """Call ``do`` ``count`` times, evenly over ``seconds``."""
    began = time.monotonic()
    for number in range(count):
        do(number)
        pause(max(0.0, began + seconds * (number + 1) / count - time.monotonic()))
