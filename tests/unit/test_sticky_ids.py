from collections import Counter

import pytest
from kafka.partitioner.default import murmur2

from todo_api.core.sticky_ids import KEEP_NS, StickyIds


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def partition_of(todo_id, partitions):
    """As Kafka's clients say."""
    return (murmur2(str(todo_id).encode()) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize("partitions", [1, 3, 4, 12])
def test_ids_of_one_moment_are_for_one_partition_and_every_partition_has_its_turn(partitions):
    clock = Clock()
    ids = StickyIds(partitions, clock)
    turns = []
    for _ in range(2 * partitions):
        # 64 tries find one of 12 partitions in all but 0.4 % of the cases.
        found = Counter(partition_of(ids.new(), partitions) for _ in range(100))
        partition, count = found.most_common(1)[0]
        assert count >= 90
        turns.append(partition)
        clock.now_ns += KEEP_NS
    assert turns[:partitions] == turns[partitions:]
    assert set(turns) == set(range(partitions))


def test_they_are_ordinary_ids():
    ids = StickyIds(16)
    made = [ids.new() for _ in range(5_000)]
    assert len(set(made)) == len(made)
    assert {(each.version, each.variant) for each in made} == {(7, "specified in RFC 4122")}
    assert [each.int >> 64 for each in made] == sorted(each.int >> 64 for each in made)


def test_more_partitions_than_can_be_tried_are_no_obstacle():
    made = {StickyIds(10_000).new() for _ in range(100)}
    assert len(made) == 100


def test_processes_are_not_all_at_the_same_partition():
    clock = Clock()
    assert len({partition_of(StickyIds(16, clock).new(), 16) for _ in range(50)}) > 1
