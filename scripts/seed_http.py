"""Many todos through the API, with the client that everybody else uses."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final
from uuid import UUID

from todo_api.client import TodoClient, Write

_THREADS: Final = 8
_CHUNK: Final = 500
# As many operations as one request may name; more than partitions are usual, so the last of most are among them.
_LOOKED_AT: Final = 32


def send_seed(client: TodoClient, todos: Iterable[tuple[UUID, str]]) -> int:
    """Create a todo for each key and title, and return how many, once the last of them are applied.

    The keys make it safe to repeat. Blocks while the API takes them. Raises TodoClientError; what was sent stays.
    """
    todo_iterator = iter(todos)
    sent = 0
    last: list[Write] = []
    with ThreadPoolExecutor(_THREADS) as threads:
        # In chunks: a pool that is given millions at once keeps them all.
        while chunk := list(islice(todo_iterator, _CHUNK)):
            writes = list(
                threads.map(lambda todo: client.create(todo[1], idempotency_key=str(todo[0])), chunk)
            )
            sent += len(writes)
            last = [*last, *writes][-_LOOKED_AT:]
    client.page(1, after=last)
    return sent
