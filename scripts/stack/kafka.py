"""A real single-node Kafka (KRaft, no ZooKeeper) from the jars that Maven fetches once per version."""

import base64
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree

from scripts.stack.server import StackError

POM: Final = Path(__file__).with_name("pom.xml")
JAVA_MIN: Final = 17
_INSTALL: Final = "install it, on Debian: apt-get install openjdk-17-jre-headless maven"
_FETCH_TIMEOUT_S: Final = 600

# An ApiVersions request, version 0: length, api key 18, version, correlation id, no client id.
_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{also_listening}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{also_advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a kill the broker may not register again before its last session has expired: 9 s otherwise.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
# 128 MB of heap otherwise.
log.cleaner.dedupe.buffer.size=4194304
"""


def kafka_version() -> str:
    """Return the version of Kafka that the pom names."""
    version = ElementTree.parse(POM).getroot().findtext(".//{*}kafka.version")  # noqa: S314 our own file
    assert version is not None
    return version


class Proxied(NamedTuple):
    """A second way to a broker, through a proxy: the broker listens on ``port``, and clients that came by this way
    are told that it is at ``proxy_port``, so that they go on going through the proxy."""

    port: int
    proxy_port: int


class LocalKafka:
    """A ``LocalServer``: broker and controller in one process, on 127.0.0.1 only, data in ``folder``."""

    name = "kafka"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 20.0

    def __init__(
        self, folder: Path, port: int, controller_port: int, *, proxied: Proxied | None = None
    ) -> None:
        self._folder = folder
        self._port = port
        self._controller_port = controller_port
        self._proxied = proxied

    @property
    def bootstrap(self) -> str:
        """What goes into ``KAFKA_BROKERS``."""
        return f"127.0.0.1:{self._port}"

    def prepare(self) -> None:
        """Fetch the jars if this machine has none yet (about 45 MB, some seconds), write the configuration and
        an empty data folder. Raises StackError."""
        _check_java()
        fetch_jars(jars_folder())
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        proxied = self._proxied
        self._properties.write_text(
            _PROPERTIES.format(
                port=self._port,
                controller_port=self._controller_port,
                data=data,
                also_listening=f",PROXIED://127.0.0.1:{proxied.port}" if proxied else "",
                also_advertised=f",PROXIED://127.0.0.1:{proxied.proxy_port}" if proxied else "",
            )
        )
        meta = data / "meta.properties"
        if not meta.exists():
            # All that StorageTool would write for a static quorum, without another second of Java.
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            meta.write_text(f"version=1\ncluster.id={cluster_id}\nnode.id=1\n")

    def command(self) -> list[str]:
        return [
            "java",
            "-Xms64m",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            # PERF: the second compiler earns back in hours what it costs in the minutes that a broker lives here. At
            # 1,000 commands a second each took 388 and 306 us, without it 174 and 129; starting 4.9 s of CPU, and 3.9.
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-cp",
            f"{jars_folder()}/*",
            "kafka.Kafka",
            str(self._properties),
        ]

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        """Say whether the broker answers requests: it binds its port early, but answers only once it has
        joined its cluster."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as connection:
                connection.sendall(_API_VERSIONS)
                answer = connection.recv(10, socket.MSG_WAITALL)
        except OSError:
            return False
        # Correlation id 1, no error.
        return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"


def jars_folder() -> Path:
    """Return where the jars of this version are kept, for every checkout of this user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "todo-api" / f"kafka-{kafka_version()}"


def fetch_jars(folder: Path) -> None:
    """Fetch the jars into ``folder`` unless it is there. Two at once are safe. Raises StackError."""
    if folder.is_dir():
        return
    if shutil.which("mvn") is None:
        raise StackError(f"Maven (mvn) fetches Kafka and is not on the PATH; {_INSTALL}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        arguments = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        try:
            subprocess.run(
                [*arguments, f"-DoutputDirectory={scratch}/jars"],
                check=True,
                capture_output=True,
                text=True,
                timeout=_FETCH_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as ex:
            raise StackError(f"Maven did not fetch Kafka within {_FETCH_TIMEOUT_S} s.") from ex
        except subprocess.CalledProcessError as ex:
            raise StackError(f"Maven could not fetch Kafka:\n{(ex.stdout + ex.stderr)[-1500:]}") from ex
        try:
            # In place complete or not at all.
            (Path(scratch) / "jars").rename(folder)
        except OSError:
            # Somebody else was quicker.
            if not folder.is_dir():
                raise


def _check_java() -> None:
    if shutil.which("java") is None:
        raise StackError(
            f"Kafka needs Java {JAVA_MIN} or newer and there is no java on the PATH; {_INSTALL}."
        )
    banner = subprocess.run(["java", "-version"], check=False, capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < JAVA_MIN:
        first_line = banner.partition("\n")[0]
        raise StackError(f"Kafka needs Java {JAVA_MIN} or newer, found {first_line or 'none'}; {_INSTALL}.")
