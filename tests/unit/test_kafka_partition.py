from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as of_kafka_python

from todo_api.core.command_log.kafka_partition import murmur2, partition_of


@given(st.binary(max_size=60))
def test_the_hash_is_that_of_other_clients(key):
    assert murmur2(key) == of_kafka_python(key)


@given(st.binary(min_size=1, max_size=40), st.integers(1, 64))
def test_a_key_goes_where_other_clients_send_it(key, partitions):
    assert partition_of(key, partitions) == (of_kafka_python(key) & 0x7FFFFFFF) % partitions
