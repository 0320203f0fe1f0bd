"""Secrets: strong enough, not in a file that others read, not sent in the clear. Asks no server."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from config.settings import Settings, token_problems
from scripts.doctor.checked import Checked, is_local, ok, problem

_FAMOUS_PASSWORDS: Final = frozenset(
    {"", "admin", "change-me", "changeme", "password", "postgres", "redis", "secret", "todo"}
)


def check_secrets(settings: Settings, folder: Path) -> Iterator[Checked]:
    """Check what the settings hold, and ``.env`` in ``folder``. Shows no secret."""
    found = [
        *_token_secrets(settings),
        *_passwords(settings),
        *_kafka_password(settings),
        *_dotenv(folder / ".env"),
    ]
    yield from found
    if not found:
        yield ok("secrets", "the token secret and the passwords are not weak ones")


def _token_secrets(settings: Settings) -> Iterator[Checked]:
    for text in token_problems(settings):
        yield problem(
            "secrets", text, "Correct it in the environment of the API, which does not start like this."
        )
    keys = urlsplit(settings.jwt_jwks_url or "")
    if keys.scheme == "http" and not is_local(keys.hostname):
        yield problem(
            "secrets",
            "JWT_JWKS_URL is http: whoever is on the way can put keys of their own there, and sign any token",
            "Use the https URL of the identity provider.",
        )


def _passwords(settings: Settings) -> Iterator[Checked]:
    for name, url in (("DATABASE_URL", settings.database_url), ("REDIS_URL", settings.redis_url)):
        parts = urlsplit(url)
        if parts.scheme == "unix" or is_local(parts.hostname):
            continue
        password = unquote(parts.password or "")
        if password.lower() in _FAMOUS_PASSWORDS:
            yield problem(
                "secrets",
                f"the password in {name} is {'missing' if not password else 'one that everybody tries first'}",
                f"Give the user a random password (`openssl rand -hex 24`) and put it into {name}.",
            )


def _kafka_password(settings: Settings) -> Iterator[Checked]:
    password = settings.kafka_sasl_password
    if password is None or all(
        is_local(broker.rpartition(":")[0].strip("[]")) for broker in settings.kafka_brokers
    ):
        return
    if password.lower() in _FAMOUS_PASSWORDS:
        yield problem(
            "secrets",
            "KAFKA_SASL_PASSWORD is one that everybody tries first",
            "Give the user a random password (`openssl rand -hex 24`) and put it into KAFKA_SASL_PASSWORD.",
        )
    if settings.kafka_security_protocol == "SASL_PLAINTEXT" and settings.kafka_sasl_mechanism == "PLAIN":
        yield problem(
            "secrets",
            "KAFKA_SASL_PASSWORD is sent in the clear: whoever is on the way to the brokers can read it",
            "Use a listener with TLS and KAFKA_SECURITY_PROTOCOL SASL_SSL, or a mechanism of SCRAM.",
        )


def _dotenv(path: Path) -> Iterator[Checked]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield problem(
            "secrets",
            f"{path.name} can be read by other users of this machine (mode {stat.S_IMODE(mode):o})",
            f"Run `chmod 600 {path.name}`.",
        )
