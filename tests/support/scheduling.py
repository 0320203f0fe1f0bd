"""Which worker of pytest-xdist runs which tests, and in what order, where the tests of a file stay together.

Files that share servers which are expensive to start stay together as well: one Kafka serves a whole group. What takes
longest comes first, lest one worker is left alone with it at the end; files that are not named here come last.
"""

from typing import Final

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS: Final = (
    # A Kafka that is killed and frozen.
    ("tests/contracts/test_command_log_faults.py", "tests/faults/test_rows.py"),
    # The session's Kafka.
    (
        "tests/contracts/test_command_log.py",
        "tests/contracts/test_publishers_in_between.py",
        "tests/integration/test_kafka_consumer.py",
        "tests/integration/test_librdkafka.py",
        "tests/integration/test_doctor.py",
        "tests/integration/test_dlq.py",
        "tests/integration/test_kafka_topics.py",
        "tests/integration/test_kafka_security.py",
    ),
    # Another one that is killed and frozen.
    (
        "tests/e2e/test_kills.py",
        "tests/e2e/test_stops.py",
        "tests/integration/test_kafka_publisher.py",
        "tests/e2e/test_main_job.py",
        "tests/e2e/test_idempotency.py",
    ),
    ("tests/e2e/test_todo_up.py",),
    ("tests/docker/test_image.py",),
    ("tests/e2e/test_meinheld_stops.py",),
    ("tests/e2e/test_meinheld_worker.py",),
    ("tests/browser/test_todo_page.py", "tests/browser/test_other_pages.py"),
    ("tests/integration/test_gunicorn_conf.py",),
    ("tests/integration/test_bench_http.py",),
    ("tests/unit/test_request_body.py",),
    ("tests/e2e/test_client_and_docs.py",),
    ("tests/e2e/test_bench_freshness.py",),
    ("tests/e2e/test_nginx.py",),
    ("tests/integration/test_page_table.py",),
    ("tests/integration/test_worker.py",),
    ("tests/e2e/test_openapi.py",),
    ("tests/integration/test_relay.py",),
    ("tests/chart/test_chart.py",),
    ("tests/integration/test_stack_servers.py",),
    ("tests/integration/test_stack_supervision.py",),
)
_RANKS: Final = {file: rank for rank, files in enumerate(GROUPS) for file in files}


def order(items: list[pytest.Item]) -> None:
    """Put what takes longest first."""
    items.sort(key=lambda item: _RANKS.get(_file(item.nodeid), len(GROUPS)))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """As ``--dist loadfile``, for groups of files, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return GROUPS[_RANKS[file]][0] if file in _RANKS else file


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
