"""Settings: the environment, read once, into one frozen value.

Names and defaults as in the README's table of settings. ``.env`` of the working directory is loaded if
present; the real environment wins. Below the composition roots nobody reads the environment.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values

from config.kafka_access import MECHANISMS, PROTOCOLS, access_problems

Role = Literal["api", "worker", "relay", "tool"]

SECRET_MIN_BYTES: Final = 32
# APPSEC: long enough, and in every tutorial.
FAMOUS_SECRETS: Final = frozenset(
    {
        "a-string-secret-at-least-256-bits-long",
        "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
        "your-256-bit-secret-your-256-bit-secret",
        "your-secret-key-here-your-secret-key-here",
        "change-me-change-me-change-me-change-me",
        "changemechangemechangemechangeme",
        "secretsecretsecretsecretsecretsecret",
        "supersecretsupersecretsupersecretsupersecret",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    }
)
# The least that an address of this family holds on any of our platforms.
SOCKET_PATH_MAX_BYTES: Final = 103
_HMAC: Final = frozenset({"HS256", "HS384", "HS512"})
_ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class SettingsError(Exception):
    """One or more settings are missing or wrong. The message names each, with the fix, and shows no secret."""


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            # PostgreSQL's may name several hosts, each with a port.
            are_ports_good = "," in parts.netloc or parts.port != 0
        except ValueError:
            are_ports_good = False
        if not are_ports_good or parts.scheme not in schemes or "\0" in text:
            raise ValueError(
                f"must be a URL beginning with {' or '.join(s + '://' for s in schemes)}, its port from 1 to 65535"
            )
        return text

    return parse


def _brokers(text: str) -> tuple[str, ...]:
    brokers = tuple(part.strip() for part in text.split(",") if part.strip())
    found = [re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[^\s:/,]+):([0-9]{1,5})", broker) for broker in brokers]
    if not found or not all(each and 0 < int(each[1]) < 65536 for each in found):
        raise ValueError("must be host:port, several separated by commas")
    return brokers


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse


def _socket_path(text: str) -> str:
    if not text.startswith("/") or "\0" in text or len(os.fsencode(text)) > SOCKET_PATH_MAX_BYTES:
        raise ValueError(f"must be an absolute path of at most {SOCKET_PATH_MAX_BYTES} bytes")
    return text


def _kafka_client(text: str) -> str:
    client = _one_of("kafka-python", "librdkafka")(text)
    if client == "librdkafka" and find_spec("confluent_kafka") is None:
        raise ValueError("needs an extra: pip install 'todo-api[librdkafka]'")
    return client


def _some_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        if not set(names) <= set(choices):
            raise ValueError(f"must be any of {', '.join(choices)}, separated by commas")
        return names

    return parse


def _topic(text: str) -> str:
    # Kafka's own rule, less the 5 characters that ".dlq" needs.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,244}", text) or text in {".", ".."}:
        raise ValueError("must be 1 to 244 of A-Z a-z 0-9 . _ -")
    return text


def _algorithms(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names or not set(names) <= _HMAC | _ASYMMETRIC:
        raise ValueError(f"must be some of {', '.join(sorted(_HMAC | _ASYMMETRIC))}, separated by commas")
    # APPSEC: a public key must never be usable as an HMAC secret.
    if set(names) & _HMAC and set(names) & _ASYMMETRIC:
        raise ValueError("must not mix HS* with public-key algorithms")
    return names


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    # As browsers send it: lower case, no path, no default port. APPSEC: never "null", which any sandboxed page sends.
    if origins != ("*",) and not all(
        re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", origin) for origin in origins
    ):
        raise ValueError(
            "must be * or origins as browsers send them (https://app.example), separated by commas"
        )
    return origins


def _text(text: str) -> str:
    return text


def _setting(
    env: str, doc: str, parse: Callable[[str], Any], default: str | None = None, *, secret: bool = False
) -> Any:
    metadata = {"env": env, "doc": doc, "parse": parse, "default": default, "secret": secret}
    return field(repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, parsed. Fields without a default are None unless the role needs them."""

    http_port: int = _setting("HTTP_PORT", "Port the API listens on", _integer(1, 65535), "8080")
    admin_port: int | None = _setting(
        "ADMIN_PORT",
        "Second port of the API, for `/metrics`, `/status`, `/version` and probes; the first then has no figures",
        _integer(1, 65535),
    )
    database_url: str = _setting(
        "DATABASE_URL", "PostgreSQL, `postgres://user:password@host:5432/name`", _url("postgres", "postgresql"),
        secret=True,
    )  # fmt: skip
    db_pool_size: int = _setting(
        "DB_POOL_SIZE", "PostgreSQL connections of one API instance, divided among its processes",
        _integer(1, 10_000), "100",
    )  # fmt: skip
    redis_url: str = _setting(
        "REDIS_URL", "Redis or Valkey, `redis://` or `rediss://`", _url("redis", "rediss", "unix"),
        "redis://localhost:6379/0", secret=True,
    )  # fmt: skip
    redis_pool_size: int = _setting(
        "REDIS_POOL_SIZE", "Redis connections of one API instance, divided among its processes",
        _integer(1, 100_000), "500",
    )  # fmt: skip
    cache_ttl_sec: int = _setting(
        "CACHE_TTL_SEC", "Life of a page in Redis, and how long an old page may be served while every store is away",
        _integer(1, 86_400), "300",
    )  # fmt: skip
    kafka_brokers: tuple[str, ...] = _setting(
        "KAFKA_BROKERS", "Kafka brokers, `host:port`, separated by commas", _brokers, "localhost:9092"
    )
    kafka_todo_topic: str = _setting("KAFKA_TODO_TOPIC", "Topic of the commands", _topic, "todo-commands")
    kafka_partitions: int = _setting(
        "KAFKA_PARTITIONS",
        "Partitions of that topic; never change it on a live topic",
        _integer(1, 1024),
        "16",
    )
    kafka_client: Literal["kafka-python", "librdkafka"] = _setting(
        "KAFKA_CLIENT", "`kafka-python`, or `librdkafka`: several times cheaper, needs the extra of that name",
        _kafka_client, "kafka-python",
    )  # fmt: skip
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _setting(
        "KAFKA_SECURITY_PROTOCOL",
        "`PLAINTEXT`, `SSL` (TLS), `SASL_PLAINTEXT` (a user), `SASL_SSL` (both)",
        _one_of(*PROTOCOLS),
        "PLAINTEXT",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = _setting(
        "KAFKA_SASL_MECHANISM",
        "How the user logs in: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`",
        _one_of(*MECHANISMS),
    )
    kafka_sasl_username: str | None = _setting("KAFKA_SASL_USERNAME", "User at Kafka", _text)
    kafka_sasl_password: str | None = _setting(
        "KAFKA_SASL_PASSWORD", "Password of that user", _text, secret=True
    )
    kafka_ssl_ca_file: str | None = _setting(
        "KAFKA_SSL_CA_FILE",
        "PEM file of the authorities that may sign the brokers' certificates; the system's when unset",
        _text,
    )
    kafka_ssl_cert_file: str | None = _setting(
        "KAFKA_SSL_CERT_FILE", "PEM file of our certificate, for brokers that ask for one", _text
    )
    kafka_ssl_key_file: str | None = _setting(
        "KAFKA_SSL_KEY_FILE", "PEM file of the key of that certificate, without a password", _text
    )
    jwt_secret: str | None = _setting(
        "JWT_SECRET",
        f"Secret that verifies HS256 tokens, at least {SECRET_MIN_BYTES} bytes",
        _text,
        secret=True,
    )
    jwt_algorithms: tuple[str, ...] = _setting(
        "JWT_ALGORITHMS", "Accepted signature algorithms", _algorithms, "HS256"
    )
    jwt_audience: str | None = _setting("JWT_AUDIENCE", "Required `aud`; not checked when unset", _text)
    jwt_issuer: str | None = _setting("JWT_ISSUER", "Required `iss`; not checked when unset", _text)
    jwt_jwks_url: str | None = _setting(
        "JWT_JWKS_URL", "Where public keys are fetched, instead of `JWT_SECRET`", _url("https", "http")
    )
    cors_allow_origins: tuple[str, ...] = _setting(
        "CORS_ALLOW_ORIGINS",
        "Origins whose web pages may use the API, separated by commas, or `*`; none when unset",
        _origins,
    )
    command_log: Literal["kafka", "streams"] = _setting(
        "COMMAND_LOG", "`kafka`, or `streams` for Valkey Streams on `REDIS_URL`", _one_of("kafka", "streams"),
        "kafka",
    )  # fmt: skip
    publisher_socket: str | None = _setting(
        "PUBLISHER_SOCKET",
        "Socket of the relay on this machine; API processes append through it",
        _socket_path,
    )
    ready_requires: tuple[str, ...] = _setting(
        "READY_REQUIRES",
        "What `/ready` insists on: any of `pages` (this process can answer them), `postgres`, `redis`, `log`",
        _some_of("pages", "postgres", "redis", "log"), "pages",
    )  # fmt: skip
    list_max: int = _setting(
        "LIST_MAX", "Most todos in one `GET /todos` without a limit", _integer(1, 1_000_000), "50000"
    )
    cache_poll_ms: int = _setting(
        "CACHE_POLL_MS", "How often each API process asks Redis for the current generation", _integer(5, 10_000),
        "50",
    )  # fmt: skip
    page_table_max: int = _setting(
        "PAGE_TABLE_MAX", "Most pages kept in the memory of one API process", _integer(1, 100_000), "256"
    )
    page_table_bytes: int = _setting(
        "PAGE_TABLE_BYTES", "Most bytes of pages kept in the memory of one API process",
        _integer(1_000_000, 100_000_000_000), "67108864",
    )  # fmt: skip
    web_concurrency: int = _setting(
        "WEB_CONCURRENCY", "API processes; 0 takes one a core", _integer(0, 1024), "0"
    )
    worker_batch_max: int = _setting(
        "WORKER_BATCH_MAX", "Most commands the worker applies in one transaction", _integer(1, 50_000), "2000"
    )
    dlq_limit: int = _setting(
        "DLQ_LIMIT",
        "Dead letters in a row after which a partition stops, with an alarm",
        _integer(1, 1_000_000),
        "100",
    )
    idempotency_hours: int = _setting(
        "IDEMPOTENCY_HOURS", "How long at least an `Idempotency-Key` is remembered", _integer(1, 720), "24"
    )
    worker_metrics_port: int | None = _setting(
        "WORKER_METRICS_PORT",
        "Port on which the worker answers Prometheus, at `/metrics`",
        _integer(1, 65535),
    )
    relay_metrics_port: int | None = _setting(
        "RELAY_METRICS_PORT",
        "Port on which the relay answers Prometheus, at `/metrics`",
        _integer(1, 65535),
    )
    server_timing: str = _setting(
        "SERVER_TIMING",
        "`on`: answers tell how long they took, in `Server-Timing`; a write costs more then",
        _one_of("off", "on"),
        "off",
    )
    otel_exporter_otlp_endpoint: str | None = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OpenTelemetry collector that gets spans, OTLP over HTTP; needs the extra `otel`",
        _url("http", "https"),
    )  # fmt: skip
    log_level: str = _setting(
        "LOG_LEVEL",
        "`debug`, `info`, `warning` or `error`",
        _one_of("debug", "info", "warning", "error"),
        "info",
    )
    log_format: str = _setting(
        "LOG_FORMAT", "`json` (a line each) or `console`", _one_of("json", "console"), "json"
    )

    @property
    def processes(self) -> int:
        """How many API processes one instance runs."""
        return self.web_concurrency or os.cpu_count() or 1

    @property
    def kafka_security(self) -> dict[str, Any]:
        """How to reach the brokers, in the words of the command log's ``KafkaSecurity``."""
        return {
            "protocol": self.kafka_security_protocol,
            "mechanism": self.kafka_sasl_mechanism,
            "username": self.kafka_sasl_username,
            "password": self.kafka_sasl_password,
            "ca_file": self.kafka_ssl_ca_file,
            "cert_file": self.kafka_ssl_cert_file,
            "key_file": self.kafka_ssl_key_file,
        }

    def shown(self) -> dict[str, str]:
        """Return every setting by its environment name, with secrets replaced by ``***``."""
        return {
            spec.metadata["env"]: "***" if spec.metadata["secret"] and value is not None else _show(value)
            for spec in fields(self)
            for value in [getattr(self, spec.name)]
        }


