"""What only Streams have: a read for each poll and more, to a server that may be far away."""

import threading
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.support.tcp_proxy import TcpProxy
from todo_api.core.command_log import Record
from todo_api.core.command_log.streams import StreamsConsumer, StreamsPublisher
from todo_api.core.errors import LogUnavailable


@pytest.fixture
def far_away(valkey):
    """The server, 20 ms away in each direction."""
    port = urlsplit(valkey.url).port
    with TcpProxy(port) as proxy:
        proxy.delay_s = 0.02
        yield valkey.url.replace(f":{port}", f":{proxy.port}")


def test_a_poll_ends_in_time_although_each_read_finds_something_new(valkey, far_away):
    topic, stop = f"test-{uuid4().hex[:12]}", threading.Event()
    publisher = StreamsPublisher(valkey.url, topic, 2, timeout_s=5.0, record_max_bytes=1_000)
    consumer = StreamsConsumer(far_away, topic, 2)

    def publish() -> None:
        number = 0
        while not stop.is_set():
            for result in publisher.publish_many([Record(b"%d" % number, b"value")] * 20):
                assert not isinstance(result, LogUnavailable)
            number += 1

    publisher.start()
    thread = threading.Thread(target=publish)
    # Without a bound the poll would end with the publisher.
    ending = threading.Timer(10.0, stop.set)
    thread.start()
    ending.start()
    try:
        assert consumer.poll(100_000_000, 0.25)
        assert not stop.is_set()
    finally:
        stop.set()
        ending.cancel()
        thread.join(10)
        publisher.close(1.0)
        consumer.close(1.0)
