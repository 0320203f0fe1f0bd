from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from config.settings import FAMOUS_SECRETS, Settings, SettingsError, load_settings

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


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load_settings("tool", {}).http_port = 1  # type: ignore[misc]


def test_every_setting_has_a_sentence_of_documentation() -> None:
    assert all(len(spec.metadata["doc"]) > 10 for spec in fields(Settings))
