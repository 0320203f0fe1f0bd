import json
import logging

import pytest

from config.logs import ConsoleFormatter, JsonFormatter, KafkaSeldom, log_config


def record(message, *arguments, exc_info=None, **extra):
    made = logging.LogRecord("todo_api.x", logging.WARNING, "x.py", 1, message, arguments, exc_info)
    vars(made).update(extra)
    return made


def json_line(made):
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert line.isascii()
    return json.loads(line)


def failure():
    try:
        raise ValueError("a\nb")
    except ValueError as ex:
        return type(ex), ex, ex.__traceback__


def test_a_json_line_has_time_level_logger_message_and_the_extra_fields():
    line = json_line(record("%s is away", "redis", event="dependency.down", dependency="redis"))
    assert line["ts"].endswith("+00:00")
    assert (line["level"], line["logger"], line["message"]) == ("warning", "todo_api.x", "redis is away")
    assert (line["event"], line["dependency"]) == ("dependency.down", "redis")
    assert set(line) == {"ts", "level", "logger", "pid", "message", "event", "dependency"}


def test_an_exception_is_one_line_with_its_traceback():
    assert "ValueError: a\nb" in json_line(record("failed", exc_info=failure()))["exception"]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"deep": [object()]}])
def test_a_field_json_cannot_hold_is_written_as_text(value):
    assert "field" in json_line(record("x", field=value))


def test_odd_text_does_not_break_the_line():
    assert json_line(record("a\nb\0\u2028\ud800"))["message"] == "a\nb\0\u2028\ud800"


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("cannot connect to postgres://user:hunter2@host:5432/name", "hunter2"),
        ("redis://:hunter2@host/0", "hunter2"),
        ("Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", "eyJ"),
        ("Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        ("host=x password=hunter2 user=y", "hunter2"),
    ],
)
def test_secrets_in_what_drivers_say_are_masked(formatter, text, secret):
    assert secret not in formatter.format(record(text))
    assert secret not in formatter.format(record("x", reason=text))
    assert "***" in formatter.format(record(text))


def test_a_url_without_a_secret_stays_readable():
    assert json_line(record("GET http://host:80/a@b?x=1:2"))["message"] == "GET http://host:80/a@b?x=1:2"


def test_a_console_line_reads_well():
    line = ConsoleFormatter().format(record("redis is away", dependency="redis", exc_info=failure()))
    first, *rest = line.split("\n")
    assert first.endswith("WARNING todo_api.x: redis is away dependency='redis'")
    assert rest[0].startswith("Traceback")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_everything_goes_to_stdout_through_one_handler(log_format):
    config = log_config("debug", log_format)
    assert config["root"] == {"level": "DEBUG", "handlers": ["stdout"]}
    assert config["handlers"]["stdout"]["stream"] == "ext://sys.stdout"
    assert all(not logger.get("handlers") for logger in config["loggers"].values())


def test_a_logger_of_kafkas_that_repeats_itself_is_heard_once_and_all_others_always():
    seldom, now_and_then = KafkaSeldom(interval_s=3600), KafkaSeldom(interval_s=0)
    records = [record("away") for _ in range(6)]
    for made, name in zip(
        records, ["kafka.net", "kafka.net", "kafka.cluster", "todo", "todo", "kafkaesque"], strict=True
    ):
        made.name = name
    assert [seldom.filter(made) for made in records] == [True, False, True, True, True, True]
    assert all(now_and_then.filter(made) for made in records)
