"""``todo dlq`` on real logs and a real PostgreSQL: a worker that is too old makes the dead letters."""

import io
import json
import threading
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from rich.console import Console

from scripts.cli import main
from scripts.dead_letters import shown
from scripts.dead_letters.letters import DeadLetterLog
from scripts.dead_letters.replay import Replayer, _record
from scripts.stack.server import wait_until
from tests.support.commands import create, delete, keyed, update
from todo_api.core.command_log import Message, Record
from todo_api.core.command_log.connect import make_consumer, make_dead_letter_publisher, make_publisher
from todo_api.core.command_log.reader import make_reader
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.commands import decode
from todo_api.core.errors import InvalidCommand
from todo_worker import worker as worker_module
from todo_worker.applier import Applier
from todo_worker.dead_letters import HEADER_NAMES, DeadLetters
from todo_worker.telemetry import WorkerTelemetry
from todo_worker.worker import Worker

KINDS = ["streams", pytest.param("kafka", marks=pytest.mark.kafka)]
NEW = "of a newer version"


def old_decode(value):
    """What a worker does that does not know the newest commands."""
    command = decode(value)
    if NEW in (command.title or "", command.description or ""):
        raise InvalidCommand("unknown version 2, this worker knows 1")
    return command


class Rig:
    """A topic, a database, workers of two versions, and the ``todo`` command over them."""

    def __init__(self, kind, address, database_url, partitions):
        self.topic = f"dlq-{uuid4().hex[:12]}"
        self.where = {"brokers": [address], "topic": self.topic, "redis_url": address}
        self.kind, self.partitions, self.database_url = kind, partitions, database_url
        self.publisher = make_publisher(kind, partitions=partitions, **self.where)
        self.publisher.start()
        self.env = {
            "COMMAND_LOG": kind,
            "KAFKA_BROKERS": address if kind == "kafka" else "127.0.0.1:1",
            "REDIS_URL": "redis://127.0.0.1:1" if kind == "kafka" else address,
            "KAFKA_TODO_TOPIC": self.topic,
            "KAFKA_PARTITIONS": str(partitions),
            "DATABASE_URL": database_url,
        }

    def send(self, *commands):
        """Publish one after the other; return the positions."""
        return [
            self.publisher.publish(Record(each.key, each.encode(), (("trace", b"t1"),))) for each in commands
        ]

    def send_raw(self, key, value):
        return self.publisher.publish(Record(key, value))

    @contextmanager
    def working(self, group="workers"):
        consumer = make_consumer(
            self.kind, partitions=self.partitions, group=f"{self.topic}.{group}", **self.where
        )
        applier = Applier(self.database_url, log=consumer.log, idempotency_hours=24)
        publisher = make_dead_letter_publisher(self.kind, timeout_s=5, **self.where)
        publisher.start()
        letters = DeadLetters(publisher, log=consumer.log)
        telemetry = WorkerTelemetry(lambda _lags, _newest: None)
        worker = Worker(consumer, applier, letters, lambda *_: None, telemetry, batch_max=100, dlq_limit=50)
        stop = threading.Event()
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
            for part in (consumer, publisher):
                part.close(2)
            applier.close()
        assert not thread.is_alive()

    def pass_all(self, monkeypatch, *, old=True):
        """Let a worker read everything that is in the log; an old one dead-letters what is new."""
        reader = make_reader(self.kind, partitions=self.partitions, **self.where)
        end = sum(bounds.end for bounds in reader.bounds().values())
        reader.close()
        with monkeypatch.context() as patch:
            if old:
                patch.setattr(worker_module, "decode", old_decode)
            with self.working():
                wait_until(lambda: self.applied() == end, 30, "everything passed")

    def applied(self):
        return self.query("select coalesce(sum(next_offset), 0)::int from applied")[0][0]

    def query(self, statement):
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def titles(self):
        return [title for (title,) in self.query("select title from todos order by title")]

    def todo(self, *arguments, exit_code=0, **more):
        answer = CliRunner().invoke(main, ["dlq", *map(str, arguments)], env=self.env, **more)
        assert answer.exit_code == exit_code, answer.output
        return answer

    def listed(self):
        return [json.loads(line) for line in self.todo("list", "--json").stdout.splitlines()]


