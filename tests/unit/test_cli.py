"""The ``todo`` command, as far as it needs no server."""

import json
from importlib import import_module

import jwt
import pytest
from click.testing import CliRunner

from scripts.cli import VERBS, main

SECRET = "0123456789abcdef0123456789abcdef-not-in-use"


@pytest.fixture
def todo(tmp_path, monkeypatch):
    """Call ``todo`` in an empty folder, with none of our settings in the environment but those given."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, **settings):
        return CliRunner().invoke(main, arguments, env=settings)

    return call


def test_help_lists_every_verb(todo):
    answer = todo("--help")
    assert answer.exit_code == 0
    assert [line.split()[0] for line in answer.output.partition("Commands:\n")[2].splitlines()] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_says_of_a_verb_what_the_verb_says_of_itself(verb):
    command = getattr(import_module(f"scripts.verbs.{verb}"), verb)
    assert command.get_short_help_str(limit=200) == VERBS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_settings(todo, verb):
    assert todo(verb, "--help").exit_code == 0


def test_an_unknown_verb_is_refused(todo):
    answer = todo("dance")
    assert answer.exit_code == 2
    assert "No such command 'dance'" in answer.output


@pytest.mark.parametrize("verb", ["api", "worker"])
def test_bad_settings_are_one_message_and_exit_code_2(todo, verb):
    answer = todo(verb, KAFKA_PARTITIONS="none")
    assert answer.exit_code == 2
    assert "DATABASE_URL is not set" in answer.output
    assert "KAFKA_PARTITIONS must be a whole number" in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize("verb", ["migrate", "seed"])
def test_a_tool_without_a_database_says_what_is_missing(todo, verb):
    answer = todo(verb)
    assert answer.exit_code == 2
    assert "DATABASE_URL is not set" in answer.output


def test_config_shows_every_setting_and_no_secret(todo):
    answer = todo("config", DATABASE_URL="postgres://user:hunter2@db/x", JWT_SECRET=SECRET, HTTP_PORT="8123")
    assert answer.exit_code == 0
    assert "HTTP_PORT=8123" in answer.output.splitlines()
    assert "DATABASE_URL=***" in answer.output.splitlines()
    assert "hunter2" not in answer.output
    assert SECRET not in answer.output


def test_config_with_bad_settings_names_them_and_exits_with_1(todo):
    answer = todo("config", "--role", "worker", HTTP_PORT="many")
    assert answer.exit_code == 1
    assert "HTTP_PORT" in answer.output
    assert "DATABASE_URL" in answer.output


def test_a_token_is_of_the_user_for_the_hours_with_what_the_api_checks(todo):
    answer = todo("token", "--user", "ann", "--hours", "2", JWT_SECRET=SECRET, JWT_AUDIENCE="todos")
    assert answer.exit_code == 0
    claims = jwt.decode(answer.output.strip(), SECRET, algorithms=["HS256"], audience="todos")
    assert claims["sub"] == "ann"
    assert claims["exp"] - claims["iat"] == 2 * 3600


def test_a_token_is_signed_with_the_secret_of_the_stack_when_none_is_set(todo, tmp_path):
    stack = tmp_path / "elsewhere"
    stack.mkdir()
    (stack / "environment.json").write_text(json.dumps({"JWT_SECRET": SECRET}))
    answer = todo("token", "--data-dir", str(stack))
    assert jwt.decode(answer.output.strip(), SECRET, algorithms=["HS256"])["sub"] == "demo"


@pytest.mark.parametrize("settings", [{}, {"COMMAND_LOG": ""}])
def test_topics_are_for_kafka_alone_and_an_empty_value_hides_nothing(todo, tmp_path, settings):
    (tmp_path / ".todo").mkdir()
    (tmp_path / ".todo" / "environment.json").write_text(json.dumps({"COMMAND_LOG": "streams"}))
    answer = todo("topics", **settings)
    assert answer.exit_code == 0
    assert "nothing to do" in answer.output


def test_the_secret_of_the_environment_comes_before_that_of_the_stack(todo, tmp_path):
    (tmp_path / ".todo").mkdir()
    (tmp_path / ".todo" / "environment.json").write_text(json.dumps({"JWT_SECRET": SECRET[::-1]}))
    answer = todo("token", JWT_SECRET=SECRET)
    assert jwt.decode(answer.output.strip(), SECRET, algorithms=["HS256"])["sub"] == "demo"


@pytest.mark.parametrize("secret", ["", "short", "x" * 32, "your-256-bit-secret-your-256-bit-secret"])
def test_without_a_usable_secret_there_is_no_token(todo, secret):
    answer = todo("token", JWT_SECRET=secret)
    assert answer.exit_code == 2
    assert "JWT_SECRET" in answer.output


def test_a_token_for_nobody_is_refused(todo):
    assert todo("token", "--user", "", JWT_SECRET=SECRET).exit_code == 2


def test_env_files_count(todo, tmp_path):
    (tmp_path / ".env").write_text(f"JWT_SECRET={SECRET}\n")
    assert todo("token").exit_code == 0
