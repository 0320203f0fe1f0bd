"""The request headers of a write: its idempotency key, and the versions it insists on."""

import re
from typing import Final

from falcon import Request

from todo_api.core.commands import ANY_VERSION
from todo_api.problems import INVALID_HEADER, Problem

IDEMPOTENCY_KEY_MAX_CHARS: Final = 255
IF_MATCH_FORM: Final = 'must be * or the ETag of the todo, such as "3-1702", or several with commas'
# draft-ietf-httpapi-idempotency-key-header: a structured field (RFC 9651) that is a string. Most clients leave out the
# quotes; what could be a list or have parameters (a header sent twice is joined by a comma) is not taken for a key.
_QUOTED_KEY: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE_KEY: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")
_ESCAPED: Final = re.compile(r'\\(["\\])')

# RFC 9110 sections 8.8.3 and 13.1.1; empty elements of the list are allowed (5.6.1.2).
_ENTITY_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAGS: Final = re.compile(rf"[ \t,]*{_ENTITY_TAG}(?:[ \t]*,[ \t,]*{_ENTITY_TAG})*[ \t,]*")
# What ``core.todo.version_tag`` makes.
_OUR_STRONG_TAG: Final = re.compile(r'(?<!W/)"([0-9]{1,10}-[0-9]{1,19})"')


def idempotency_key(req: Request) -> str | None:
    """Return the key in ``Idempotency-Key``, with or without the quotes of the draft, or None. Raises Problem (400)."""
    # PERF: 0.1 us; Falcon's get_header takes 1.5 to say that there is none. So for If-Match below.
    value = req.env.get("HTTP_IDEMPOTENCY_KEY")
    if value is None:
        return None
    value = value.strip(" \t")
    quoted = _QUOTED_KEY.fullmatch(value)
    if quoted is None and not _BARE_KEY.fullmatch(value):
        raise _invalid("Idempotency-Key", 'must be one string of printable ASCII, such as "a3f1-42"')
    key = value if quoted is None else _ESCAPED.sub(r"\1", quoted[1])
    if not key.strip():
        raise _invalid("Idempotency-Key", "must not be blank")
    if len(key) > IDEMPOTENCY_KEY_MAX_CHARS:
        raise _invalid("Idempotency-Key", f"must have at most {IDEMPOTENCY_KEY_MAX_CHARS} characters")
    return key


def if_match(req: Request) -> tuple[str, ...] | None:
    """Return the version tags in ``If-Match`` that a todo could have, or None without the header. Raises Problem (400).

    Comparison is strong: weak tags, and strong ones that we never gave, match nothing and are left out. So the
    tuple may be empty: then the condition cannot hold.
    """
    value = req.env.get("HTTP_IF_MATCH")
    if value is None:
        return None
    versions = versions_in(value)
    if versions is None:
        raise _invalid("If-Match", IF_MATCH_FORM)
    return versions


def versions_in(value: str) -> tuple[str, ...] | None:
    """Return what ``if_match`` makes of this value, or None when it is no list of entity tags."""
    if value.strip(" \t") == "*":
        return (ANY_VERSION,)
    if not _ENTITY_TAGS.fullmatch(value):
        return None
    return tuple(dict.fromkeys(_OUR_STRONG_TAG.findall(value)))


def refuse_if_match(req: Request) -> None:
    """Raise Problem (400) when there is an ``If-Match`` where nothing could hold it."""
    if req.env.get("HTTP_IF_MATCH") is not None:
        raise _invalid("If-Match", "works for a todo that there is: with PUT, PATCH and DELETE")


def _invalid(header: str, what: str) -> Problem:
    return Problem(INVALID_HEADER, f"{header} {what}", members={"header": header})
