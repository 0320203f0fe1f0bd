"""What was wrong with kafka-python and needs no broker to be shown."""

import socket

from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaTCPTransport

from todo_api.core.command_log.kafka_repairs import repair


def test_what_comes_just_before_the_end_of_a_connection_is_read() -> None:
    repair()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(b"the last word")
        theirs.close()
        net = NetworkSelector()
        transport = KafkaTCPTransport(net, ours)
        assert transport._sock_recv() == (b"the last word", None)
        data, error = transport._sock_recv()
        assert data == b""
        assert error is not None
        net.close()
