"""A Kafka with users and certificates, through both clients: let in, kept out with the reason, let in after all."""

import logging
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from click.testing import CliRunner

from scripts.cli import main
from scripts.stack.embedded import takes_writes
from scripts.stack.server import wait_until
from tests.support.certificates import Authority
from tests.support.commands import create
from tests.support.deployment import INHERITED, Deployment
from tests.support.secured_kafka import PLAIN_PASSWORD, PLAIN_USER
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import (
    make_consumer,
    make_dead_letter_publisher,
    make_publisher,
    make_relayed_publisher,
)
from todo_api.core.command_log.kafka_security import KafkaSecurity, Refused
from todo_api.core.command_log.librdkafka_publisher import LibrdkafkaPublisher
from todo_api.core.command_log.reader import make_reader
from todo_api.core.command_log.topics import addresses, ensure_topics
from todo_api.core.errors import LogUnavailable

pytestmark = pytest.mark.kafka

CLIENTS = ["kafka-python", "librdkafka"]
PASSWORD = "scram-password-77d0"
RECORD = Record(b"key", b"value")


class Way:
    """A listener and how to come in there."""

    def __init__(self, broker, security, topic):
        self.broker = broker
        self.security = security
        self.topic = topic

    def but(self, **changed):
        """The same with something wrong."""
        return Way(self.broker, replace(self.security, **changed), self.topic)

    @property
    def arguments(self):
        return {
            "brokers": [self.broker],
            "topic": self.topic,
            "redis_url": "",
            "security": self.security,
        }

    @property
    def env(self):
        """The same as settings."""
        security = self.security
        values = {
            "KAFKA_BROKERS": self.broker,
            "KAFKA_TODO_TOPIC": self.topic,
            "KAFKA_PARTITIONS": "2",
            "KAFKA_SECURITY_PROTOCOL": security.protocol,
            "KAFKA_SASL_MECHANISM": security.mechanism,
            "KAFKA_SASL_USERNAME": security.username,
            "KAFKA_SASL_PASSWORD": security.password,
            "KAFKA_SSL_CA_FILE": security.ca_file,
            "KAFKA_SSL_CERT_FILE": security.cert_file,
            "KAFKA_SSL_KEY_FILE": security.key_file,
        }
        return {name: value for name, value in values.items() if value is not None}

    @contextmanager
    def publisher(self, client, timeout_s=10.0):
        publisher = make_publisher(
            "kafka", partitions=2, kafka_client=client, timeout_s=timeout_s, **self.arguments
        )
        publisher.start()
        try:
            yield publisher
        finally:
            publisher.close(1.0)

    @contextmanager
    def consumer(self, client):
        consumer = make_consumer(
            "kafka",
            partitions=2,
            kafka_client=client,
            group=f"{self.topic}-{uuid4().hex[:6]}",
            **self.arguments,
        )
        try:
            yield consumer
        finally:
            consumer.close(1.0)


@pytest.fixture
def topic(kafka_bootstrap):
    name = f"test-{uuid4().hex[:12]}"
    ensure_topics([kafka_bootstrap], name, 2)
    return name


@pytest.fixture
def scram(kafka, topic):
    kafka.make_user("scram-user", PASSWORD)
    return Way(kafka.scram, kafka.as_scram_user("scram-user", PASSWORD), topic)


@pytest.fixture
def plain(kafka, topic):
    security = KafkaSecurity(
        protocol="SASL_PLAINTEXT", mechanism="PLAIN", username=PLAIN_USER, password=PLAIN_PASSWORD
    )
    return Way(kafka.plain, security, topic)


@pytest.fixture
def mutual(kafka, topic):
    ours = kafka.authority.issue("todo-api")
    security = KafkaSecurity(
        protocol="SSL",
        ca_file=str(kafka.authority.file),
        cert_file=str(ours.cert),
        key_file=str(ours.key),
    )
    return Way(kafka.mutual, security, topic)


@pytest.fixture
def stranger(tmp_path):
    """An authority that the broker knows nothing of."""
    return Authority(tmp_path, "stranger")


@pytest.fixture(params=["scram", "plain", "mutual"])
def way(request):
    return request.getfixturevalue(request.param)


def why_not(call):
    """Return the reason for which the log is unavailable, once the client knows of one."""
    said = []

    def is_said():
        try:
            call()
        except LogUnavailable as ex:
            said.append(str(ex))
        return bool(said) and any(word in said[-1] for word in ("credentials", "certificate", "TLS"))

    wait_until(is_said, 30.0, "a reason")
    return said[-1]


