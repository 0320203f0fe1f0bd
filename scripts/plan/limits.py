"""What breaks first, and the way out."""

from dataclasses import dataclass

from scripts.plan.figures import WORKER_COMMANDS
from scripts.plan.model import Needs


@dataclass(frozen=True, slots=True)
class Limit:
    """``used`` is how much of one unit (a card, a server, ...) is needed: above 1 it is not enough."""

    name: str
    of: str
    used: float
    way_out: str


def limits(needs: Needs) -> list[Limit]:
    """Return the limits of this load, always the same ones in the same order; ``first`` tells the nearest."""
    load = needs.load
    card_gbit = load.nic_gbit * load.usable
    return [
        Limit(
            "network",
            f"one card of {load.nic_gbit:g} Gbit/s",
            needs.network.api_gbit / card_gbit,
            "gzip; a CDN, which `s-maxage=1` lets answer for a second; pods and proxies spread over more cards",
        ),
        Limit(
            "pages from Redis",
            f"its card of {load.nic_gbit:g} Gbit/s",
            needs.redis.pages_gbit_max / card_gbit,
            "refreshes are rationed: pages get older, nothing fails; lists with a `limit`; a cache in front, and so "
            "fewer processes; a larger CACHE_POLL_MS",
        ),
        Limit(
            "connections to PostgreSQL",
            f"max_connections {load.max_connections}",
            needs.postgres.connections_min / load.max_connections,
            "one for each process is counted here: a larger max_connections or pgbouncer; a cache in front, and so "
            "fewer processes",
        ),
        Limit(
            "workers",
            f"{needs.kafka.partitions} partitions",
            needs.workers.pods / needs.kafka.partitions,
            "more partitions, chosen before the topic is created",
        ),
        Limit(
            "commands applied",
            f"one worker of {WORKER_COMMANDS.quoted}/s",
            load.writes / (WORKER_COMMANDS.value * load.usable),
            "more workers; that one PostgreSQL follows was measured for two",
        ),
    ]


def first(found: list[Limit]) -> Limit:
    """Return the limit of which most is used."""
    return max(found, key=lambda limit: limit.used)
