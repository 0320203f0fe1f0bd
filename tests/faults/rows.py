"""The rows of the table in docs/reliability.md."""

from typing import Final

from tests.faults import breakages, networks, records, traffic
from tests.faults.trial import Bounds, Row

_ALL: Final = 1.0
_NEARLY_ALL: Final = 0.999

ROWS: Final = [
    Row(
        number="0",
        name="none",
        fault=breakages.nothing,
        bounds=Bounds(reads=_ALL, writes=_ALL, visible_p50_s=0.25, visible_p99_s=1.0, visible_s=2.0),
    ),
    Row(
        number="1",
        name="worker killed",
        short=("streams",),
        fault=breakages.worker_killed,
        bounds=Bounds(reads=_ALL, writes=_ALL, visible_s=15),
    ),
    Row(
        number="2",
        name="API process killed",
        short=("kafka",),
        fault=breakages.api_process_killed,
        bounds=Bounds(reads=_NEARLY_ALL),
    ),
    Row(
        number="3",
        name="rolling restart",
        fault=breakages.rolling_restart,
        bounds=Bounds(reads=_ALL, writes=_ALL),
        reads_per_s=100,
    ),
    Row(
        number="4",
        name="log stopped",
        fault=breakages.log_stopped,
        bounds=Bounds(reads=_ALL, answer_s=2.0, recover_s=15),
    ),
    Row(
        number="4b",
        name="log frozen",
        short=("kafka",),
        fault=breakages.log_frozen,
        bounds=Bounds(reads=_ALL, answer_s=2.0, recover_s=15),
    ),
    Row(
        number="5",
        name="log killed",
        short=("streams",),
        fault=breakages.log_killed,
        bounds=Bounds(reads=_ALL, answer_s=2.0, recover_s=15),
    ),
    Row(
        number="6",
        name="PostgreSQL stopped",
        short=("streams",),
        fault=breakages.postgres_stopped,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL, recover_s=5),
    ),
    Row(
        number="6b",
        name="PostgreSQL frozen",
        fault=breakages.postgres_frozen,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL, recover_s=5),
    ),
    Row(
        number="7",
        name="PostgreSQL restarted",
        fault=breakages.postgres_restarted,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL, visible_s=15),
    ),
    Row(
        number="8a",
        name="Redis stopped",
        fault=breakages.redis_stopped,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL, read_p99_s=1),
        kinds=("kafka",),
    ),
    Row(
        number="8b",
        name="Redis flushed every second",
        fault=breakages.redis_flushed,
        bounds=Bounds(reads=_ALL, writes=_ALL, read_p99_s=0.5),
        kinds=("kafka",),
    ),
    Row(
        number="8c",
        name="Redis back with old contents",
        short=("kafka",),
        fault=breakages.redis_restored,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL),
        kinds=("kafka",),
    ),
    Row(
        number="8d",
        name="Redis frozen",
        fault=breakages.redis_frozen,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL, read_p99_s=1, visible_p99_s=2),
        kinds=("kafka",),
    ),
    Row(
        number="9",
        name="PostgreSQL, then Redis, 200 ms away",
        fault=networks.delayed,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_NEARLY_ALL, answer_s=3),
        proxied=True,
    ),
    Row(
        number="9b",
        name="answers cut of PostgreSQL, then Redis",
        fault=networks.cut,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_NEARLY_ALL, answer_s=3, recover_s=15),
        kinds=("kafka",),
        proxied=True,
    ),
    Row(
        number="10",
        name="PostgreSQL's disk full",
        fault=breakages.disk_full,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL),
    ),
    Row(
        number="11",
        name="poison in the topic",
        fault=records.poison,
        bounds=Bounds(reads=_ALL, writes=_ALL, visible_p99_s=2.0),
        dead_letters=records.POISON_COUNT,
    ),
    Row(
        number="11b",
        name="a thousand poisons in a row",
        fault=records.poison_run,
        bounds=Bounds(reads=_ALL, writes=_ALL),
        dead_letters=records.POISON_RUN,
    ),
    Row(
        number="12",
        name="workers join and leave",
        fault=breakages.workers_come_and_go,
        bounds=Bounds(reads=_ALL, writes=_ALL, visible_s=15),
    ),
    Row(
        number="12b",
        name="zombie worker",
        fault=breakages.zombie_worker,
        bounds=Bounds(reads=_ALL, writes=_ALL, visible_s=15),
    ),
    Row(
        number="14",
        name="512 slow clients",
        fault=traffic.slow_clients,
        bounds=Bounds(reads=_ALL, writes=_ALL, read_p99_s=0.1),
    ),
    Row(
        number="16a",
        name="the log read again",
        fault=records.log_read_again,
        bounds=Bounds(reads=_ALL, writes=_ALL),
    ),
    Row(
        number="16b",
        name="the log written again",
        fault=records.log_written_again,
        bounds=Bounds(reads=_ALL, writes=_ALL),
    ),
    Row(number="17", name="overload", fault=traffic.overload, bounds=Bounds(reads=_ALL, recover_s=5)),
    Row(
        number="18a",
        name="Redis frozen, worker killed",
        fault=breakages.redis_hung_and_worker_killed,
        bounds=Bounds(reads=_NEARLY_ALL, writes=_ALL, recover_s=30),
        kinds=("kafka",),
    ),
    Row(
        number="18b",
        name="log stopped, API rolled",
        fault=breakages.log_stopped_and_api_rolled,
        bounds=Bounds(reads=_NEARLY_ALL, recover_s=30),
        kinds=("kafka",),
    ),
    Row(
        number="19", name="everything killed", fault=breakages.everything_killed, bounds=Bounds(recover_s=60)
    ),
]
