"""``todo doctor`` on real servers: each finding is provoked, and named with what mends it."""

import json
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import redis
from click.testing import CliRunner

from config.settings import load_settings
from scripts.cli import main
from scripts.doctor.secrets import check_secrets
from scripts.stack.server import free_port
from scripts.verbs.doctor import examine
from tests.support.certificates import Authority
from tests.support.commands import START, create
from tests.support.trap_kafka import ADVERTISED
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import make_publisher
from todo_api.core.command_log.topics import ensure_topics

SECRET = "0123456789abcdef0123456789abcdef-not-in-use"
KAFKA_PASSWORD = "doctor-password-4f2e"


class Doctor:
    """The ``todo`` command with the settings of a deployment that is well, until a test changes one."""

    def __init__(self, env):
        self.env = env

    def __call__(self, *arguments, exit_code=1, **changed):
        answer = CliRunner().invoke(main, ["doctor", *arguments], env=self.env | changed)
        assert answer.exit_code == exit_code, answer.output
        assert SECRET not in answer.output
        return answer.output

    def problems(self, *arguments, **changed):
        """Return the problems, by the name of their check: text and fix."""
        found = json.loads(self("--json", *arguments, **changed))
        assert found["ok"] is False
        problems = [check for check in found["checks"] if check["state"] == "problem"]
        assert all(check["fix"].endswith(".") for check in problems)
        return {check["name"]: f"{check['text']} {check['fix']}" for check in problems}

    def send(self, *commands):
        publisher = make_publisher(
            "streams",
            brokers=(),
            topic=self.env["KAFKA_TODO_TOPIC"],
            partitions=2,
            redis_url=self.env["REDIS_URL"],
        )
        for command in commands:
            publisher.publish(Record(command.key, command.encode()))
        publisher.close(1)

    def applied(self, next_offset, dead_in_a_row=0):
        """Say how far both partitions are applied."""
        with psycopg.connect(self.env["DATABASE_URL"]) as connection:
            connection.cursor().executemany(
                "insert into applied (log, partition, next_offset, dead_in_a_row) values (%s, %s, %s, %s)",
                [
                    (f"streams:{self.env['KAFKA_TODO_TOPIC']}", n, next_offset, dead_in_a_row)
                    for n in range(2)
                ],
            )


@pytest.fixture
def doctor(tmp_path, monkeypatch, database_url, redis_url):
    monkeypatch.chdir(tmp_path)
    return Doctor(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "COMMAND_LOG": "streams",
            "KAFKA_TODO_TOPIC": f"doctor-{uuid4().hex[:12]}",
            "KAFKA_PARTITIONS": "2",
            "JWT_SECRET": SECRET,
            "DB_POOL_SIZE": "10",
            "WEB_CONCURRENCY": "2",
        }
    )


@pytest.fixture
def on_kafka(doctor, kafka_bootstrap):
    doctor.env |= {"COMMAND_LOG": "kafka", "KAFKA_BROKERS": kafka_bootstrap}
    ensure_topics([kafka_bootstrap], doctor.env["KAFKA_TODO_TOPIC"], 2)
    return doctor


def set_server(redis_url, **settings):
    with redis.Redis.from_url(redis_url) as client:
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)


@pytest.fixture
def mended(redis_url):
    """Put the settings of the session's Valkey back after the test."""
    yield
    set_server(
        redis_url, maxmemory_policy="noeviction", maxmemory="0", appendfsync="always", maxclients="10000"
    )


def test_a_deployment_that_is_well_has_no_problem_and_exits_with_0(doctor):
    said = doctor(exit_code=0)
    assert "problem" not in said.lower()
    assert "0 command(s) wait" in said
    found = json.loads(doctor("--json", exit_code=0))
    assert found["ok"] is True
    assert {check["state"] for check in found["checks"]} == {"ok"}


def test_without_a_database_to_look_at_it_exits_with_2(doctor):
    assert "DATABASE_URL is not set" in doctor(exit_code=2, DATABASE_URL="")
    assert "KAFKA_PARTITIONS must be" in doctor(exit_code=2, KAFKA_PARTITIONS="many")


