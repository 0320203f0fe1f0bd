"""What a todo may contain, and how its states are told apart. HTTP, the log and the worker go by the same rules."""

from typing import Final

TITLE_MAX_CHARS: Final = 200
DESCRIPTION_MAX_CHARS: Final = 10_000
USER_ID_MAX_CHARS: Final = 255


def version_tag(source: int, source_offset: int) -> str:
    """Name one state of a todo: where the last command that changed it is. What ETag gives and If-Match brings back.

    Exact: each change has a place of its own in the log, and reading the log again, after a restored backup too,
    puts the same changes in the same places.
    """
    return f"{source}-{source_offset}"


def text_problem(text: str, *, max_chars: int, min_chars: int = 0) -> str | None:
    """Say what keeps ``text`` from being stored and read back exactly, or None when nothing does.

    Lengths count code points, as PostgreSQL's ``char_length`` does. U+0000 cannot be stored in a
    PostgreSQL ``text``; a lone surrogate cannot be encoded as UTF-8.
    """
    if len(text) < min_chars:
        return "must not be blank" if min_chars == 1 else f"must have at least {min_chars} characters"
    if len(text) > max_chars:
        return f"must have at most {max_chars} characters, has {len(text)}"
    if "\0" in text:
        return "must not contain U+0000"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "must not contain lone surrogates"
    return None


def title_problem(title: str) -> str | None:
    """Say what is wrong with a title whose outer white space is trimmed already, or None."""
    if title != title.strip():
        return "must not begin or end with white space"
    return text_problem(title, min_chars=1, max_chars=TITLE_MAX_CHARS)


def description_problem(description: str) -> str | None:
    """Say what is wrong with a description, or None."""
    return text_problem(description, max_chars=DESCRIPTION_MAX_CHARS)


def user_id_problem(user_id: str) -> str | None:
    """Say what is wrong with a user id (the ``sub`` of a token), or None."""
    if not user_id.strip():
        return "must not be blank"
    return text_problem(user_id, min_chars=1, max_chars=USER_ID_MAX_CHARS)
