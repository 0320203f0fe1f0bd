"""Publishing through the relay, or in groups, keeps the same contract."""

import pytest

from tests.contracts.conftest import IN_BETWEEN
from tests.contracts.test_command_log import (  # noqa: F401 collected here once more
    test_a_key_goes_to_the_same_partition_whoever_publishes,
    test_a_probe_of_a_healthy_log_says_so_and_writes_nothing,
    test_a_record_that_is_too_large_is_refused_and_harms_no_other,
    test_an_acknowledged_record_can_be_read_back_as_it_was,
    test_an_acknowledged_record_is_in_the_log_before_publish_returns,
    test_any_bytes_come_through_unchanged,
    test_closing_twice_and_closing_what_was_never_used_is_fine,
    test_many_threads_share_a_publisher,
    test_no_records_give_no_results,
    test_positions_are_dense_from_0_and_equal_to_what_is_read,
    test_records_with_the_same_key_keep_their_order,
    test_results_of_many_are_in_their_order_and_each_its_own,
)

pytestmark = pytest.mark.parametrize("log", IN_BETWEEN, indirect=True)