@pytest.fixture
def rig(tmp_path, monkeypatch, database_url, redis_url):
    monkeypatch.chdir(tmp_path)
    rig = Rig("streams", redis_url, database_url, partitions=2)
    yield rig
    rig.publisher.close(1)


@pytest.fixture(params=KINDS)
def any_rig(request, tmp_path, monkeypatch, database_url):
    monkeypatch.chdir(tmp_path)
    address = request.getfixturevalue("kafka_bootstrap" if request.param == "kafka" else "redis_url")
    rig = Rig(request.param, address, database_url, partitions=2)
    if request.param == "kafka":
        ensure_topics([address], rig.topic, 2)
    yield rig
    rig.publisher.close(1)


def test_dead_letters_are_listed_shown_replayed_once_and_purged(any_rig, monkeypatch):
    rig = any_rig
    assert rig.listed() == []
    good, new = create(title="good"), create(title=NEW, description="é")
    positions = rig.send(good, new)
    rubbish = rig.send_raw(b"key\x1b[31m", b"\xff\x00 rubbish")
    rig.pass_all(monkeypatch)

    letters = {
        letter["offset"]: letter for letter in rig.listed() if letter["partition"] == positions[1].partition
    }
    letter = letters[positions[1].offset]
    assert letter["key"] == str(new.todo_id)
    assert letter["log"] == f"{rig.kind}:{rig.topic}"
    assert letter["reason"].startswith("unknown version 2")
    assert letter["time"].endswith("+00:00")
    assert letter["bytes"] == len(new.key) + len(new.encode())
    assert letter["replayed_to"] is None
    at = letter["position"]
    (other,) = [each["position"] for each in rig.listed() if each["position"] != at]

    plain = rig.todo("list").stdout
    assert "\x1b" not in plain
    assert [line.split("\t")[1] for line in plain.splitlines()] == [
        f"{p.partition}/{p.offset}"
        for p in ((positions[1], rubbish) if at < other else (rubbish, positions[1]))
    ]
    full = json.loads(rig.todo("show", at, "--json").stdout)
    assert bytes.fromhex(full["value_hex"]) == new.encode()
    assert full["headers_hex"] == [["trace", b"t1".hex()]]
    assert rig.todo("show", other, "--raw").stdout_bytes == b"\xff\x00 rubbish"
    shown = rig.todo("show", other).stdout
    assert "ff 00 20 72" in shown
    assert "key\\x1b[31m" in shown
    assert "\x1b" not in shown

    with rig.working("new"):
        assert f"{at}: applied" in rig.todo("replay", at).stdout
    assert rig.titles() == sorted(["good", NEW])
    assert "replayed already" in rig.todo("replay", at, exit_code=1).stderr
    assert "dead letter again" in rig.todo("replay", "--all", exit_code=1).stderr
    assert {each["position"]: each["replayed_to"] is not None for each in rig.listed()} == {
        at: True,
        other: False,
    }
    assert rig.query("select version from todos where title <> 'good'") == [(1,)]

    assert (
        "2 dead letters, 1 of them never replayed"
        in rig.todo("purge", "--all", input="n\n", exit_code=1).output
    )
    assert len(rig.listed()) == 2
    first = min(at, other)
    rig.todo("purge", "--before", first + 1, "--yes")
    assert [each["position"] for each in rig.listed()] == [max(at, other)]
    rig.todo("purge", "--all", "--yes")
    assert rig.listed() == []
    assert "nothing to purge" in rig.todo("purge", "--all").output


def test_one_that_is_not_there_is_named(rig):
    assert "no dead letter at position 7" in rig.todo("show", 7, exit_code=1).output


