"""Counters in memory that several processes share."""

import logging
import subprocess
import sys
import threading

import pytest

from todo_api.core.exposition import exposition
from todo_api.core.metrics import SLOT_BYTES, Kind, Memory, Merge, Metric

SENT = Metric(Kind.COUNTER, "sent_total", "Sent", ("to",))
BUSY = Metric(Kind.GAUGE, "busy", "Busy")
AGE = Metric(Kind.GAUGE, "age_seconds", "Age", merge=Merge.MAX)
LEAST = Metric(Kind.GAUGE, "least", "Least", merge=Merge.MIN)
SECONDS = Metric(Kind.HISTOGRAM, "took_seconds", "Took", (), (0.1, 1.0))
METRICS = (SENT, BUSY, AGE, LEAST, SECONDS)
SLOTS = 3


@pytest.fixture
def shared():
    return memoryview(bytearray(SLOT_BYTES * SLOTS))


def process(shared, own):
    return Memory(METRICS, shared, SLOTS, own)


def die(shared, own):
    """What the master does for a process that has ended."""
    shared[own * SLOT_BYTES : own * SLOT_BYTES + 8] = bytes(8)


def values(memory):
    return {(one.metric.name, *one.labels): one.values for one in memory.read()}


def test_whoever_is_asked_tells_what_all_have_counted(shared):
    one, other = process(shared, 0), process(shared, 2)
    one.slot.add(SENT, "a")
    other.slot.add(SENT, "a", amount=2)
    other.slot.add(SENT, "b")
    assert values(one) == values(other) == {("sent_total", "a"): (3,), ("sent_total", "b"): (1,)}
    assert one.processes == 2


def test_gauges_of_several_processes_become_one_as_they_ask_for(shared):
    one, other = process(shared, 0), process(shared, 1)
    for memory, value in ((one, 3), (other, 5)):
        for gauge in (BUSY, AGE, LEAST):
            memory.slot.set(gauge, value=value)
    assert values(one) == {("busy",): (8,), ("age_seconds",): (5,), ("least",): (3,)}


def test_a_dead_process_keeps_its_counts_and_loses_its_gauges(shared):
    one, other = process(shared, 0), process(shared, 1)
    other.slot.add(SENT, "a")
    other.slot.observe(SECONDS, values=[0.5])
    other.slot.set(BUSY, value=1)
    die(shared, 1)
    assert values(one) == {("sent_total", "a"): (1,), ("took_seconds",): (0, 1, 0, 0.5)}
    assert one.processes == 1


def test_a_successor_goes_on_from_the_counts_and_without_the_gauges(shared):
    before = process(shared, 0)
    before.slot.add(SENT, "a")
    before.slot.raise_to(SENT, "b", total=10)
    before.slot.set(BUSY, value=1)
    die(shared, 0)
    after = process(shared, 0)
    after.slot.add(SENT, "a")
    after.slot.raise_to(SENT, "b", total=4)
    assert values(after) == {("sent_total", "a"): (2,), ("sent_total", "b"): (14,)}


def test_a_total_that_falls_back_does_not_lower_its_counter(shared):
    memory = process(shared, 0)
    for total in (5, 4, 6):
        memory.slot.raise_to(SENT, "a", total=total)
    assert values(memory) == {("sent_total", "a"): (6,)}


def test_a_counter_may_be_raised_and_added_to(shared):
    memory = process(shared, 0)
    memory.slot.raise_to(SENT, "a", total=5)
    memory.slot.add(SENT, "a")
    memory.slot.raise_to(SENT, "a", total=7)
    assert values(memory) == {("sent_total", "a"): (8,)}


def test_counts_of_many_threads_are_all_there():
    memory = Memory(METRICS)

    def count():
        for _ in range(2000):
            memory.slot.add(SENT, "a")
            memory.slot.observe(SECONDS, values=(0.01, 5.0))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(memory) == {
        ("sent_total", "a"): (8000,),
        ("took_seconds",): (8000, 0, 8000, pytest.approx(8000 * 5.01)),
    }


def test_a_value_on_a_bound_is_within_it():
    memory = Memory(METRICS)
    memory.slot.observe(SECONDS, values=(0.1, 1.0, 1.1))
    assert values(memory) == {("took_seconds",): (1, 1, 1, pytest.approx(2.2))}


def test_what_another_release_counts_is_left_out_and_kept(shared):
    renamed = Metric(Kind.COUNTER, "another_total", "Of another release")
    rebucketed = SECONDS._replace(buckets=(1.0, 2.0, 3.0))
    old = Memory((renamed, rebucketed), shared, SLOTS, 0)
    old.slot.add(renamed)
    old.slot.observe(rebucketed, values=[1.5])
    new = process(shared, 1)
    new.slot.observe(SECONDS, values=[0.5])
    assert values(new) == {("took_seconds",): (0, 1, 0, 0.5)}
    assert values(old) == {("another_total",): (1,), ("took_seconds",): (0, 1, 0, 0, 1.5)}


def test_a_slot_that_is_full_says_so_once_and_goes_on_counting_what_it_has(caplog):
    memory = Memory(METRICS)
    memory.slot.add(SENT, "a")
    with caplog.at_level(logging.ERROR):
        for number in range(SLOT_BYTES // 32):
            memory.slot.add(SENT, f"{number:08}")
    memory.slot.add(SENT, "a")
    assert [record.event for record in caplog.records] == ["metrics.full"]
    assert values(memory)["sent_total", "a"] == (2,)


CHILD = """
import mmap, os
from todo_api.core.metrics import SLOT_BYTES, Memory
from tests.unit.test_metrics import METRICS, SENT, SLOTS
shared = memoryview(mmap.mmap(-1, SLOT_BYTES * SLOTS))
ours = Memory(METRICS, shared, SLOTS, 0)
for own in (1, 2):
    if os.fork() == 0:
        theirs = Memory(METRICS, shared, SLOTS, own)
        for _ in range(1000):
            theirs.slot.add(SENT, "a")
        os._exit(0)
for _ in range(2):
    os.wait()
print(*[one.values[0] for one in ours.read()], ours.processes)
"""


def test_forked_processes_count_into_the_same_memory():
    # In a process of its own: forking one that has threads is not for tests.
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2000.0", "3"], done.stderr


def test_the_text_has_help_type_and_every_bucket_counted_up():
    memory = Memory(METRICS)
    memory.slot.add(SENT, 'say "hi"\n')
    memory.slot.observe(SECONDS, values=(0.05, 0.5, 5.0))
    assert exposition(memory.read()).decode().splitlines() == [
        "# HELP sent_total Sent",
        "# TYPE sent_total counter",
        r'sent_total{to="say \"hi\"\n"} 1.0',
        "# HELP took_seconds Took",
        "# TYPE took_seconds histogram",
        'took_seconds_bucket{le="0.1"} 1.0',
        'took_seconds_bucket{le="1.0"} 2.0',
        'took_seconds_bucket{le="+Inf"} 3.0',
        "took_seconds_count 3.0",
        "took_seconds_sum 5.55",
    ]
