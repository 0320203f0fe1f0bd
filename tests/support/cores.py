"""Which cores processes may use: a load must not take from a service what it measures it with."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def one_core_for_servers(apart: Collection[int]) -> Iterator[bool]:
    """Meanwhile, all processes that this one has started have one core to themselves; yield whether there are two.

    This process, what it starts from now on, and the process trees ``apart`` (by id) have the others.
    """
    cores = os.sched_getaffinity(0)
    first, *rest = sorted(cores)
    if not rest:
        yield False
        return
    me = psutil.Process()
    others = {me.pid, *(each.pid for pid in apart for each in _tree(pid))}
    servers = {each.pid for each in me.children(recursive=True)} - others
    _assign(servers, {first})
    _assign(others, set(rest))
    try:
        yield True
    finally:
        _assign(servers | others, cores)


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _assign(pids: Collection[int], cores: Collection[int]) -> None:
    for pid in pids:
        try:
            threads = [thread.id for thread in psutil.Process(pid).threads()]
        except psutil.NoSuchProcess:
            continue
        for thread in threads:
            # A thread may have ended meanwhile.
            try:
                os.sched_setaffinity(thread, cores)
            except ProcessLookupError:
                continue
