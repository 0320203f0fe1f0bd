"""``todo plan``: its arithmetic, where its figures come from, and that docs/scaling.md shows what it prints."""

import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Settings
from scripts.plan.figures import FIGURES, PAGE_GZIP, PAGE_GZIP_BYTES, WORKER_COMMANDS, WRITE_COSTS
from scripts.plan.limits import first, limits
from scripts.plan.model import _BATCHES_PER_S, _REFRESH_SHARE, _REFRESHES_MAX, RECORD_BYTES, Load, needs
from scripts.plan.payload import api_us, nginx_us, payload
from scripts.verbs.plan import plan
from todo_api.core.commands import Command, Kind
from todo_api.core.ids import uuid7
from todo_api.page_source import _CPU_SHARE, REFRESH_EVERY_S
from todo_worker.worker import _BATCH_EVERY_S

DOCS = Path(__file__).parents[2] / "docs"
PAGE = payload("limit=100")


def planned(**asked):
    load: dict[str, Any] = {"rps": 10_000, "writes": 100, "payload": PAGE} | asked
    return needs(Load(**load))


def todo_plan(*arguments):
    return CliRunner().invoke(plan, arguments)


def test_the_tables_of_the_documentation_are_what_the_command_prints():
    answer = todo_plan("--markdown")
    assert answer.exit_code == 0
    text = (DOCS / "scaling.md").read_text()
    for table in answer.output.strip().split("\n\n"):
        assert table in text, "replace it by what `todo plan --markdown` prints"


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.what}: {figure.unit}")
def test_every_figure_stands_in_the_section_of_its_measurement(figure):
    text = (DOCS / "benchmarks.md").read_text()
    section = text.partition(f"\n## {figure.run.section}\n")[2].partition("\n## ")[0]
    assert figure.run.command in section
    assert figure.run.date in section
    assert re.search(rf"(?<![\d,.]){re.escape(figure.quoted)}(?!\.?\d|,\d)", section), (
        "not measured, or out of date"
    )


def test_what_the_model_takes_from_the_code_is_what_the_code_does():
    defaults = {spec.metadata["env"]: spec.metadata["default"] for spec in fields(Settings)}
    load = planned().load
    assert load.poll_ms == int(defaults["CACHE_POLL_MS"])
    assert load.batch_max == int(defaults["WORKER_BATCH_MAX"])
    assert _REFRESH_SHARE == 1 / _CPU_SHARE
    assert _REFRESHES_MAX == 1 / REFRESH_EVERY_S
    assert pytest.approx(1 / _BATCH_EVERY_S) == _BATCHES_PER_S
    command = Command(
        kind=Kind.CREATE, command_id=uuid7(), todo_id=uuid7(), user_id="demo", issued_at=datetime.now(UTC),
        title="x" * 30, description="",
    )  # fmt: skip
    # Besides: the request id, a trace context, and a few bytes of Kafka's for each of them.
    assert 0 < RECORD_BYTES - len(command.encode()) - len(command.key) < 150


def test_a_load_of_what_one_core_was_measured_to_answer_takes_one_core():
    api = planned(rps=PAGE_GZIP.value, writes=0, headroom=0).api
    assert api.cores == pytest.approx(1)
    assert api.read_processes == 1
    assert api.write_processes == 0


def test_headroom_stays_free():
    assert planned(rps=PAGE_GZIP.value, writes=0, headroom=0.5).api.cores == pytest.approx(2)


def test_refreshing_pages_takes_its_share_of_each_process_when_there_are_writes():
    still = planned(rps=1_000_000, writes=0).api
    moving = planned(rps=1_000_000, writes=1e-9).api
    assert moving.cores == pytest.approx(still.cores / 0.9)


