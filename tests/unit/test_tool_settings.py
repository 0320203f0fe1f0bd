"""The tools work on the servers that the environment names, or on those of ``todo up``, and never on some of each."""

import json

import pytest

from scripts.tool_settings import tool_settings
from tests.support.api import SECRET

STACK = {
    "DATABASE_URL": "postgres://todo@127.0.0.1:5433/todo",
    "REDIS_URL": "redis://127.0.0.1:6380",
    "COMMAND_LOG": "streams",
    "PUBLISHER_SOCKET": "/stack/relay.sock",
    "JWT_SECRET": SECRET,
}


@pytest.fixture
def settings_with(tmp_path, monkeypatch):
    """Return what gives the settings of a tool where a stack has run, with these variables set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "environment.json").write_text(json.dumps(STACK))
    for name in (*STACK, "KAFKA_BROKERS"):
        monkeypatch.delenv(name, raising=False)

    def settings(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return tool_settings(tmp_path)

    return settings


def test_the_stack_is_used_where_nothing_else_is_named(settings_with):
    settings = settings_with()
    assert (settings.database_url, settings.command_log) == (STACK["DATABASE_URL"], "streams")


def test_whoever_names_a_database_names_all_servers(settings_with):
    settings = settings_with(
        DATABASE_URL="postgres://db/todo", KAFKA_BROKERS="kafka:9092", REDIS_URL="redis://cache"
    )
    assert (settings.database_url, settings.redis_url) == ("postgres://db/todo", "redis://cache")
    assert (settings.command_log, settings.kafka_brokers) == ("kafka", ("kafka:9092",))
    assert settings.publisher_socket is None


def test_the_secret_of_the_stack_still_signs_tokens(settings_with):
    assert settings_with(DATABASE_URL="postgres://db/todo").jwt_secret == SECRET


def test_the_stack_named_once_more_is_still_the_stack(settings_with):
    assert settings_with(DATABASE_URL=STACK["DATABASE_URL"]).command_log == "streams"
