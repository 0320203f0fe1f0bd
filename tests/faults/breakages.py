"""Faults of processes and servers: each function makes one under load, and heals it."""

import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
import redis

from scripts.stack.server import ServerProcess, wait_until
from tests.faults.fleet import rolling
from tests.faults.trial import Scene
from tests.support.deployment import kill_process

# Kafka's session timeout is 10 s: as long may the partitions of a dead worker lie about.
SESSION_S: Final = 10.0
STOPPED_S: Final = 25.0
# How many requests a rolling restart must not fail, when there is time for them.
ROLLED_REQUESTS: Final = 10_000
# By the load and by the observers.
_LISTS_READ: Final = 2


def nothing(scene: Scene) -> None:
    scene.go_on()


def worker_killed(scene: Scene) -> None:
    """kill -9 the worker again and again; it is started at once."""
    [worker] = scene.fleet.workers

    def kill(_: int) -> None:
        worker.kill()
        worker.start()

    rolling(scene.pace.seconds, max(1, round(scene.pace.seconds / 6)), kill, scene.load.go_on)


def api_process_killed(scene: Scene) -> None:
    """kill -9 a process of gunicorn's, which gunicorn replaces."""
    kills = max(2, round(scene.pace.seconds / 3))

    def kill(number: int) -> None:
        instance = scene.fleet.instances[number % len(scene.fleet.instances)]
        before = instance.worker_pids()
        kill_process(before[0])
        wait_until(lambda: set(instance.worker_pids()) - set(before) and instance.answers(), 30, "a new one")

    rolling(scene.pace.seconds, kills, kill, scene.load.go_on)
    unknown = scene.load.ledger.counts()["unknown"]
    # On a busy machine a process is away for so long that writes which wait for it are given up.
    if not scene.pace.is_short:
        scene.expect(unknown <= kills, f"{unknown} unknown writes in {kills} kills")
    scene.notes.append(f"{kills} kills")


def rolling_restart(scene: Scene) -> None:
    """SIGTERM to each instance and worker in turn, then SIGHUP to the instances."""
    slowest_s = 0.0

    def stop_and_start(number: int) -> None:
        nonlocal slowest_s
        instance = scene.fleet.instances[number % len(scene.fleet.instances)]
        slowest_s = max(slowest_s, scene.fleet.restart(instance))
        [worker] = scene.fleet.workers
        began = time.monotonic()
        scene.expect(worker.stop(60) == 0, "a worker did not end with 0")
        slowest_s = max(slowest_s, time.monotonic() - began)
        worker.start()
        wait_until(lambda: worker.has_begun, 60, "the worker begins")

    def reload(number: int) -> None:
        instance = scene.fleet.instances[number % len(scene.fleet.instances)]
        before = instance.worker_pids()
        instance.signal(signal.SIGHUP)
        wait_until(lambda: not set(instance.worker_pids()) & set(before), 60, "the old process gone")

    began_with, rounds = scene.load.answers, 0
    least = 2 if scene.pace.is_short else 4
    while rounds < least or (not scene.pace.is_short and scene.load.answers - began_with < ROLLED_REQUESTS):
        rolling(scene.pace.seconds / 4, 2, stop_and_start, scene.load.go_on)
        rolling(scene.pace.seconds / 4, 2, reload, scene.load.go_on)
        rounds += 2
    requests = scene.load.answers - began_with
    scene.expect(slowest_s <= STOPPED_S, f"{slowest_s:.1f} s until one was gone")
    scene.notes.append(f"{requests:,} requests, {rounds} TERM, {rounds} HUP, gone within {slowest_s:.1f} s")


def postgres_stopped(scene: Scene) -> None:
    process = scene.fleet.servers.process("postgres")
    process.send_signal(signal.SIGQUIT)
    process.wait()
    scene.go_on()
    process.start()


def postgres_frozen(scene: Scene) -> None:
    process = scene.fleet.servers.process("postgres")
    process.freeze()
    scene.go_on()
    process.resume()


def postgres_restarted(scene: Scene) -> None:
    process = scene.fleet.servers.process("postgres")

    def restart(_: int) -> None:
        process.stop()
        process.start()

    rolling(scene.pace.seconds, max(2, round(scene.pace.seconds / 6)), restart, scene.load.go_on)


def disk_full(scene: Scene) -> None:
    """PostgreSQL's data on a small disk of its own, filled to the last byte, then freed. Needs root, to mount it."""
    process = scene.fleet.servers.process("postgres")
    with _small_disk(process, scene.fleet.servers.folder / "postgres" / "data") as disk:
        ballast = disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        scene.go_on()
        ballast.unlink()
        # Full WAL ends the server, and whoever runs it starts it again.
        if not process.server.is_ready():
            process.stop()
            process.start()
        scene.go_on(1 / 2)
    scene.expect(scene.fleet.workers[0].is_running, "the worker is gone")


@contextmanager
def _small_disk(process: ServerProcess, data: Path) -> Iterator[Path]:
    """Move a server's data to a disk with 48 MB to spare during the body of ``with``; restarts it before and after."""
    aside = data.with_name("data.aside")
    process.stop()
    used = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
    data.rename(aside)
    data.mkdir()
    size = f"size={used + (48 << 20)},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", data], check=True)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", data], check=True)
        process.start()
        yield data
        process.stop()
        shutil.rmtree(aside)
        subprocess.run(["cp", "-a", data, aside], check=True)
    finally:
        process.stop()
        subprocess.run(["umount", data], check=True)
        data.rmdir()
        aside.rename(data)
    process.start()


