from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from config.settings import FAMOUS_SECRETS, Settings, SettingsError, load_settings
from tests.support.certificates import Authority
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity

SECRET = "0123456789abcdef-0123456789abcdef"
API = {"DATABASE_URL": "postgres://app:hunter2@db/todo", "JWT_SECRET": SECRET}


def problems(env: dict[str, str], role: Any = "api") -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(role, env)
    return str(caught.value)


def test_the_defaults_are_those_of_the_reference() -> None:
    settings = load_settings("api", API)
    assert (settings.http_port, settings.db_pool_size, settings.redis_pool_size) == (8080, 100, 500)
    assert (settings.redis_url, settings.kafka_brokers) == ("redis://localhost:6379/0", ("localhost:9092",))
    assert (settings.kafka_todo_topic, settings.kafka_partitions) == ("todo-commands", 16)
    assert (settings.cache_ttl_sec, settings.command_log) == (300, "kafka")


def test_everything_wrong_is_named_in_one_message() -> None:
    message = problems(
        {"HTTP_PORT": "eighty", "KAFKA_BROKERS": "nowhere", "CACHE_TTL_SEC": "0", "LIST_MAX": "-1"}
    )
    for name in ("DATABASE_URL", "JWT_SECRET", "HTTP_PORT", "KAFKA_BROKERS", "CACHE_TTL_SEC", "LIST_MAX"):
        assert name in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "8080.0"),
        ("HTTP_PORT", "\u0668\u0660"),
        ("ADMIN_PORT", "0"),
        ("ADMIN_PORT", "8080"),
        ("DATABASE_URL", "mysql://db"),
        ("DATABASE_URL", "db:5432"),
        ("DATABASE_URL", "postgres://db:port/todo"),
        ("DATABASE_URL", "postgres://[::1/todo"),
        ("REDIS_URL", "http://redis"),
        ("REDIS_URL", "redis://redis:65536"),
        ("KAFKA_BROKERS", ","),
        ("KAFKA_BROKERS", "kafka"),
        ("KAFKA_BROKERS", "kafka:9092,kafka:99999"),
        ("KAFKA_BROKERS", "kafka:9092;other:9092"),
        ("KAFKA_CLIENT", "librdkafka2"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "SCRAM"),
        ("PUBLISHER_SOCKET", "relay.sock"),
        ("PUBLISHER_SOCKET", "/" + "s" * 103),
        ("KAFKA_TODO_TOPIC", "a topic"),
        ("KAFKA_TODO_TOPIC", ".."),
        ("KAFKA_TODO_TOPIC", "t" * 245),
        ("COMMAND_LOG", "rabbit"),
        ("READY_REQUIRES", "postgres,mysql"),
        ("JWT_ALGORITHMS", "none"),
        ("JWT_ALGORITHMS", "HS256,RS256"),
        ("JWT_ALGORITHMS", "RS256"),
        ("JWT_JWKS_URL", "ftp://keys"),
        ("LOG_LEVEL", "loud"),
        ("DB_POOL_SIZE", "1e3"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    assert (
        f"  - {name} " in problems(API | {name: value}).replace("JWT_JWKS_URL is", "JWT_ALGORITHMS is") + "\n"
    )


@pytest.mark.parametrize("secret", ["short", "x" * 31, "x" * 64, *sorted(FAMOUS_SECRETS)])
def test_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    message = problems(API | {"JWT_SECRET": secret})
    assert "JWT_SECRET" in message
    assert f"{secret!r}" not in message


def test_wrong_values_that_may_hold_a_password_are_not_shown() -> None:
    assert "hunter2" not in problems({"DATABASE_URL": "mysql://app:hunter2@db"})
    assert "hunter2" not in problems(API | {"REDIS_URL": "tcp://:hunter2@redis"})


def test_shown_settings_hide_secrets_and_show_the_rest() -> None:
    shown = load_settings("api", API).shown()
    assert (shown["DATABASE_URL"], shown["JWT_SECRET"], shown["HTTP_PORT"]) == ("***", "***", "8080")
    assert not any(secret in value for secret in ("hunter2", SECRET) for value in shown.values())


def test_a_database_may_have_several_hosts() -> None:
    url = "postgres://app:pw@one:5432,two:5433/todo"
    assert load_settings("worker", {"DATABASE_URL": url}).database_url == url


def test_an_empty_value_counts_as_not_set() -> None:
    assert load_settings("api", API | {"HTTP_PORT": ""}).http_port == 8080
    assert "DATABASE_URL" in problems(API | {"DATABASE_URL": ""})


def test_the_worker_needs_no_token_settings_and_tools_need_nothing() -> None:
    assert load_settings("worker", {"DATABASE_URL": API["DATABASE_URL"]}).jwt_secret is None
    assert load_settings("tool", {}).kafka_partitions == 16


def test_public_keys_replace_the_secret() -> None:
    env = {
        "DATABASE_URL": API["DATABASE_URL"],
        "JWT_JWKS_URL": "https://id/keys",
        "JWT_ALGORITHMS": "RS256,ES256",
    }
    assert load_settings("api", env).jwt_algorithms == ("RS256", "ES256")
    assert "JWT_ALGORITHMS" in problems({**env, "JWT_ALGORITHMS": "HS256"})


def test_dot_env_is_loaded_and_the_real_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={API['DATABASE_URL']}\nHTTP_PORT=9001\nLIST_MAX=7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HTTP_PORT", "9002")
    settings = load_settings("worker")
    assert (settings.http_port, settings.list_max, settings.database_url) == (9002, 7, API["DATABASE_URL"])


USER = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "todo",
    "KAFKA_SASL_PASSWORD": "hunter3",
}