def test_servers_that_are_away_are_each_named_without_their_passwords(doctor):
    port = free_port()
    said = doctor.problems(
        DATABASE_URL=f"postgres://todo:hunter2@127.0.0.1:{port}/todo",
        REDIS_URL=f"redis://:hunter2@127.0.0.1:{port}",
    )
    assert f"127.0.0.1:{port}" in said["postgres"]
    assert "correct DATABASE_URL" in said["postgres"]
    assert f"127.0.0.1:{port}" in said["redis"]
    assert "correct REDIS_URL" in said["redis"]
    assert "hunter2" not in str(said)


def test_a_database_of_several_hosts_that_are_away_is_named_with_all_of_them(doctor):
    one, two = free_port(), free_port()
    url = f"postgres://todo:hunter2@127.0.0.1:{one},127.0.0.1:{two}/todo"
    problems = doctor.problems(DATABASE_URL=url)
    assert f"PostgreSQL at 127.0.0.1:{one}, 127.0.0.1:{two} does not serve us" in problems["postgres"]
    assert "hunter2" not in problems["postgres"]


def test_a_schema_that_is_not_there_says_which_migrations_and_the_verb(doctor, postgres):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database doctor_empty")
        try:
            said = doctor.problems(DATABASE_URL=postgres.database_url("doctor_empty"))
        finally:
            connection.execute("drop database doctor_empty with (force)")
    assert "0001.todos" in said["migrations"]
    assert "todo migrate" in said["migrations"]


def test_pools_larger_than_the_server_allows_are_named_with_a_size_that_fits(doctor):
    said = doctor.problems("--instances", "3", "--workers", "2", DB_POOL_SIZE="100")[
        "connections to PostgreSQL"
    ]
    # 150 of the stack's server, less 3 for superusers, less 2 workers, divided by 3.
    assert "may open 302 connections, PostgreSQL has 147" in said
    assert "Set DB_POOL_SIZE to 48 or less" in said
    fitting = doctor("--instances", "3", "--workers", "2", exit_code=0, DB_POOL_SIZE="48")
    assert "may open 146 connections" in fitting


def test_more_processes_than_connections_need_another_server_setting(doctor):
    said = doctor.problems("--instances", "100", DB_POOL_SIZE="1")["connections to PostgreSQL"]
    assert "Raise max_connections" in said


def test_clocks_that_differ_are_named_with_how_much(doctor):
    settings = load_settings("tool", doctor.env)
    found = list(examine(settings, instances=1, workers=1, max_age_s=1e6, clock=lambda: time.time() + 90))
    problems = {check.name: check.text for check in found if check.state == "problem"}
    assert set(problems) == {"clock of PostgreSQL", "clock of Redis"}
    assert all("s behind ours" in text for text in problems.values())
    assert all(text.split(" is ")[1].startswith(("89.", "90.")) for text in problems.values())


@pytest.mark.usefixtures("mended")
def test_a_log_that_may_be_evicted_or_is_not_fsynced_is_a_problem(doctor, redis_url):
    set_server(redis_url, maxmemory_policy="allkeys-lru", appendfsync="everysec", maxclients="500")
    said = doctor.problems(REDIS_POOL_SIZE="500")
    assert "allkeys-lru" in said["memory of Redis"]
    assert "noeviction" in said["memory of Redis"]
    assert "appendfsync everysec" in said["durability of the log"]
    assert "may open 504 connections, Redis takes 500" in said["connections to Redis"]


def test_the_oldest_command_that_waits_is_named_with_its_age(doctor):
    now = datetime.now(UTC)
    doctor.send(
        create(at_s=(now - START) / timedelta(seconds=1) - 7200), create(at_s=(now - START).total_seconds())
    )
    said = doctor.problems()["backlog"]
    assert "2 command(s) wait in the log, the oldest for 72" in said
    assert "todo worker" in said
    assert "2 command(s) wait" in doctor("--max-age", "8000", exit_code=0)


def test_a_partition_that_stopped_after_dead_letters_is_named(doctor):
    doctor.send(*(create(at_s=1e9) for _ in range(20)))
    doctor.applied(0, dead_in_a_row=100)
    assert "stopped at offset 0 after 100 dead letters in a row" in doctor.problems()["backlog"]


