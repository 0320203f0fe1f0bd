"""JSON as RFC 8259 writes it and nothing else, with each name at most once in an object."""

import json

import msgspec

from todo_api.core.errors import TodoError


class MalformedJson(TodoError):
    """These bytes are not JSON. The message says why in words for the client, with the place where it is known."""


def parse(body: bytes) -> object:
    """Return the value in ``body``. Raises MalformedJson.

    Refuses what other parsers let through: NaN and infinities, lone surrogates, raw control characters, a
    byte order mark, numbers out of range, duplicate names, and nesting of about a thousand levels.
    """
    try:
        value: object = msgspec.json.decode(body)
        # msgspec takes the last of two equal names, the next parser might take the first: refuse them here.
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    except msgspec.DecodeError as ex:
        raise MalformedJson(str(ex)) from ex
    except UnicodeDecodeError as ex:
        raise MalformedJson("it is not UTF-8") from ex
    except RecursionError as ex:
        raise MalformedJson("it is nested too deeply") from ex
    except ValueError as ex:
        raise MalformedJson("it has a number with too many digits") from ex
    return value


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise MalformedJson("it has the same name twice in one object")
