"""A thread beside the body of a ``with``, as the helpers that watch or trouble a server need it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_JOIN_S: Final = 30


@contextmanager
def beside(run: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Let ``run`` go on in a thread during the body; it has to end soon after ``stop`` is set."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_S)
