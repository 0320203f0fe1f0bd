"""What ``todo bench writes`` makes of its samples."""

import pytest

from scripts.bench.load import PERCENTILES, Load
from scripts.bench.writes import PEER, WAYS, Sample
from scripts.bench.writes_table import accepted_table, applied_table
from scripts.bench.wrk import _lua_string

RELAY = WAYS[2]


def load(requests, seconds=2.0):
    latency_s = dict.fromkeys(PERCENTILES, 0.004) | {99.0: 0.02}
    return Load(generator="wrk", requests=requests, failures=0, seconds=seconds, latency_s=latency_s)


def sample(requests, **more):
    return Sample(
        load=load(requests), cpu_s={"API": 1.0, "kafka": 0.5}, memory_bytes=100 * 1024 * 1024, **more
    )


@pytest.fixture
def samples():
    ours = [
        sample(
            requests, whole=load(4_000), applied=3_000, caught_up_per_s=9_000.0, visible_s=(0.1, 0.2, 0.9),
            whole_cpu_s={"API": 0.4, "relay": 0.2, "kafka": 0.1, "worker": 0.3, "postgres": 0.15},
        )
        for requests in (6_000, 10_000)
    ]  # fmt: skip
    return {PEER: [sample(2_000), sample(4_000)], RELAY: ours}


def rows(table):
    return {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}


def test_what_is_accepted_is_compared_with_the_peer_of_the_same_round(samples):
    accepted = rows(accepted_table(samples))
    assert accepted[PEER.name]["of the peer"] == "1.00 (1.00-1.00)"
    assert accepted[RELAY.name]["writes/s"] == "4,000"
    assert accepted[RELAY.name]["of the peer"] == "2.75 (2.50-3.00)"
    assert accepted[RELAY.name]["CPU us: API"] == "125"
    assert (accepted[RELAY.name]["relay"], accepted[RELAY.name]["memory"]) == ("", "100 MiB")


def test_what_is_applied_counts_the_worker_by_what_it_applied(samples):
    applied = rows(applied_table(samples))
    assert PEER.name not in applied
    row = applied[RELAY.name]
    assert (row["writes/s"], row["applied/s"], row["catching up/s"]) == ("2,000", "1,500", "9,000")
    assert (row["CPU us: API"], row["relay"], row["worker"], row["PostgreSQL"]) == ("100", "50", "100", "50")
    assert row["visible p50"] == "0.20 s"


def test_the_items_of_batches_are_counted_one_by_one(samples):
    batches = WAYS[-1]
    accepted = rows(accepted_table(samples | {batches: [sample(40), sample(40)]}))
    assert batches.items == 500
    assert accepted[batches.name]["writes/s"] == "10,000"
    assert accepted[batches.name]["of the peer"] == "7.50 (5.00-10.00)"
    assert accepted[batches.name]["CPU us: API"] == "50"


def test_any_body_reaches_lua_as_it_is():
    assert _lua_string('a"\\\n') == '"\\097\\034\\092\\010"'
