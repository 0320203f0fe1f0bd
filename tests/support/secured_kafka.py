"""The tests' Kafka with further listeners: SCRAM over TLS, PLAIN in the clear, certificates on both sides."""

from contextlib import closing
from pathlib import Path

from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from scripts.stack.server import free_port
from tests.support.certificates import Authority
from tests.support.trap_kafka import TrapKafka
from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.command_log.topics import connect_admin

PLAIN_USER = "plain-user"
PLAIN_PASSWORD = "plain-password-5c1f"

_PROPERTIES = """\
listeners={listeners},SCRAM://{scram},PLAIN://{plain},MUTUAL://{mutual}
advertised.listeners={advertised},SCRAM://{scram},PLAIN://{plain},MUTUAL://{mutual}
listener.security.protocol.map={protocols},SCRAM:SASL_SSL,PLAIN:SASL_PLAINTEXT,MUTUAL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.mutual.ssl.client.auth=required
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.plain.sasl.enabled.mechanisms=PLAIN
listener.name.plain.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
"""


class SecuredKafka(TrapKafka):
    """A ``TrapKafka`` that listens at ``scram``, ``plain`` and ``mutual`` too, each ``host:port``."""

    def __init__(self, folder: Path, port: int, controller_port: int) -> None:
        super().__init__(folder, port, controller_port)
        self.scram, self.plain, self.mutual = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.authority = Authority(folder / "certificates", "authority")
        """Of the broker's certificate, and of those that it takes."""

    def prepare(self) -> None:
        super().prepare()
        pair = self.authority.issue("broker")
        keystore = pair.cert.with_name("keystore.pem")
        keystore.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
        # Of two equal names the later counts.
        written = dict(
            line.split("=", 1) for line in self._properties.read_text().splitlines() if "listener" in line
        )
        with self._properties.open("a") as properties:
            properties.write(
                _PROPERTIES.format(
                    listeners=written["listeners"],
                    advertised=written["advertised.listeners"],
                    protocols=written["listener.security.protocol.map"],
                    scram=self.scram,
                    plain=self.plain,
                    mutual=self.mutual,
                    keystore=keystore,
                    truststore=self.authority.file,
                    user=PLAIN_USER,
                    password=PLAIN_PASSWORD,
                )
            )

    def make_user(self, name: str, password: str) -> None:
        """Make a user of the listener ``scram``, or give it another password."""
        credential = UserScramCredentialUpsertion(
            name, ScramMechanism.SCRAM_SHA_512, password, iterations=4096
        )
        with closing(connect_admin([self.bootstrap], 10.0)) as admin:
            refused = admin.alter_user_scram_credentials([credential])
        assert refused == {name: None}, refused

    def as_scram_user(self, name: str, password: str) -> KafkaSecurity:
        return KafkaSecurity(
            protocol="SASL_SSL",
            mechanism="SCRAM-SHA-512",
            username=name,
            password=password,
            ca_file=str(self.authority.file),
        )
