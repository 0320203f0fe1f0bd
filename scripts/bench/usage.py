"""Who was busy during a measurement: the server's processes, the load generator, the machine, the network."""

import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from scripts.bench.measure import cpu_s

# Above this share of what it has, a component is what holds the others up.
_SATURATED: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU in cores used on average. ``server`` is by process id; it is None when its processes cannot be seen.

    ``network_share`` is the part used of the busiest interface whose speed is known, or None.
    """

    seconds: float
    cores: int
    machine: float
    generator: float
    generator_cores: int
    server: Mapping[int, float] | None
    network_share: float | None

    @property
    def server_cpu_s(self) -> float | None:
        return None if self.server is None else sum(self.server.values()) * self.seconds


def saturated(usage: Usage) -> list[str]:
    """Return a sentence for each component that used more than 90 % of what it has, the likeliest brake first."""
    found = []
    if usage.generator >= _SATURATED * usage.generator_cores:
        found.append(
            f"The load generator: it used {usage.generator:.2f} of the {usage.generator_cores} cores it can use; "
            "the server may be able to do more."
        )
    busy = [cores for cores in (usage.server or {}).values() if cores >= _SATURATED]
    serving = [cores for cores in (usage.server or {}).values() if cores >= _SATURATED / 10]
    if busy and len(busy) == len(serving):
        found.append(f"The server: each of its {len(busy)} busy processes used a core for itself.")
    elif busy:
        found.append(
            f"{len(busy)} of the server's {len(serving)} busy processes: a core each; the others had time left."
        )
    if usage.network_share is not None and usage.network_share >= _SATURATED:
        found.append(f"The network: {usage.network_share:.0%} of its speed was used.")
    # A core that one process has for itself is not the machine's lack.
    if usage.machine >= _SATURATED * usage.cores and usage.cores > len(busy):
        server = sum((usage.server or {}).values())
        found.append(
            f"The machine: {usage.machine:.2f} of its {usage.cores} cores were busy, {server:.2f} with the server, "
            f"{usage.generator:.2f} with making the load, the rest with something else."
        )
    return found or [
        "Nothing here: more connections or a higher rate would get more answers, or it waits for others."
    ]


class Meter:
    """Measures from ``start`` to ``read``. ``host`` and ``port`` are where the server listens."""

    def __init__(self, host: str, port: int, generator_cores: int) -> None:
        self._generator_cores = generator_cores
        self._server = server_processes(host, port)
        self._own = psutil.Process()
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self._before = self._state()

    def read(self) -> Usage:
        began, now = self._before, self._state()
        seconds = now.at - began.at
        server = None
        if self._server is not None:
            server = {
                pid: (spent - began.server[pid]) / seconds
                for pid, spent in now.server.items()
                if pid in began.server
            }
        return Usage(
            seconds=seconds,
            cores=psutil.cpu_count() or 1,
            machine=(now.machine_s - began.machine_s) / seconds,
            generator=(now.own_s - began.own_s) / seconds,
            generator_cores=self._generator_cores,
            server=server,
            network_share=_network_share(began.network_bytes, now.network_bytes, seconds),
        )

    def _state(self) -> "_State":
        server = {}
        for process in self._server or []:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            server[process.pid] = times.user + times.system
        machine = psutil.cpu_times()
        # guest is part of user, iowait is a way to be idle; neither is everywhere.
        busy_s = machine.user + machine.system + machine.nice + getattr(machine, "irq", 0.0)
        busy_s += getattr(machine, "softirq", 0.0) + getattr(machine, "steal", 0.0)
        network = {
            name: max(one.bytes_sent, one.bytes_recv)
            for name, one in psutil.net_io_counters(pernic=True).items()
        }
        return _State(time.monotonic(), cpu_s(self._own), busy_s, server, network)


@dataclass(frozen=True, slots=True)
class _State:
    at: float
    own_s: float
    machine_s: float
    server: dict[int, float]
    network_bytes: dict[str, int]


def server_processes(host: str, port: int) -> list[psutil.Process] | None:
    """Return the processes behind a port of this machine, or None when there are none that we may see."""
    if not _is_here(host):
        return None
    try:
        pids = [one.pid for one in psutil.net_connections("tcp") if _listens(one, port) and one.pid]
        if not pids:
            return None
        root = psutil.Process(pids[0])
        # Whoever of the children that share the socket was found: the first of them all opened it.
        while (parent := root.parent()) and any(_listens(one, port) for one in parent.net_connections("tcp")):
            root = parent
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return None


def _listens(connection: object, port: int) -> bool:
    address = getattr(connection, "laddr", None)
    is_listening = getattr(connection, "status", "") == psutil.CONN_LISTEN
    return is_listening and getattr(address, "port", None) == port


def _is_here(host: str) -> bool:
    try:
        addresses = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    ours = {one.address.partition("%")[0] for each in psutil.net_if_addrs().values() for one in each}
    return all(ipaddress.ip_address(one).is_loopback or one in ours for one in addresses)


def _network_share(before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> float | None:
    shares = [
        (now[name] - before[name]) * 8 / seconds / (one.speed * 1e6)
        for name, one in psutil.net_if_stats().items()
        if one.speed > 0 and name in before and name in now
    ]
    return max(shares, default=None)