def test_a_log_that_is_not_the_databases_is_named(doctor):
    doctor.applied(5)
    said = doctor.problems()["backlog"]
    assert "ends at offset 0, and 5 were applied: it is another log" in said


def test_commands_that_were_cut_off_before_they_were_applied_are_named(doctor, redis_url):
    doctor.send(*(create(todo_id=None, at_s=1e9) for _ in range(20)))
    doctor.applied(0)
    topic = doctor.env["KAFKA_TODO_TOPIC"]
    with redis.Redis.from_url(redis_url) as client:
        client.xtrim(f"{{{topic}}}:0", minid="2-0", approximate=False)
    said = doctor.problems()["backlog"]
    assert "partition 0 begins at offset 2, and 0 is the next to apply" in said


def test_weak_secrets_are_named_and_not_shown(doctor, tmp_path):
    (tmp_path / ".env").write_text("")
    (tmp_path / ".env").chmod(0o644)
    settings = load_settings(
        "tool",
        doctor.env
        | {
            "JWT_SECRET": "changemechangemechangemechangeme",
            "DATABASE_URL": "postgres://todo:Password@db.invalid/todo",
            "REDIS_URL": "redis://cache.invalid/0",
        },
    )
    said = " ".join(check.text + check.fix for check in check_secrets(settings, tmp_path))
    assert "JWT_SECRET is a well-known or trivial value" in said
    assert "the password in DATABASE_URL is one that everybody tries first" in said
    assert "the password in REDIS_URL is missing" in said
    assert "chmod 600 .env" in said
    assert "Password@" not in said
    assert "mode 644" in doctor.problems()["secrets"]


def test_keys_that_are_fetched_in_the_clear_are_named(doctor):
    keys = {"JWT_SECRET": "", "JWT_ALGORITHMS": "RS256"}
    said = doctor.problems(JWT_JWKS_URL="http://keys.invalid/jwks", **keys)["secrets"]
    assert "JWT_JWKS_URL is http" in said
    doctor(exit_code=0, JWT_JWKS_URL="https://keys.invalid/jwks", **keys)


def test_a_password_of_kafka_that_others_try_or_read_is_named(doctor, tmp_path):
    user = {
        "KAFKA_BROKERS": "kafka.invalid:9092",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "todo",
        "KAFKA_SASL_PASSWORD": "Secret",
    }

    def said(**changed):
        settings = load_settings("tool", doctor.env | user | changed)
        return " ".join(check.text for check in check_secrets(settings, tmp_path) if check.state == "problem")

    assert "KAFKA_SASL_PASSWORD is one that everybody tries first" in said()
    assert "KAFKA_SASL_PASSWORD is sent in the clear" in said()
    assert "in the clear" not in said(KAFKA_SASL_MECHANISM="SCRAM-SHA-512")
    assert "in the clear" not in said(KAFKA_SECURITY_PROTOCOL="SASL_SSL")
    assert said(KAFKA_SASL_PASSWORD="5c1f0e", KAFKA_SECURITY_PROTOCOL="SASL_SSL") == ""
    assert said(KAFKA_BROKERS="[::1]:9092,127.0.0.1:9092") == ""


@pytest.mark.kafka
def test_a_deployment_on_kafka_that_is_well_has_no_problem(on_kafka):
    said = on_kafka(exit_code=0)
    assert f"{on_kafka.env['KAFKA_TODO_TOPIC']} has 2 partition(s)" in said
    assert "0 command(s) wait" in said


@pytest.mark.kafka
def test_a_broker_that_sends_its_clients_astray_is_named_with_both_addresses(on_kafka, kafka):
    said = on_kafka.problems(KAFKA_BROKERS=kafka.trap_bootstrap)["kafka"]
    assert f"{kafka.trap_bootstrap} answers, but sends clients on to {ADVERTISED}, which does not" in said
    assert "advertised.listeners" in said


