"""The topics on Kafka: made on purpose, with the partitions the settings name, and never altered."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.errors import BrokerResponseError, KafkaError, RetriableError, TopicAlreadyExistsError

from todo_api.core.command_log.connect import (
    DEAD_LETTER_MAX_BYTES,
    DEAD_LETTERS_PARTITIONS,
    dead_letters_topic,
)
from todo_api.core.command_log.kafka_client import CLIENT_ID, network_client
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity, Refused
from todo_api.core.errors import LogUnavailable, TodoError

_DAY_MS: Final = 24 * 60 * 60 * 1000
COMMANDS_RETENTION_MS: Final = 7 * _DAY_MS
DEAD_LETTERS_RETENTION_MS: Final = 30 * _DAY_MS


class TopicUnusable(TodoError):
    """A topic is there with another number of partitions than the settings say, or the broker refuses to make it.

    Partitions of a live topic are never changed: a todo's commands would move to another partition and
    lose their order.
    """


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is now. ``created`` says that this call made it."""

    name: str
    partitions: int
    created: bool


def ensure_topics(
    brokers: Sequence[str],
    topic: str,
    partitions: int,
    *,
    replication_factor: int = -1,
    timeout_s: float = 30.0,
    security: KafkaSecurity = IN_THE_CLEAR,
) -> list[Topic]:
    """Make the topic of the commands and that of the dead letters unless they are there. Two at once are safe.

    ``replication_factor`` -1 is the broker's default. Raises LogUnavailable when no broker answers within
    ``timeout_s``, TopicUnusable when a topic is there with another number of partitions or may not be made.
    """
    deadline = time.monotonic() + timeout_s
    wanted = [
        (topic, partitions, {"retention.ms": COMMANDS_RETENTION_MS}),
        (
            dead_letters_topic(topic),
            DEAD_LETTERS_PARTITIONS,
            {"retention.ms": DEAD_LETTERS_RETENTION_MS, "max.message.bytes": DEAD_LETTER_MAX_BYTES},
        ),
    ]
    admin = connect_admin(brokers, timeout_s, security)
    try:
        return [
            _ensure(admin, name, count, configs, replication_factor, deadline)
            for name, count, configs in wanted
        ]
    except KafkaError as ex:
        raise LogUnavailable(f"topics of {topic}: {ex}") from ex
    finally:
        admin.close()


def addresses(brokers: Sequence[str], timeout_s: float, security: KafkaSecurity = IN_THE_CLEAR) -> list[str]:
    """Return the addresses to which the cluster sends its clients, ``host:port`` each, one a broker.

    Reachable or not: that is the caller's to find out. Raises LogUnavailable when none of ``brokers`` answers,
    Refused when they do not let us in.
    """
    admin = connect_admin(brokers, timeout_s, security)
    try:
        # The public call asks again, at one of these addresses.
        found = admin._manager.cluster.brokers()
        return sorted(f"{broker.host}:{broker.port}" for broker in found)
    finally:
        admin.close()


def partition_counts(
    brokers: Sequence[str], topics: Sequence[str], timeout_s: float, security: KafkaSecurity = IN_THE_CLEAR
) -> dict[str, int]:
    """Return how many partitions each topic has, 0 for one that does not exist. Raises LogUnavailable."""
    admin = connect_admin(brokers, timeout_s, security)
    try:
        return {topic: _partitions_of(admin, topic) for topic in topics}
    except KafkaError as ex:
        raise LogUnavailable(f"topics: {ex}") from ex
    finally:
        admin.close()


def connect_admin(brokers: Sequence[str], timeout_s: float, security: KafkaSecurity = IN_THE_CLEAR) -> Any:
    """Return an administrator that has met a broker. Close it.

    Raises LogUnavailable after ``timeout_s``, Refused when it is because no broker lets us in.
    """
    clients: list[Any] = []

    def client(**configs: Any) -> Any:
        clients.append(network_client(security, **configs))
        return clients[0]

    try:
        return KafkaAdminClient(
            bootstrap_servers=list(brokers),
            bootstrap_timeout_ms=int(timeout_s * 1000),
            request_timeout_ms=int(timeout_s * 1000),
            client_id=CLIENT_ID,
            kafka_client=client,
        )
    except KafkaError as ex:
        # The constructor waits for a broker and leaves its thread running when there is none.
        clients[0].close()
        clients[0]._net.stop()
        refusal = clients[0]._manager.refusal
        if refusal is not None:
            raise Refused(",".join(brokers), refusal) from ex
        raise LogUnavailable(f"no Kafka broker answers at {','.join(brokers)}: {ex}") from ex


def _ensure(
    admin: Any,
    name: str,
    partitions: int,
    configs: dict[str, int],
    replication_factor: int,
    deadline: float,
) -> Topic:
    created = False
    found = _partitions_of(admin, name)
    if found == 0:
        try:
            admin.create_topics(
                {
                    name: {
                        "num_partitions": partitions,
                        "replication_factor": replication_factor,
                        "configs": {key: str(value) for key, value in configs.items()},
                    }
                }
            )
            created = True
        except TopicAlreadyExistsError:
            pass  # Somebody else was quicker; theirs is checked below.
        except BrokerResponseError as ex:
            if isinstance(ex, RetriableError):
                raise LogUnavailable(f"topic {name}: {ex}") from ex
            raise TopicUnusable(f"the broker does not make topic {name}: {ex}") from ex
        while (found := _partitions_of(admin, name)) == 0:
            if time.monotonic() > deadline:
                raise LogUnavailable(f"topic {name} was made but does not show up")
            time.sleep(0.05)
    if found != partitions:
        raise TopicUnusable(f"topic {name} has {found} partitions, the settings say {partitions}")
    return Topic(name, found, created)


def _partitions_of(admin: Any, name: str) -> int:
    """Return how many partitions the topic has, 0 when there is no such topic."""
    return len(admin.describe_topics([name])[0]["partitions"])
