"""The verbs of ``todo`` that work on a database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from click.testing import CliRunner

from scripts.cli import main
from todo_api.core.migrations import migrate


@pytest.fixture
def todo(tmp_path, monkeypatch, database_url):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        answer = CliRunner().invoke(main, arguments, env={"DATABASE_URL": database_url})
        assert answer.exit_code == 0, answer.output
        return answer.output

    return call


@pytest.fixture
def query(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield lambda statement: connection.execute(statement).fetchone()


def generation(query):
    return query("select coalesce(sum(next_offset), 0) from applied")[0]


def test_seeding_inserts_that_many_and_moves_the_generation_on(todo, query):
    todo("seed", "--count", "250", "--user", "ann")
    assert query("select count(*), count(distinct id), min(user_id), max(user_id) from todos") == (
        250,
        250,
        "ann",
        "ann",
    )
    assert query("select count(distinct source_offset), max(source_offset) from todos") == (250, 249)
    assert generation(query) == 250


def test_seeding_again_inserts_only_what_is_missing(todo, query):
    todo("seed", "--count", "100")
    query(
        "with gone as (delete from todos where title = 'Seed todo 00042' returning 1) select count(*) from gone"
    )
    output = todo("seed", "--count", "120")
    assert "21 todos of seed-user inserted, 99 were there already" in output
    assert query("select count(*) from todos") == (120,)
    assert generation(query) == 121


def test_seeded_todos_have_one_order(todo, query):
    todo("seed", "--count", "100")
    assert query("select title from todos order by created_at desc, id desc limit 1") == ("Seed todo 00099",)
    assert query("select count(distinct created_at), max(created_at) - min(created_at) from todos") == (
        100,
        timedelta(milliseconds=99),
    )


def test_two_users_have_todos_of_their_own(todo, query):
    todo("seed", "--count", "10", "--user", "ann")
    todo("seed", "--count", "10", "--user", "bob")
    assert query("select count(*) from todos where user_id = 'bob'") == (10,)


@pytest.mark.parametrize(
    ("progress", "lines"), [("plain", 11), ("none", 1), ("auto", 11)], ids=["plain", "none", "no terminal"]
)
def test_progress_is_plain_lines_where_there_is_no_terminal(todo, progress, lines):
    output = todo("seed", "--count", "1000", "--progress", progress)
    assert len(output.splitlines()) == lines
    assert "\x1b" not in output


def test_a_bar_is_shown_when_asked_for(todo):
    assert "Seeding" in todo("seed", "--count", "1000", "--progress", "bar")


@pytest.mark.parametrize("verb", ["seed", "migrate"])
def test_a_database_that_is_away_is_one_message_without_the_password(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    env = {"DATABASE_URL": "postgresql://todo:hunter2@127.0.0.1:1/todo"}
    answer = CliRunner().invoke(main, [verb], env=env)
    assert answer.exit_code == 1
    assert "Error: " in answer.output
    assert "hunter2" not in answer.output
    assert not isinstance(answer.exception, psycopg.Error)


def test_migrating_says_what_it_did_and_that_nothing_is_left(todo):
    assert "nothing to do" in todo("migrate")


def test_a_new_epoch_takes_the_place_of_the_old(todo, query):
    (before,) = query("select id from epoch")
    output = todo("migrate", "--new-epoch")
    (after,) = query("select id from epoch")
    assert after != before
    assert f"new epoch {after}" in output


@pytest.fixture
def empty_database_url(postgres):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database empty_for_migrate")
        yield postgres.database_url("empty_for_migrate")
        connection.execute("drop database empty_for_migrate with (force)")


def test_an_empty_database_is_migrated(tmp_path, monkeypatch, empty_database_url):
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(main, ["migrate"], env={"DATABASE_URL": empty_database_url})
    second = CliRunner().invoke(main, ["migrate"], env={"DATABASE_URL": empty_database_url})
    assert "applied 0001" in first.output
    assert "nothing to do" in second.output


def test_of_several_that_migrate_at_once_one_does_it_and_none_waits_for_ever(empty_database_url):
    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(migrate, empty_database_url) for _ in range(3)]
        applied = [future.result(50) for future in done]
    assert sorted(map(bool, applied)) == [False, False, True]
