"""How to reach Kafka's brokers: in the clear or over TLS, as nobody or as a user; and why they do not let us in."""

import ssl
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from todo_api.core.errors import LogUnavailable

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Kind = Literal["credentials", "certificate", "own certificate", "tls"]

_MEANING: Final[dict[Kind, str]] = {
    "credentials": "the broker refuses the credentials",
    "certificate": "the certificate of the broker is not to be trusted",
    "own certificate": "the broker does not accept our certificate, or that we have none",
    "tls": "no TLS with the broker",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """What a client needs to know. Files are PEM; without ``ca_file`` the certificates of the system are trusted."""

    protocol: SecurityProtocol = "PLAINTEXT"
    mechanism: SaslMechanism | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @property
    def has_tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    def tls_context(self) -> ssl.SSLContext:
        """Read the files, and return what verifies the broker by chain and name. Raises OSError, ssl.SSLError too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(self.ca_file)
        if self.cert_file is not None:
            # Without a password OpenSSL would ask for one, at the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        return context


IN_THE_CLEAR: Final = KafkaSecurity()


class Refusal(NamedTuple):
    """Why a broker does not let us in; ``said`` are the client's words. Nothing that waiting alone would mend."""

    kind: Kind
    said: str

    def __str__(self) -> str:
        return f"{_MEANING[self.kind]}: {self.said}"


class Refused(LogUnavailable):
    """No broker lets us in, for the reason that ``refusal`` gives."""

    def __init__(self, brokers: str, refusal: Refusal) -> None:
        super().__init__(f"{brokers}: {refusal}")
        self.refusal = refusal
