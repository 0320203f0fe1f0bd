"""``todo plan``"""

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scripts.plan.payload import Payload


def _page(_ctx: click.Context, _param: click.Parameter, text: str) -> "Payload":
    from scripts.plan.payload import payload

    try:
        return payload(text)
    except ValueError as ex:
        raise click.BadParameter(str(ex)) from ex


_SHARE = click.FloatRange(0, 1)


@click.command()
@click.option(
    "--rps",
    "rates",
    multiple=True,
    type=click.FloatRange(1, 1e8),
    default=(10_000, 100_000, 1_000_000),
    show_default=True,
    help="Reads a second at the peak; several make several columns.",
)
@click.option(
    "--writes", type=click.FloatRange(0, 1e6), help="Writes a second; else a hundredth of the reads."
)
@click.option(
    "--payload",
    metavar="limit=100|all|BYTES",
    callback=_page,
    default="limit=100",
    show_default=True,
    help="What is read, or its size.",
)
@click.option(
    "--gzip-share", type=_SHARE, default=1.0, show_default=True, help="Share of the readers that take gzip."
)
@click.option(
    "--cached-share",
    type=_SHARE,
    default=0.0,
    show_default=True,
    help="Share of the reads that a CDN or nginx's microcache answers.",
)
@click.option(
    "--client",
    type=click.Choice(["kafka-python", "librdkafka"]),
    default="librdkafka",
    show_default=True,
    help="KAFKA_CLIENT.",
)
@click.option("--relay", is_flag=True, help="A relay in each pod appends for its processes.")
@click.option(
    "--processes-per-pod", type=click.IntRange(1, 1024), default=2, show_default=True, help="WEB_CONCURRENCY."
)
@click.option(
    "--headroom",
    type=click.FloatRange(0, 0.9),
    default=0.3,
    show_default=True,
    help="Share of each core, worker and network card that is left free.",
)
@click.option(
    "--nic-gbit",
    type=click.FloatRange(0.1, 1000),
    default=10.0,
    show_default=True,
    help="Of one network card.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="What PostgreSQL allows.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list, a plan each.")
@click.option("--markdown", is_flag=True, help="The tables of docs/scaling.md.")
@click.option("--values", "as_values", is_flag=True, help="Values for the Helm chart; of one --rps.")
def plan(
    rates: tuple[float, ...],
    writes: float | None,
    payload: "Payload",
    gzip_share: float,
    cached_share: float,
    client: str,
    relay: bool,
    processes_per_pod: int,
    headroom: float,
    nic_gbit: float,
    max_connections: int,
    as_json: bool,
    markdown: bool,
    as_values: bool,
) -> None:
    """Say what a load needs, and what breaks first.

    Pods, cores, network, Redis, Kafka and PostgreSQL, from what one core was measured to do; docs/scaling.md explains
    the arithmetic. Asks no server.
    """
    from scripts.plan import shown
    from scripts.plan.model import Load, needs

    if as_json + markdown + as_values > 1:
        raise click.UsageError("--json, --markdown and --values exclude each other.")
    if as_values and len(rates) != 1:
        raise click.UsageError("--values makes one file: give one --rps.")
    plans = [
        needs(
            Load(
                rps=rps,
                writes=rps / 100 if writes is None else writes,
                payload=payload,
                gzip_share=gzip_share,
                cached_share=cached_share,
                client=client,
                relay=relay,
                processes_per_pod=processes_per_pod,
                headroom=headroom,
                nic_gbit=nic_gbit,
                max_connections=max_connections,
            )
        )
        for rps in rates
    ]
    if as_json:
        click.echo(json.dumps([shown.as_json(each) for each in plans], indent=2))
    elif as_values:
        click.echo(shown.values_file(plans[0]), nl=False)
    else:
        tables = [shown.needs_table(plans), shown.limits_table(plans)]
        if markdown:
            click.echo("\n\n".join(table.markdown() for table in [*tables, shown.figures_table()]))
            return
        from rich.console import Console

        # A pipe has no width of its own.
        console = Console(width=None if sys.stdout.isatty() else 140)
        for table in tables:
            console.print(table.rich())
