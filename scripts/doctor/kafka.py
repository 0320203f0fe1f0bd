"""Kafka: there, sending clients to an address that they reach, with the topics as the settings say."""

from collections.abc import Iterator, Sequence
from typing import Final

from config.settings import Settings
from scripts.doctor.checked import Checked, ok, problem, skipped, speaks_tls, why_not_reachable
from todo_api.core.command_log.connect import DEAD_LETTERS_PARTITIONS, dead_letters_topic
from todo_api.core.command_log.kafka_security import KafkaSecurity, Kind, Refused
from todo_api.core.command_log.topics import addresses, partition_counts
from todo_api.core.errors import LogUnavailable

_TIMEOUT_S = 5.0
_TLS_MEANT: Final = (
    "Set KAFKA_SECURITY_PROTOCOL to SSL, or to SASL_SSL if it wants a user too; KAFKA_SSL_CA_FILE names the authority "
    "that signed its certificate."
)
_FIXES: Final[dict[Kind, str]] = {
    "credentials": "Correct KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM, or make that user at "
    "the broker; each listener has mechanisms of its own, or takes no users.",
    "certificate": "Set KAFKA_SSL_CA_FILE to the certificate of the authority that signed the broker's; in "
    "KAFKA_BROKERS use the names that are in it.",
    "own certificate": "Set KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE to a certificate of ours that this listener "
    "accepts.",
    "tls": "Take the port of a listener with TLS, or set KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SASL_PLAINTEXT.",
}


def check_kafka(settings: Settings) -> Iterator[Checked]:
    """Check all of it. Blocks at most a few seconds a broker. Raises nothing of the driver's."""
    reachable = []
    for broker in settings.kafka_brokers:
        reason = _why_not(broker)
        if reason is None:
            reachable.append(broker)
            continue
        yield problem(
            "kafka",
            f"no connection to {broker}: {reason}",
            "Start that broker, open the way to it, or correct KAFKA_BROKERS.",
        )
    try:
        yield from _check_cluster(settings, reachable)
    except Refused as ex:
        yield problem("kafka", str(ex), _FIXES[ex.refusal.kind])
        yield skipped("topics", "Kafka does not let us in")
    except LogUnavailable as ex:
        host, port = _address(reachable[0])
        is_tls = settings.kafka_security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and speaks_tls(
            host, port
        )
        yield problem(
            "kafka",
            f"{', '.join(reachable)} takes connections but does not speak to us"
            + (", because it speaks TLS" if is_tls else f": {ex}"),
            _TLS_MEANT
            if is_tls
            else "Look into the broker's log. A listener that wants a user (KAFKA_SECURITY_PROTOCOL) looks like this, "
            "and so does another program.",
        )
        yield skipped("topics", "Kafka does not answer")


def _check_cluster(settings: Settings, reachable: Sequence[str]) -> Iterator[Checked]:
    if not reachable:
        yield skipped("topics", "no broker answers")
        return
    security = KafkaSecurity(**settings.kafka_security)
    advertised = addresses(reachable, _TIMEOUT_S, security)
    trapped = {address: reason for address in advertised if (reason := _why_not(address)) is not None}
    for address, reason in trapped.items():
        yield problem(
            "kafka",
            f"{', '.join(reachable)} answers, but sends clients on to {address}, which does not: {reason}",
            f"Set advertised.listeners of that broker to an address that is reached from here, as {reachable[0]} is; "
            "clients in another network need a listener of their own.",
        )
    if trapped:
        yield skipped("topics", "not every broker is reached")
        return
    yield ok(
        "kafka", f"{', '.join(reachable)} answers, and so do the brokers it names: {', '.join(advertised)}"
    )
    yield from _check_topics(settings, reachable, security)


def _check_topics(settings: Settings, reachable: Sequence[str], security: KafkaSecurity) -> Iterator[Checked]:
    topic = settings.kafka_todo_topic
    wanted = {topic: settings.kafka_partitions, dead_letters_topic(topic): DEAD_LETTERS_PARTITIONS}
    for name, found in partition_counts(reachable, list(wanted), _TIMEOUT_S, security).items():
        if found == wanted[name]:
            yield ok("topics", f"{name} has {found} partition(s)")
        elif found == 0:
            yield problem("topics", f"there is no topic {name}", "Run `todo topics`.")
        else:
            yield problem(
                "topics",
                f"{name} has {found} partition(s), the settings say {wanted[name]}",
                f"Set KAFKA_PARTITIONS to {found}. Never change the partitions of a live topic: todos would lose the "
                "order of their commands."
                if name == topic
                else f"Delete {name} once its dead letters are dealt with, and run `todo topics`.",
            )


def _why_not(broker: str) -> str | None:
    return why_not_reachable(*_address(broker))


def _address(broker: str) -> tuple[str, int]:
    host, _, port = broker.rpartition(":")
    return host.strip("[]"), int(port)