def goes(call):
    """Return what the call returns, or None while the log is unavailable."""
    try:
        return call()
    except LogUnavailable:
        return None


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_published_is_consumed(way, client):
    with way.publisher(client) as publisher, way.consumer(client) as consumer:
        position = publisher.publish(RECORD)
        publisher.probe()
        found = []

        def consumed():
            for messages in consumer.poll(10, 0.2).values():
                found.extend(messages)
            for partition in consumer.assignment():
                if not found:
                    consumer.seek(partition, 0)
            return found

        wait_until(consumed, 30.0, "the record")
        assert [(message.partition, message.value) for message in found] == [(position.partition, b"value")]
        assert consumer.end_offsets()[position.partition] == 1


def test_topics_are_made_and_dead_letters_written_read_and_cut(way):
    topic = f"test-{uuid4().hex[:12]}"
    assert [made.created for made in ensure_topics([way.broker], topic, 2, security=way.security)] == [
        True,
        True,
    ]
    assert addresses([way.broker], 10.0, way.security) == [way.broker]
    away = way.arguments | {"topic": topic}
    publisher = make_dead_letter_publisher("kafka", timeout_s=10.0, **away)
    publisher.start()
    try:
        publisher.publish(RECORD)
    finally:
        publisher.close(1.0)
    reader = make_reader("kafka", partitions=1, **away | {"topic": f"{topic}.dlq"})
    with closing(reader):
        assert [message.value for message in reader.read(0, 0, 1)] == [b"value"]
        reader.cut(0, 1)
        assert reader.bounds()[0] == (1, 1)


def kept_out(way, client):
    """Return what publishing, probing and consuming say."""
    with way.publisher(client, timeout_s=0.5) as publisher, way.consumer(client) as consumer:
        return [
            why_not(lambda: publisher.publish(RECORD)),
            why_not(publisher.probe),
            why_not(lambda: consumer.poll(10, 0.2)),
            why_not(consumer.end_offsets),
        ]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wrong_password_is_said_and_not_shown(scram, client, caplog):
    with caplog.at_level(logging.DEBUG, "todo_api"), caplog.at_level(logging.WARNING, "kafka"):
        for said in kept_out(scram.but(password="wrong-password-1b2c"), client):
            assert "the broker refuses the credentials" in said
    assert "wrong-password-1b2c" not in caplog.text
    assert scram.security.password not in repr(scram.security)


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_mechanism_that_the_listener_does_not_have_is_said(scram, client):
    for said in kept_out(scram.but(mechanism="PLAIN"), client):
        assert "the broker refuses the credentials" in said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("trusted", ["the system's", pytest.param("a stranger", marks=pytest.mark.slow)])
def test_a_broker_whose_certificate_nobody_vouches_for_is_not_trusted(scram, client, stranger, trusted):
    ca_file = None if trusted == "the system's" else str(stranger.file)
    for said in kept_out(scram.but(ca_file=ca_file), client):
        assert "the certificate of the broker is not to be trusted" in said


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_is_called_otherwise_is_not_trusted(scram, client):
    scram.broker = scram.broker.replace("127.0.0.1", "localhost")
    for said in kept_out(scram, client):
        assert "the certificate of the broker is not to be trusted" in said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "is_missing", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["none", "a stranger's"]
)
def test_a_broker_that_wants_another_certificate_of_ours_is_heard(mutual, client, stranger, is_missing):
    pair = stranger.issue("todo-api")
    cert_file, key_file = (None, None) if is_missing else (str(pair.cert), str(pair.key))
    for said in kept_out(mutual.but(cert_file=cert_file, key_file=key_file), client):
        assert "the broker does not accept our certificate, or that we have none" in said


@pytest.mark.parametrize("client", CLIENTS)
def test_a_listener_without_tls_is_said(scram, plain, client):
    scram.broker = plain.broker
    for said in kept_out(scram, client):
        assert "no TLS with the broker" in said


@pytest.mark.parametrize("client", CLIENTS)
def test_a_user_that_is_made_later_is_let_in(kafka, scram, client):
    late = scram.but(username=f"late,a=3D={uuid4().hex[:6]}", password="late-password-90ab")
    with late.publisher(client, timeout_s=0.5) as publisher, late.consumer(client) as consumer:
        assert "credentials" in why_not(lambda: publisher.publish(RECORD))
        assert "credentials" in why_not(lambda: consumer.poll(10, 0.2))
        kafka.make_user(late.security.username, late.security.password)

        wait_until(lambda: goes(lambda: publisher.publish(RECORD)), 30.0, "published")
        wait_until(
            lambda: goes(lambda: consumer.poll(10, 0.2) or consumer.assignment()), 30.0, "in the group"
        )