def test_a_user_at_kafka_and_certificates_are_passed_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    ours = authority.issue("todo")
    files = {
        "KAFKA_SSL_CA_FILE": str(authority.file),
        "KAFKA_SSL_CERT_FILE": str(ours.cert),
        "KAFKA_SSL_KEY_FILE": str(ours.key),
    }
    assert KafkaSecurity(**load_settings("tool", USER | files).kafka_security) == KafkaSecurity(
        protocol="SASL_SSL",
        mechanism="SCRAM-SHA-512",
        username="todo",
        password="hunter3",
        ca_file=str(authority.file),
        cert_file=str(ours.cert),
        key_file=str(ours.key),
    )
    assert KafkaSecurity(**load_settings("tool", {}).kafka_security) == IN_THE_CLEAR


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"KAFKA_SASL_USERNAME": ""},
            "KAFKA_SASL_USERNAME is not set (KAFKA_SECURITY_PROTOCOL SASL_SSL needs it)",
        ),
        ({"KAFKA_SASL_PASSWORD": ""}, "KAFKA_SASL_PASSWORD is not set"),
        ({"KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_MECHANISM is not set"),
        (
            {"KAFKA_SECURITY_PROTOCOL": ""},
            "KAFKA_SASL_USERNAME needs KAFKA_SECURITY_PROTOCOL SASL_SSL or SASL_PLAINTEXT, is PLAINTEXT",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SASL_PASSWORD needs KAFKA_SECURITY_PROTOCOL SASL_SSL"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CA_FILE": "/ca.pem"},
            "KAFKA_SSL_CA_FILE needs KAFKA_SECURITY_PROTOCOL SSL or SASL_SSL, is SASL_PLAINTEXT",
        ),
        (
            {"KAFKA_SSL_CERT_FILE": "/ours.crt"},
            "KAFKA_SSL_KEY_FILE is not set (KAFKA_SSL_CERT_FILE needs its key)",
        ),
        ({"KAFKA_SSL_KEY_FILE": "/ours.key"}, "KAFKA_SSL_CERT_FILE is not set"),
        ({"KAFKA_SSL_CA_FILE": "/no/such.pem"}, "KAFKA_SSL_CA_FILE must be a file of PEM certificates"),
    ],
)
def test_settings_of_kafka_that_do_not_fit_together_are_refused_with_the_fix(
    changed: dict[str, str], said: str
) -> None:
    message = problems(USER | changed, "tool")
    assert f"  - {said}" in message
    assert "hunter3" not in message


def test_certificates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    ours, other = authority.issue("todo"), authority.issue("other")
    with_key = {"KAFKA_SSL_CERT_FILE": str(ours.cert), "KAFKA_SSL_KEY_FILE": str(ours.key)}
    assert load_settings("tool", USER | with_key).kafka_ssl_cert_file == str(ours.cert)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        serialization.load_pem_private_key(ours.key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter3"),
        )
    )
    for key in (other.key, ours.cert, locked, tmp_path / "nowhere"):
        message = problems(USER | with_key | {"KAFKA_SSL_KEY_FILE": str(key)}, "tool")
        assert "KAFKA_SSL_CERT_FILE must be a PEM certificate and KAFKA_SSL_KEY_FILE its key" in message
    assert "KAFKA_SSL_CA_FILE must be" in problems(USER | {"KAFKA_SSL_CA_FILE": str(ours.key)}, "tool")


def test_no_secret_is_in_what_settings_look_like() -> None:
    settings = load_settings("api", API | USER)
    assert settings.shown()["KAFKA_SASL_PASSWORD"] == "***"
    look = repr(settings) + repr(KafkaSecurity(**settings.kafka_security))
    assert "todo-commands" in look
    assert not any(secret in look for secret in ("hunter2", "hunter3", SECRET))


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load_settings("tool", {}).http_port = 1  # type: ignore[misc]


def test_every_setting_has_a_sentence_of_documentation() -> None:
    assert all(len(spec.metadata["doc"]) > 10 for spec in fields(Settings))
