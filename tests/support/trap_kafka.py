"""A real Kafka with a second listener whose advertised address nobody can reach: the classic listener trap."""

from pathlib import Path

from scripts.stack.kafka import LocalKafka
from scripts.stack.server import free_port

# Nothing listens there.
ADVERTISED = "127.0.0.1:1"


class TrapKafka(LocalKafka):
    """A ``LocalKafka`` that answers on ``trap_bootstrap`` too, and there says that it is at ``ADVERTISED``."""

    def __init__(self, folder: Path, port: int, controller_port: int) -> None:
        super().__init__(folder, port, controller_port)
        self.trap_bootstrap = f"127.0.0.1:{free_port()}"

    def prepare(self) -> None:
        super().prepare()
        # Of two equal names the later counts.
        with self._properties.open("a") as properties:
            properties.write(
                f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller_port},"
                f"TRAP://{self.trap_bootstrap}\n"
                f"advertised.listeners=PLAINTEXT://{self.bootstrap},TRAP://{ADVERTISED}\n"
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TRAP:PLAINTEXT\n"
            )