def redis_stopped(scene: Scene) -> None:
    process = scene.fleet.servers.process("valkey")
    process.stop()
    scene.go_on()
    process.start()


def redis_flushed(scene: Scene) -> None:
    """FLUSHALL every second: what is filled again must not be asked for by everybody at once."""
    seconds = max(1, round(scene.pace.seconds))
    with redis.Redis.from_url(scene.fleet.servers.valkey.url) as client, _list_queries(scene) as queries:
        scene.go_on(1 / 2)
        before = queries()
        rolling(seconds, seconds, lambda _: client.flushall(), scene.load.go_on)
        during = queries() - before
    # The writes of the load move the generation, so lists are asked for all the time.
    usual = before / (scene.pace.seconds / 2)
    most = seconds * (1.5 * usual + len(scene.fleet.instances) * _LISTS_READ)
    scene.notes.append(f"list queries {usual:.1f}/s before, {during / seconds:.1f}/s during")
    scene.expect(during <= most, f"{during} list queries in {seconds} flushes, at most {most:.0f}")


@contextmanager
def _list_queries(scene: Scene) -> Iterator[Callable[[], int]]:
    """Yield a function that says how many list queries PostgreSQL was asked since; it writes them down for that."""
    log = scene.fleet.servers.folder / "postgres.out"
    with psycopg.connect(scene.fleet.servers.postgres.url, autocommit=True) as connection:
        connection.execute("alter system set log_statement = 'all'")
        connection.execute("select pg_reload_conf()")
        begin = log.stat().st_size
        try:
            yield lambda: log.read_bytes()[begin:].count(b"newest as materialized (")
        finally:
            connection.execute("alter system reset log_statement")
            connection.execute("select pg_reload_conf()")


def redis_restored(scene: Scene) -> None:
    """kill -9, and start with contents from before: as from an old snapshot."""
    process = scene.fleet.servers.process("valkey")
    contents = scene.fleet.servers.folder / "valkey" / "appendonlydir"
    with tempfile.TemporaryDirectory() as kept:
        # Still, lest it rewrites its file meanwhile.
        process.freeze()
        old = shutil.copytree(contents, Path(kept) / "old")
        process.resume()
        scene.go_on(1 / 3)
        process.kill()
        shutil.rmtree(contents)
        shutil.copytree(old, contents)
    process.start()
    scene.go_on(1 / 3)


def redis_frozen(scene: Scene) -> None:
    process = scene.fleet.servers.process("valkey")
    process.freeze()
    scene.go_on()
    process.resume()


def workers_come_and_go(scene: Scene) -> None:
    """Up to four workers; every 5 s one joins or leaves, by TERM or KILL."""
    fleet, choices = scene.fleet, random.Random(12)
    while len(fleet.workers) < 4:
        fleet.add_worker()

    def change(number: int) -> None:
        # The first change starts one, so that one runs all the time.
        worker = fleet.workers[1:][number % 3] if number < 3 else choices.choice(fleet.workers)
        running = [w for w in fleet.workers if w.is_running]
        if not worker.is_running:
            worker.start()
        elif len(running) > 1:
            if choices.random() < 0.5:
                worker.kill()
            else:
                wait_until(lambda: worker.has_begun, 60, "the worker begins")
                scene.expect(worker.stop(STOPPED_S) == 0, "a worker did not end with 0")

    changes = max(4, round(scene.pace.seconds * 2 / 5))
    rolling(scene.pace.seconds * 2, changes, change, scene.load.go_on)
    for worker in fleet.workers:
        if not worker.is_running:
            worker.start()
    scene.notes.append(f"{changes} changes")


def zombie_worker(scene: Scene) -> None:
    """SIGSTOP a worker for longer than its session, with another one running, then SIGCONT."""
    fleet = scene.fleet
    second = fleet.add_worker()
    second.start()
    scene.go_on(1 / 3)
    fleet.workers[0].signal(signal.SIGSTOP)
    scene.load.go_on(max(scene.pace.seconds, 3 * SESSION_S if fleet.kind == "kafka" else 0))
    fleet.workers[0].signal(signal.SIGCONT)
    scene.go_on(1 / 2)
    scene.expect(fleet.workers[0].is_running, "the frozen worker is gone")


def redis_hung_and_worker_killed(scene: Scene) -> None:
    process = scene.fleet.servers.process("valkey")
    process.freeze()
    scene.go_on(1 / 2)
    worker_killed(scene)
    process.resume()


def everything_killed(scene: Scene) -> None:
    """SIGKILL all at once, then start all at once in any order."""
    fleet = scene.fleet
    fleet.kill_everything()
    starters = fleet.starters()
    random.Random(19).shuffle(starters)
    began = time.monotonic()
    threads = [threading.Thread(target=starter) for starter in starters]
    for thread in threads:
        thread.start()
        scene.load.go_on(0.2)
    for thread in threads:
        thread.join(60)
    for instance in fleet.instances:
        wait_until(partial(fleet.is_ready, instance), 60, "ready")
    took_s = time.monotonic() - began
    scene.notes.append(f"ready after {took_s:.1f} s")
