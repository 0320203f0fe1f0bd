"""How long the worker waits for more before it applies the next batch."""

import pytest

from todo_worker.worker import pause_s

BATCH_MAX = 2_000


@pytest.mark.parametrize(
    ("messages", "seconds"), [(1, 0.025), (5, 0.025), (10, 0.05), (30, 0.15), (1_999, 0.15), (2_000, 0.0)]
)
def test_the_more_there_was_the_longer_more_is_waited_for_and_after_a_full_batch_not_at_all(
    messages, seconds
):
    assert pause_s(messages, BATCH_MAX) == pytest.approx(seconds)