def test_letters_of_one_todo_go_back_in_their_order_and_all_at_once(rig, monkeypatch):
    new = create(title=NEW)
    rig.send(new, update(new.todo_id, description=NEW), update(new.todo_id, description=NEW, completed=True))
    rig.pass_all(monkeypatch)
    assert "dead letter 0 of the same todo is older" in rig.todo("replay", 2, exit_code=1).stderr
    with rig.working():
        answer = rig.todo("replay", "--all")
    assert answer.stdout.count(": applied") == 3
    assert rig.query("select title, description, completed, version from todos") == [(NEW, NEW, True, 3)]
    assert "nothing to replay" in rig.todo("replay", "--all").stdout


def test_a_letter_behind_which_a_later_command_took_effect_is_refused(rig, monkeypatch):
    todo = create(title="first")
    rig.send(todo, update(todo.todo_id, title=NEW), update(todo.todo_id, title="last"))
    rig.pass_all(monkeypatch)
    answer = rig.todo("replay", 0, exit_code=1)
    assert "a later command for the same todo is in the log, at offset 2" in answer.stderr
    assert rig.titles() == ["last"]


def test_the_row_tells_of_a_later_command_when_the_log_was_cut_off(rig, monkeypatch):
    todo = create(title="first")
    (position, *_) = rig.send(todo, update(todo.todo_id, title=NEW), update(todo.todo_id, title="last"))
    rig.pass_all(monkeypatch)
    cut(rig, position.partition, 3)
    assert "has taken effect, that of offset 2" in rig.todo("replay", 0, exit_code=1).stderr


def test_an_update_goes_back_when_the_log_was_cut_off_and_the_row_shows_nothing_later(rig, monkeypatch):
    todo = create(title="first")
    (position, _) = rig.send(todo, update(todo.todo_id, title=NEW))
    rig.pass_all(monkeypatch)
    cut(rig, position.partition, 2)
    with rig.working():
        assert "applied" in rig.todo("replay", 0).stdout
    assert rig.titles() == [NEW]


def test_a_create_is_refused_when_what_followed_it_can_no_longer_be_seen(rig, monkeypatch):
    new = create(title=NEW)
    # Rejected, and forgotten after two days: nothing in PostgreSQL tells of this delete.
    (position, _) = rig.send(new, delete(new.todo_id))
    rig.pass_all(monkeypatch)
    assert "a later command for the same todo is in the log" in rig.todo("replay", 0, exit_code=1).stderr
    cut(rig, position.partition, 2)
    assert "can no longer be known" in rig.todo("replay", 0, exit_code=1).stderr
    assert rig.titles() == []


def test_a_command_that_still_waits_in_the_log_counts_too(rig, monkeypatch):
    todo = create(title="first")
    rig.send(todo, update(todo.todo_id, title=NEW))
    rig.pass_all(monkeypatch)
    rig.send(update(todo.todo_id, title="waiting"))
    assert "is in the log, at offset 2" in rig.todo("replay", 0, exit_code=1).stderr


def test_a_deleted_todo_and_another_users_are_refused_with_what_the_worker_would_say(rig, monkeypatch):
    todo, other = create(title="a"), create(title="b")
    rig.send(todo, delete(todo.todo_id), update(todo.todo_id, title=NEW), other)
    rig.send(update(other.todo_id, user="bob", title=NEW))
    rig.pass_all(monkeypatch)
    said = rig.todo("replay", "--all", exit_code=1).stderr
    assert "it would be rejected: no_such_todo" in said
    assert "it would be rejected: not_owner" in said


def test_a_key_that_is_not_the_todos_is_refused(rig, monkeypatch):
    rig.send_raw(b"another", create(title=NEW).encode())
    rig.pass_all(monkeypatch)
    assert "its key is not the id of its todo" in rig.todo("replay", 0, exit_code=1).stderr


