"""What publisher and consumer share of kafka-python 3.0.12: limits, and how to make and close its parts."""

import ssl
from collections.abc import Sequence
from typing import Any, Final

from kafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from todo_api.core.command_log.kafka_repairs import repair
from todo_api.core.command_log.kafka_security import KafkaSecurity, Refusal

# Protocol versions are negotiated with each broker and never go above this release. Named, so that making a
# client opens no connection: kafka-python would otherwise wait for a broker in the constructor.
API_VERSION: Final = (3, 0)
CLIENT_ID: Final = "todo-api"

# A broker that comes back is used within about this time; the default is half a minute.
_RECONNECT_MAX_MS: Final = 1_000
_CONNECT_TIMEOUT_MS: Final = 1_000

COMMON: Final[dict[str, Any]] = {
    "api_version": API_VERSION,
    "client_id": CLIENT_ID,
    "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
    "retry_backoff_ms": 100,
    "metrics_enabled": False,
}
_NO_LOGIN: Final = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)


class ConnectionManager(KafkaConnectionManager):  # type: ignore[misc]  # The library has no types.
    """The library's, which knows why brokers do not let us in: it would try again and again, and tell its log alone."""

    def __init__(self, net: Any, security: KafkaSecurity, **configs: Any) -> None:
        # Not through the constructors of consumer and administrator, which log what they are given.
        configs |= {
            "security_protocol": security.protocol,
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": _spelled(security),
            "sasl_plain_password": security.password,
            "socket_connection_setup_timeout_ms": _CONNECT_TIMEOUT_MS,
            "socket_connection_setup_timeout_max_ms": _CONNECT_TIMEOUT_MS * 2,
        }
        super().__init__(net, **configs)
        self._security = security
        self._refusal: Refusal | None = None

    @property
    def refusal(self) -> Refusal | None:
        """Why the last attempt was refused; None when it was not, or while any broker has let us in."""
        refusal = self._refusal
        if refusal is None or any(connection.connected for connection in list(self._conns.values())):
            return None
        return refusal

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        if self._security.has_tls:
            # Made for each connection: certificates are renewed while a process runs.
            try:
                self.config["ssl_context"] = self._security.tls_context()
            except OSError as ex:
                raise KafkaConnectionError(f"the certificates cannot be used: {ex}") from ex
        return await super()._build_transport(node, timeout_at=timeout_at)

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        await super()._connect(node, conn, **options)
        failure = conn.init_future.exception
        refusal = _refusal(failure)
        # A broker that refuses us hangs up at once, and its reason may be lost: then the one it gave before stands.
        if refusal is not None or failure is None or conn.parser is None:
            self._refusal = refusal


def _spelled(security: KafkaSecurity) -> str | None:
    """Return the user's name as SCRAM wants it (RFC 5802), which the library leaves to us."""
    name = security.username
    if name is None or security.mechanism == "PLAIN":
        return name
    return name.replace("=", "=3D").replace(",", "=2C")


def _refusal(failure: BaseException | None) -> Refusal | None:
    """Tell a connection that was refused from one that found nobody."""
    if isinstance(failure, _NO_LOGIN):
        return Refusal("credentials", str(failure))
    if not isinstance(failure, KafkaConnectionError):
        return None
    # What went wrong in the handshake; behind it, the alert of a broker that wanted another certificate of ours.
    cause = failure.__context__ or next(iter(failure.args), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refusal("certificate", str(cause))
    if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
        return Refusal("own certificate", str(cause))
    if isinstance(failure.__context__, OSError):
        return Refusal("tls", str(failure))
    return None


def network_client(security: KafkaSecurity, **configs: Any) -> Any:
    """Make the network client of a consumer or an administrator; for their option ``kafka_client``."""
    repair()
    net = NetworkSelector(**configs)
    return KafkaNetClient(net, ConnectionManager(net, security, **configs))


def connection_manager(
    brokers: Sequence[str], security: KafkaSecurity, *, timeout_s: float
) -> tuple[Any, Any]:
    """Make a loop, whose thread is not started, and what keeps connections and metadata on it. Opens nothing."""
    repair()
    loop = NetworkSelector(client_id=CLIENT_ID)
    manager = ConnectionManager(
        loop,
        security,
        bootstrap_servers=list(brokers),
        api_version=API_VERSION,
        client_id=CLIENT_ID,
        reconnect_backoff_max_ms=_RECONNECT_MAX_MS,
        request_timeout_ms=int(timeout_s * 1000),
    )
    manager.cluster.config["allow_auto_create_topics"] = False
    return loop, manager
