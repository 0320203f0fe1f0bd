"""The topics on a real Kafka."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from click.testing import CliRunner
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.net.connection import KafkaConnection

from scripts.cli import main
from scripts.stack.server import free_port
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import make_dead_letter_publisher
from todo_api.core.command_log.topics import Topic, TopicUnusable, connect_admin, ensure_topics
from todo_api.core.errors import LogUnavailable, RecordTooLarge

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic():
    return f"test-{uuid4().hex[:12]}"


def test_missing_topics_are_made_and_existing_ones_left_alone(kafka_bootstrap, topic):
    assert ensure_topics([kafka_bootstrap], topic, 3) == [
        Topic(topic, 3, created=True),
        Topic(f"{topic}.dlq", 1, created=True),
    ]
    assert ensure_topics([kafka_bootstrap], topic, 3) == [
        Topic(topic, 3, created=False),
        Topic(f"{topic}.dlq", 1, created=False),
    ]


def test_retention_is_a_week_for_commands_and_a_month_for_dead_letters(kafka_bootstrap, topic):
    ensure_topics([kafka_bootstrap], topic, 1)
    day_ms = 24 * 60 * 60 * 1000
    with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        described = admin.describe_configs(
            [ConfigResource("TOPIC", name) for name in (topic, f"{topic}.dlq")]
        )["topic"]
    assert int(described[topic]["retention.ms"]["value"]) == 7 * day_ms
    assert int(described[f"{topic}.dlq"]["retention.ms"]["value"]) == 30 * day_ms


def test_another_number_of_partitions_is_refused_naming_both(kafka_bootstrap, topic):
    ensure_topics([kafka_bootstrap], topic, 3)
    with pytest.raises(TopicUnusable, match=f"{topic} has 3 partitions, the settings say 4"):
        ensure_topics([kafka_bootstrap], topic, 4)


def test_more_copies_than_brokers_are_refused(kafka_bootstrap, topic):
    with pytest.raises((TopicUnusable, LogUnavailable), match=r"(?i)replication"):
        ensure_topics([kafka_bootstrap], topic, 1, replication_factor=3)


def test_two_at_once_are_safe(kafka_bootstrap, topic):
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: ensure_topics([kafka_bootstrap], topic, 2), range(4)))
    for made in zip(*runs, strict=True):
        assert {found.partitions for found in made} <= {1, 2}
        assert sum(found.created for found in made) == 1


def test_a_connection_that_is_made_while_its_client_is_closed_is_closed_too(kafka_bootstrap, monkeypatch):
    admin = connect_admin([kafka_bootstrap], 10.0)
    making, losing, made = (threading.Event() for _ in range(3))
    sockets = []
    make, lose = KafkaConnection.connection_made, KafkaConnection.connection_lost

    def make_while_losing(connection, transport):
        making.set()
        assert losing.wait(10.0)
        sockets.append(transport._sock)
        make(connection, transport)
        made.set()

    def lose_after_making(connection, error):
        losing.set()
        assert made.wait(10.0)
        lose(connection, error)

    monkeypatch.setattr(KafkaConnection, "connection_made", make_while_losing)
    monkeypatch.setattr(KafkaConnection, "connection_lost", lose_after_making)
    (node,) = admin._manager.cluster.bootstrap_brokers()
    # A connection can be waited for; this one is only begun.
    admin._net.run(lambda: [admin._manager.get_connection(node.node_id)])
    assert making.wait(10.0)
    admin.close()
    assert [sock.fileno() for sock in sockets] == [-1]


def test_no_broker_is_said_in_time(topic):
    with pytest.raises(LogUnavailable, match="no Kafka broker answers"):
        ensure_topics([f"127.0.0.1:{free_port()}"], topic, 1, timeout_s=0.5)


def test_the_dead_letter_topic_takes_the_largest_message_and_why(kafka_bootstrap, topic):
    ensure_topics([kafka_bootstrap], topic, 1)
    publisher = make_dead_letter_publisher(
        "kafka", brokers=[kafka_bootstrap], topic=topic, redis_url="", timeout_s=10.0
    )
    publisher.start()
    try:
        headers = (("todo-reason", b"x" * 1_000),)
        assert publisher.publish(Record(b"key", b"x" * 1_048_500, headers)).offset == 0
        with pytest.raises(RecordTooLarge):
            publisher.publish(Record(b"key", b"x" * 3_000_000))
    finally:
        publisher.close(1.0)


def test_the_verb_says_what_it_did(kafka_bootstrap, topic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"KAFKA_BROKERS": kafka_bootstrap, "KAFKA_TODO_TOPIC": topic, "KAFKA_PARTITIONS": "2"}
    first = CliRunner().invoke(main, ["topics", "--replication-factor", "1"], env=env)
    assert (first.exit_code, first.output) == (
        0,
        f"created {topic} (2 partitions)\ncreated {topic}.dlq (1 partition)\n",
    )
    second = CliRunner().invoke(main, ["topics"], env=env)
    assert second.output == f"exists {topic} (2 partitions)\nexists {topic}.dlq (1 partition)\n"
    third = CliRunner().invoke(main, ["topics"], env=env | {"KAFKA_PARTITIONS": "3"})
    assert third.exit_code == 1
    assert f"topic {topic} has 2 partitions, the settings say 3" in third.output