@pytest.mark.kafka
def test_topics_that_are_missing_or_have_other_partitions_are_named(on_kafka):
    assert "there is no topic nowhere" in on_kafka.problems(KAFKA_TODO_TOPIC="nowhere")["topics"]
    said = on_kafka.problems(KAFKA_PARTITIONS="16")["topics"]
    assert "has 2 partition(s), the settings say 16" in said
    assert "Set KAFKA_PARTITIONS to 2" in said


@pytest.mark.kafka
def test_a_broker_that_is_away_is_named_and_the_others_are_used(on_kafka, kafka_bootstrap):
    gone = f"127.0.0.1:{free_port()}"
    assert f"no connection to {gone}" in on_kafka.problems(KAFKA_BROKERS=f"{gone},{kafka_bootstrap}")["kafka"]
    assert f"no connection to {gone}" in on_kafka.problems(KAFKA_BROKERS=gone)["kafka"]


@pytest.mark.kafka
@pytest.mark.usefixtures("mended")
def test_a_cache_that_fills_up_and_evicts_nothing_is_a_problem_beside_kafka(on_kafka, redis_url):
    set_server(redis_url, maxmemory="100000000")
    assert "allkeys-lru" in on_kafka.problems()["memory of Redis"]


@pytest.mark.kafka
def test_something_that_takes_connections_and_is_no_kafka_is_named(on_kafka, valkey):
    port = valkey.url.rsplit(":", 1)[1].split("/")[0]
    assert "does not speak to us" in on_kafka.problems(KAFKA_BROKERS=f"127.0.0.1:{port}")["kafka"]


@pytest.fixture
def secured(on_kafka, kafka):
    """The same over TLS, as a user."""
    kafka.make_user("doctor", KAFKA_PASSWORD)
    on_kafka.env |= {
        "KAFKA_BROKERS": kafka.scram,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": "doctor",
        "KAFKA_SASL_PASSWORD": KAFKA_PASSWORD,
        "KAFKA_SSL_CA_FILE": str(kafka.authority.file),
    }
    return on_kafka


@pytest.mark.kafka
def test_a_deployment_with_users_and_certificates_that_is_well_has_no_problem(secured):
    said = secured(exit_code=0)
    assert f"{secured.env['KAFKA_TODO_TOPIC']} has 2 partition(s)" in said
    assert "0 command(s) wait" in said
    assert KAFKA_PASSWORD not in said


@pytest.mark.kafka
def test_credentials_that_the_broker_refuses_are_named_and_not_shown(secured):
    said = secured.problems(KAFKA_SASL_PASSWORD="wrong-1b2c")["kafka"]
    assert "the broker refuses the credentials" in said
    assert "Correct KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD" in said
    assert "wrong-1b2c" not in said


@pytest.mark.kafka
def test_certificates_that_are_not_trusted_are_named_on_either_side(secured, kafka, tmp_path):
    stranger = Authority(tmp_path / "stranger", "stranger")
    said = secured.problems(KAFKA_SSL_CA_FILE=str(stranger.file))["kafka"]
    assert "the certificate of the broker is not to be trusted" in said
    assert "Set KAFKA_SSL_CA_FILE" in said
    nobody = {f"KAFKA_SASL_{name}": "" for name in ("MECHANISM", "USERNAME", "PASSWORD")}
    said = secured.problems(KAFKA_BROKERS=kafka.mutual, KAFKA_SECURITY_PROTOCOL="SSL", **nobody)["kafka"]
    assert "the broker does not accept our certificate, or that we have none" in said
    assert "Set KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE" in said


@pytest.mark.kafka
def test_tls_where_there_is_none_and_none_where_there_is_are_named(on_kafka, secured, kafka, kafka_bootstrap):
    said = secured.problems(KAFKA_BROKERS=kafka_bootstrap)["kafka"]
    assert "no TLS with the broker" in said
    assert "set KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SASL_PLAINTEXT" in said
    nothing = {name: "" for name in secured.env if name.startswith(("KAFKA_SASL", "KAFKA_SSL", "KAFKA_SEC"))}
    said = secured.problems(**nothing)["kafka"]
    assert "does not speak to us, because it speaks TLS" in said
    assert "Set KAFKA_SECURITY_PROTOCOL to SSL" in said
