from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as of_kafka_python

from todo_api.core.command_log.kafka_partition import murmur2, partition_of, tail_for


@given(st.binary(max_size=60))
def test_the_hash_is_that_of_other_clients(key):
    assert murmur2(key) == of_kafka_python(key)


@given(st.binary(min_size=1, max_size=40), st.integers(1, 64))
def test_a_key_goes_where_other_clients_send_it(key, partitions):
    assert partition_of(key, partitions) == (of_kafka_python(key) & 0x7FFFFFFF) % partitions


@given(
    st.binary(max_size=10).map(lambda words: words * 4), st.integers(0, 0xFFFF), st.integers(1, 64), st.data()
)
def test_a_tail_puts_its_key_where_it_is_wanted(front, tail, partitions, data):
    partition = data.draw(st.integers(0, partitions - 1))
    found = tail_for(front, tail, partition, partitions, 0x10000)
    assert partition_of(front + b"%04x" % found, partitions) == partition
    earlier = range(tail, found if found >= tail else found + 0x10000)
    assert all(partition_of(front + b"%04x" % (n & 0xFFFF), partitions) != partition for n in earlier)


def test_a_tail_is_not_looked_for_without_end():
    assert tail_for(b"", 0xFFFE, partition=-1, partitions=4, tries=3) == 1