def test_a_replay_whose_mark_was_lost_is_found_in_the_log(rig, monkeypatch):
    """Killed between the replay and the mark."""
    rig.send(create(title=NEW))
    rig.pass_all(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("scripts.verbs.dlq.mark_replayed", lambda *_: None)
        with rig.working():
            rig.todo("replay", 0)
    assert [each["replayed_to"] for each in rig.listed()] == [None]
    assert "replayed already: it is at offset 1 again" in rig.todo("replay", 0, exit_code=1).stderr


def test_a_replayed_letter_that_dies_again_can_be_replayed_again(rig, monkeypatch):
    rig.send(create(title=NEW))
    rig.pass_all(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "decode", old_decode)
        with rig.working():
            rig.todo("replay", 0)
    assert len([each for each in rig.listed() if each["replayed_to"] is None]) == 1
    with rig.working():
        assert rig.todo("replay", "--all").stdout.count(": applied") == 1
    assert rig.titles() == [NEW]


def test_a_letter_of_another_log_is_refused(rig):
    new = create(title=NEW)
    dead_letters = make_dead_letter_publisher("streams", timeout_s=1, **rig.where)
    message = Message(0, 0, new.key, new.encode())
    DeadLetters(dead_letters, log="kafka:elsewhere").write(message, "odd")
    dead_letters.close(1)
    assert "it is of kafka:elsewhere" in rig.todo("replay", 0, exit_code=1).stderr


@pytest.mark.parametrize("place", [(b"", b"5"), (b"0", b"9" * 5_000), (b"0", b"-1")])
def test_a_record_that_names_a_place_that_is_none_is_shown_as_no_workers(rig, place):
    values = dict.fromkeys(HEADER_NAMES, b"0") | {"todo-partition": place[0], "todo-offset": place[1]}
    dead_letters = make_dead_letter_publisher("streams", timeout_s=1, **rig.where)
    dead_letters.publish(Record(b"k", b"v", tuple(values.items())))
    dead_letters.publish(Record(b"", b"", (("todo-replayed", place[1]), ("todo-replayed-to", b"elsewhere"))))
    dead_letters.close(1)
    assert rig.listed()[0]["reason"] == "not written by a worker"


def test_a_record_that_no_worker_wrote_is_shown_and_refused(rig):
    dead_letters = make_dead_letter_publisher("streams", timeout_s=1, **rig.where)
    dead_letters.publish(Record(b"k", b"v", (("todo-offset", b"\xd9\xa1"),)))
    dead_letters.close(1)
    assert rig.listed()[0]["reason"] == "not written by a worker"
    assert "no worker wrote it" in rig.todo("replay", 0, exit_code=1).stderr


def test_only_old_letters_are_purged_by_age(rig, monkeypatch):
    rig.send(create(title=NEW))
    rig.pass_all(monkeypatch)
    assert "nothing to purge" in rig.todo("purge", "--older-than", "1d").stdout
    assert "1 dead letters thrown away" in rig.todo("purge", "--older-than", "0m", "--yes").stdout


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["replay", "1", "--all"], ["purge"], ["purge", "--all", "--before", "1"],
     ["purge", "--older-than", "soon"]],
)  # fmt: skip
def test_what_is_not_clear_is_refused(rig, arguments):
    rig.todo(*arguments, exit_code=2)


def test_a_log_that_is_away_is_one_message(rig):
    rig.env["REDIS_URL"] = "redis://127.0.0.1:1"
    answer = rig.todo("list", exit_code=1)
    assert answer.output.startswith("Error: ")
    assert "Traceback" not in answer.output


def test_on_a_terminal_the_list_is_a_table(rig, monkeypatch):
    rig.send_raw(b"[red]key", b"rubbish")
    rig.pass_all(monkeypatch)
    reader = make_reader("streams", partitions=1, **(rig.where | {"topic": f"{rig.topic}.dlq"}))
    output = io.StringIO()
    shown.print_table(DeadLetterLog(reader).letters(), Console(file=output, width=200))
    reader.close()
    assert "[red]key" in output.getvalue()
    assert "position" in output.getvalue()


