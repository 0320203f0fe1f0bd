"""Servers and their load on cores of their own."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from tests.support.cores import one_core_for_servers


class Sleeper:
    """A process that does nothing until it is closed."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    @property
    def cores(self):
        return os.sched_getaffinity(self.process.pid)

    def close(self):
        self.process.communicate()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_servers_have_one_core_and_what_is_apart_the_others_and_afterwards_all_have_all():
    every = os.sched_getaffinity(0)
    with closing(Sleeper()) as server, closing(Sleeper()) as proxy:
        with one_core_for_servers([proxy.process.pid]) as is_apart:
            assert is_apart
            assert len(server.cores) == 1
            assert proxy.cores == os.sched_getaffinity(0) == every - server.cores
            with closing(Sleeper()) as load:
                assert load.cores == proxy.cores
        assert server.cores == proxy.cores == os.sched_getaffinity(0) == every


def test_on_one_core_nothing_is_changed(monkeypatch):
    only = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {only})
    monkeypatch.setattr(os, "sched_setaffinity", None)
    with one_core_for_servers([]) as is_apart:
        assert not is_apart