def _show(value: object) -> str:
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _required(role: Role) -> frozenset[str]:
    needed = {"api": {"DATABASE_URL"}, "worker": {"DATABASE_URL"}, "relay": {"PUBLISHER_SOCKET"}}
    return frozenset(needed.get(role, ()))


def environment() -> dict[str, str]:
    """Return ``.env`` of the working directory (if there is one) overlaid with the process environment."""
    from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return from_file | dict(os.environ)


def load_settings(role: Role, env: Mapping[str, str] | None = None) -> Settings:
    """Read and check every setting that ``role`` uses.

    ``env`` defaults to ``environment()``. An empty value counts as not set. Raises SettingsError naming
    everything that is missing or wrong in one message.
    """
    env = environment() if env is None else env
    values: dict[str, Any] = {}
    problems: list[str] = []
    for spec in fields(Settings):
        name, text = spec.metadata["env"], env.get(spec.metadata["env"], "")
        text = text or spec.metadata["default"] or ""
        values[spec.name] = None
        if not text:
            if name in _required(role):
                problems.append(f"{name} is not set ({spec.metadata['doc']})")
            continue
        try:
            values[spec.name] = spec.metadata["parse"](text)
        except ValueError as ex:
            # A wrong value is shown so that it can be recognised, unless it may hold a password.
            shown = "" if spec.metadata["secret"] else f", is {text[:80]!r}"
            problems.append(f"{name} {ex}{shown}")
    settings = Settings(**values)
    if not any(problem.startswith("KAFKA_S") for problem in problems):
        by_name = {spec.metadata["env"]: values[spec.name] for spec in fields(Settings)}
        problems += access_problems(by_name)
    if role == "api":
        problems += token_problems(settings)
        if settings.admin_port is not None and settings.admin_port == settings.http_port:
            problems.append("ADMIN_PORT must be another port than HTTP_PORT")
    if problems:
        raise SettingsError("settings:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return settings


def token_problems(settings: Settings) -> list[str]:
    """Say what keeps the API from verifying tokens safely with these settings; empty when nothing does."""
    secret, algorithms = settings.jwt_secret, settings.jwt_algorithms or ("HS256",)
    symmetric = set(algorithms) <= _HMAC
    if settings.jwt_jwks_url is not None:
        return [
            "JWT_ALGORITHMS must name public-key algorithms (RS256, ES256, ...) with JWT_JWKS_URL"
        ] * symmetric
    if not symmetric:
        return ["JWT_JWKS_URL is not set (public-key algorithms in JWT_ALGORITHMS need it)"]
    if secret is None:
        return ["JWT_SECRET is not set (make one: python -c 'import secrets; print(secrets.token_hex(32))')"]
    if len(secret.encode(errors="surrogateescape")) < SECRET_MIN_BYTES:
        return [f"JWT_SECRET must have at least {SECRET_MIN_BYTES} bytes"]
    if secret in FAMOUS_SECRETS or len(set(secret)) < 6:
        return ["JWT_SECRET is a well-known or trivial value; make a random one"]
    return []