@pytest.mark.parametrize("client", CLIENTS)
def test_the_service_starts_kept_out_and_works_once_it_is_let_in(
    kafka, scram, client, database_url, redis_url, tmp_path
):
    late = scram.but(username=f"late-{uuid4().hex[:6]}", password="late-password-90ab")
    secret = "0123456789abcdef-0123456789abcdef"
    env = late.env | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "JWT_SECRET": secret,
        "KAFKA_CLIENT": client,
    }
    with Deployment(tmp_path, env, secret) as running:

        def written():
            return running.client.request("POST", "/todos", {"title": "milk"}).status

        assert written() == 503
        why = "the broker refuses the credentials"
        wait_until(lambda: why in running.gunicorn.output and why in running.worker.output, 30.0, "why")
        # It can be read, but is not what `todo up` would call up.
        assert running.client.get("/ready").status == 200
        assert not takes_writes(running.gunicorn.port)
        kafka.make_user(late.security.username, late.security.password)
        wait_until(lambda: written() == 202, 30.0, "accepted")
        wait_until(lambda: takes_writes(running.gunicorn.port), 30.0, "it is up")
        wait_until(lambda: [todo["title"] for todo in running.client.get("/todos").json()], 30.0, "applied")
        check_dead_letters(late, client, env)
        assert late.security.password not in running.output


def check_dead_letters(way, client, env):
    """The worker writes one, and the tool lists it and puts it back, which makes it one again."""
    command = create()
    with way.publisher(client) as publisher:
        publisher.publish(Record(command.key, command.encode().replace(b'"v":1', b'"v":99')))

    def todo(*arguments):
        return CliRunner().invoke(main, ["dlq", *arguments], env=env)

    wait_until(lambda: "unknown version 99" in todo("list", "--json").output, 30.0, "a dead letter")
    replayed = todo("replay", "0")
    assert (replayed.exit_code, "dead letter again" in replayed.output) == (1, True), replayed.output


@pytest.mark.parametrize("client", CLIENTS)
def test_the_relay_logs_in_for_all_processes(scram, client, tmp_path):
    path = tmp_path / "relay.sock"
    env = INHERITED | scram.env | {"PUBLISHER_SOCKET": str(path), "KAFKA_CLIENT": client}
    publisher = make_relayed_publisher("kafka", topic=scram.topic, socket=path)
    publisher.start()
    with (tmp_path / "relay.out").open("wb") as output:
        relay = subprocess.Popen(
            [sys.executable, "-m", "todo_api.relay"], cwd=tmp_path, env=env, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: goes(lambda: publisher.publish(RECORD)), 30.0, "published")
    finally:
        publisher.close(1.0)
        relay.terminate()
        assert relay.wait(20.0) == 0
    assert PASSWORD not in (tmp_path / "relay.out").read_text()


def test_certificates_that_become_unusable_are_waited_out(kafka, mutual, tmp_path):
    ours = tmp_path / "ours.crt"
    good = kafka.authority.issue("todo-api")
    ours.write_text("not yet")
    broken = mutual.but(cert_file=str(ours), key_file=str(good.key))
    with broken.publisher("kafka-python", timeout_s=0.5) as publisher:
        assert "the certificates cannot be used" in why_not(lambda: publisher.publish(RECORD))
        ours.write_bytes(good.cert.read_bytes())

        wait_until(lambda: goes(lambda: publisher.publish(RECORD)), 30.0, "published")


def test_a_handshake_that_is_never_answered_is_given_up(mutual):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20.0)
        mutual.broker = f"127.0.0.1:{silent.getsockname()[1]}"
        with mutual.publisher("kafka-python"):
            for connection in [silent.accept()[0], silent.accept()[0]]:
                connection.close()


def test_a_producer_that_cannot_read_its_certificates_any_more_stays(kafka, mutual, tmp_path):
    authority = tmp_path / "authority.pem"
    authority.write_bytes(kafka.authority.file.read_bytes())
    changing = mutual.but(ca_file=str(authority))
    with changing.publisher("librdkafka") as publisher:
        assert isinstance(publisher, LibrdkafkaPublisher)
        publisher.publish(RECORD)
        before = publisher._producer
        authority.write_text("not yet")
        publisher._replace(before)
        assert publisher._producer is before
        publisher.publish(RECORD)
        authority.write_bytes(kafka.authority.file.read_bytes())
        publisher._replace(before)
        assert publisher._producer is not before
        publisher.publish(RECORD)


def test_tools_say_it_too(scram, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(main, ["topics"], env=scram.env)
    assert (made.exit_code, made.output.splitlines()[0]) == (0, f"exists {scram.topic} (2 partitions)")
    wrong = scram.but(password="wrong-password-1b2c")
    with pytest.raises(Refused, match="refuses the credentials"):
        ensure_topics([wrong.broker], wrong.topic, 2, security=wrong.security, timeout_s=2.0)