def test_a_write_takes_its_cpu_time_and_holds_no_process_while_it_waits():
    cost_us = WRITE_COSTS["librdkafka", False].api.value
    api = planned(rps=1, writes=20_000, headroom=0).api
    assert api.write_processes == -(-20_000 * cost_us // 1e6)
    assert api.cores == pytest.approx(20_000 * cost_us / 1e6, abs=0.001)


def test_answers_cost_what_was_measured_and_between_the_sizes_something_between():
    assert api_us(PAGE_GZIP_BYTES.value) == pytest.approx(1e6 / PAGE_GZIP.value)
    sizes = [1, PAGE.gzip_bytes, PAGE.plain_bytes, 500_000, payload("all").plain_bytes, 10_000_000]
    for cost in (api_us, nginx_us):
        costs = [cost(size) for size in sizes]
        assert costs == sorted(costs)
        assert costs[-1] > costs[-2]


def test_a_share_of_gzip_lies_between_none_and_all():
    gbit = [planned(gzip_share=share).network.api_gbit for share in (1, 0.5, 0)]
    assert gbit[1] == pytest.approx((gbit[0] + gbit[2]) / 2)
    assert gbit[2] == planned().network.api_plain_gbit


def test_a_million_compressed_pages_a_second_are_three_cards_of_10_gbit_without_any_headroom():
    network = planned(rps=1_000_000, headroom=0).network
    assert network.api_gbit == pytest.approx(1_000_000 * PAGE_GZIP_BYTES.value * 8 / 1e9)
    assert network.cards == 3


def test_what_a_cache_answers_reaches_the_clients_and_not_the_api():
    plain, cached = planned(rps=1_000_000), planned(rps=1_000_000, cached_share=0.99)
    assert cached.network.clients_gbit == plain.network.clients_gbit
    assert cached.network.api_gbit == pytest.approx(plain.network.api_gbit / 100)
    assert cached.api.read_processes == 1


def test_every_process_asks_redis_once_a_poll_and_fetches_a_page_no_more_often():
    quiet, busy = planned(writes=0), planned(writes=1e6)
    assert quiet.redis.operations_per_s == quiet.api.processes * 20
    assert quiet.redis.pages_gbit_max == 0
    assert busy.redis.operations_per_s == busy.api.processes * (20 + 3 * 10) + 2 * 10
    assert busy.redis.pages_gbit_max == pytest.approx(busy.api.processes * 10 * PAGE.stored_bytes * 8 / 1e9)


@pytest.mark.parametrize("writes", [0, 1, 7_000, 10_000, 100_000, 1_000_000])
def test_there_are_partitions_for_more_workers_than_are_planned(writes):
    it = planned(writes=writes)
    assert it.workers.pods * WORKER_COMMANDS.value * 0.7 >= writes
    assert 2 <= it.workers.pods < it.workers.pods_max <= it.kafka.partitions <= 1024


@pytest.mark.parametrize("max_connections", [40, 100, 500, 5_000])
def test_connections_fit_where_one_for_each_process_does(max_connections):
    it = planned(rps=100_000, writes=1_000, max_connections=max_connections)
    fits = it.postgres.connections_min <= max_connections
    assert (it.postgres.connections <= max_connections) == fits
    assert it.postgres.pool_size >= it.load.processes_per_pod
    assert (next(each for each in limits(it) if each.name == "connections to PostgreSQL").used <= 1) == fits


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1, 1e8), st.floats(1, 10), st.floats(0, 1e6), st.floats(0, 1), st.integers(1, 64), st.booleans()
)
def test_more_load_never_needs_less(rps, factor, writes, gzip_share, processes_per_pod, relay):
    same = {"gzip_share": gzip_share, "processes_per_pod": processes_per_pod, "relay": relay}
    less = planned(rps=rps, writes=writes, **same)
    more = planned(rps=rps * factor, writes=writes * factor, **same)
    for part in ("api", "network", "redis", "workers", "kafka"):
        one, other = getattr(less, part), getattr(more, part)
        for spec in fields(one):
            assert getattr(one, spec.name) <= getattr(other, spec.name), spec.name
    assert all(
        one.used <= other.used
        for one, other in zip(limits(less), limits(more), strict=True)
        if one.name != "workers"
    )


def test_what_breaks_first_at_a_million_reads_is_the_network():
    assert first(limits(planned(rps=1_000_000, writes=10_000))).name == "network"


def test_what_breaks_first_with_few_reads_of_a_huge_list_in_many_processes_is_redis():
    it = planned(rps=10, writes=1_000, payload=payload("50000000"))
    assert first(limits(it)).name == "pages from Redis"


def test_the_values_are_those_of_the_plan():
    answer = todo_plan(
        "--rps", "200000", "--writes", "3000", "--client", "kafka-python", "--relay", "--max-connections", "300",
        "--values",
    )  # fmt: skip
    assert answer.exit_code == 0
    it = planned(rps=200_000, writes=3_000, client="kafka-python", relay=True, max_connections=300)
    values = yaml.safe_load(answer.output)
    cpu = values["api"].pop("resources")["requests"]["cpu"]
    assert int(cpu.removesuffix("m")) == pytest.approx(1000 * it.api.cores / it.api.pods, abs=1)
    assert values == {
        "database": {"maxConnections": 300, "poolSize": it.postgres.pool_size},
        "kafka": {"partitions": it.kafka.partitions, "client": "kafka-python"},
        "api": {
            "replicas": it.api.pods,
            "autoscaling": {"enabled": False},
            "processes": 2,
            "relay": {"enabled": True},
        },
        "worker": {
            "replicas": it.workers.pods,
            "keda": {"enabled": True, "minReplicas": it.workers.pods, "maxReplicas": it.workers.pods_max},
        },
    }


def test_values_say_how_many_connections_must_be_allowed_when_they_do_not_fit():
    answer = todo_plan("--rps", "10000000", "--values")
    it = planned(rps=10_000_000, writes=100_000)
    assert yaml.safe_load(answer.output)["database"]["maxConnections"] == it.postgres.connections > 100


def test_json_has_a_plan_for_each_rate():
    answer = todo_plan("--rps", "10000", "--rps", "1000000", "--json")
    plans = json.loads(answer.output)
    assert [each["load"]["rps"] for each in plans] == [10_000, 1_000_000]
    assert [each["load"]["writes"] for each in plans] == [100, 10_000]
    assert plans[1]["api"]["pods"] == planned(rps=1_000_000, writes=10_000).api.pods
    assert plans[1]["nearest_limit"] == "network"


def test_the_table_for_people_has_a_column_for_each_rate():
    answer = todo_plan("--rps", "10000", "--rps", "20000", "--payload", "5000")
    assert answer.exit_code == 0
    assert "10,000 reads/s" in answer.output
    assert "20,000 reads/s" in answer.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--payload", "limit=10"], "a number of bytes"),
        (["--payload", "0"], "a number of bytes"),
        (["--rps", "0"], "--rps"),
        (["--headroom", "1"], "--headroom"),
        (["--json", "--values", "--rps", "1"], "exclude each other"),
        (["--values"], "give one --rps"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_exit_code_2(arguments, said):
    answer = todo_plan(*arguments)
    assert answer.exit_code == 2
    assert said in answer.output