def cut(rig, partition, before):
    reader = make_reader(rig.kind, partitions=rig.partitions, **rig.where)
    reader.cut(partition, before)
    reader.close()


def intrude(monkeypatch, send):
    """Let something arrive after all was looked at, just before a letter is replayed."""

    def record_and_intrude(message, version):
        send()
        return _record(message, version)

    monkeypatch.setattr("scripts.dead_letters.replay._record", record_and_intrude)


def test_a_command_that_arrives_during_the_replay_is_reported(rig, monkeypatch):
    new = create(title=NEW)
    rig.send(new)
    rig.pass_all(monkeypatch)

    intrude(monkeypatch, lambda: rig.send(update(new.todo_id, title="quick")))
    answer = rig.todo("replay", 0, exit_code=1)
    assert "arrived just before it, at offset 1" in answer.stderr
    assert rig.listed()[0]["replayed_to"] is not None


def test_an_update_that_another_command_overtakes_during_the_replay_is_rejected(any_rig, monkeypatch):
    todo = create(title="first")
    any_rig.send(todo, update(todo.todo_id, title=NEW))
    any_rig.pass_all(monkeypatch)
    intrude(monkeypatch, lambda: any_rig.send(update(todo.todo_id, title="quick")))
    with any_rig.working():
        answer = any_rig.todo("replay", 0, exit_code=1)
    assert "rejected: precondition_failed, after the command of offset 2 for the same todo" in answer.stderr
    assert any_rig.titles() == ["quick"]


def test_a_command_without_effect_holds_up_no_replay(rig, monkeypatch):
    todo = create(title="first")
    rig.send(todo, update(todo.todo_id, title=NEW))
    rig.pass_all(monkeypatch)
    intrude(monkeypatch, lambda: rig.send(update(todo.todo_id, title="quick", user="mallory")))
    with rig.working():
        assert "applied" in rig.todo("replay", 0).stdout
    assert rig.titles() == [NEW]


def test_a_command_with_an_idempotency_key_goes_back_as_it_was_and_is_reported(rig, monkeypatch):
    todo = create(title="first")
    late = keyed(update(todo.todo_id, title=NEW), "key")
    rig.send(todo, late)
    rig.pass_all(monkeypatch)
    intrude(monkeypatch, lambda: rig.send(update(todo.todo_id, title="quick")))
    with rig.working():
        assert "arrived just before it, at offset 2" in rig.todo("replay", 0, exit_code=1).stderr
        # Its client asks again, and it is the same request.
        rig.send(late)
        wait_until(lambda: rig.applied() == 5, 10, "applied")
    assert rig.query("select count(*) from rejected") == [(0,)]


def test_an_update_goes_back_without_a_condition_behind_one_that_no_worker_has_applied(rig, monkeypatch):
    todo = create(title="first")
    rig.send(todo, update(todo.todo_id, title=NEW), update(todo.todo_id, description=NEW))
    rig.pass_all(monkeypatch)
    monkeypatch.setitem(Replayer.__init__.__kwdefaults__, "apply_timeout_s", 0.0)
    assert rig.todo("replay", "--all").stdout.count("waiting for a worker") == 2
    rig.pass_all(monkeypatch, old=False)
    assert rig.query("select title, description from todos") == [(NEW, NEW)]


def test_a_condition_leaves_a_replayed_command_as_it_was_otherwise():
    value = b'{"v":1,"kind":"update","title":"\xc3\xa9","of_a_newer_version":[1,{"a":null}]}'
    message = Message(0, 7, b"key", value, (("trace", b"t1"),))
    record = _record(message, "tag")
    assert json.loads(record.value) == json.loads(value) | {"v": 2, "if_match": ["tag"]}
    assert _record(message, None).value == value
