"""``todo bench``"""

import os
import platform
import sys
from datetime import UTC, datetime

import click


@click.group()
def bench() -> None:
    """Measure on real servers started for it."""


@bench.command()
@click.option(
    "--commands",
    default=60_000,
    show_default=True,
    type=click.IntRange(min=10_000),
    help="Backlog of a round.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 16), help="Worker processes.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1, 50), help="Rounds on the same servers."
)
def worker(commands: int, workers: int, rounds: int) -> None:
    """Show how fast a backlog on Kafka is applied to PostgreSQL.

    Real Kafka, PostgreSQL and Valkey in a temporary folder; the backlog is 35 % creates, 55 % updates, 10 % deletes.
    """
    from scripts.bench.worker import bench as started

    click.echo(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; starting servers"
    )
    with started() as measured:
        for number in range(1, rounds + 1):
            measured.fill(commands)
            figures = measured.drain(workers)
            cpu = ", ".join(f"{name} {us:.0f}" for name, us in figures.cpu_us.items())
            click.echo(
                f"round {number}: {figures.commands} commands in {figures.seconds:.2f} s = "
                f"{figures.per_second:,.0f}/s; CPU us each: {cpu}"
            )


@bench.command()
@click.option(
    "--processes",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Worker processes of gunicorn, and of nginx.",
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Interleaved rounds."
)
@click.option(
    "--seconds", default=4, show_default=True, type=click.IntRange(1, 60), help="Length of one measurement."
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
def reads(processes: int, rounds: int, seconds: int, markdown: bool) -> None:
    """Show how fast lists are answered, beside nginx serving the same bytes from a file.

    Real PostgreSQL and Valkey, the worker, gunicorn and nginx in a temporary folder; wrk makes the load. A CPU
    second is one of the server's own processes, so that the load generator on the same cores does not count.
    """
    from rich.console import Console

    from scripts.bench.measure import machine
    from scripts.bench.reads import CASES, Comparison, Refused
    from scripts.bench.reads import bench as started
    from scripts.bench.reads_table import markdown_table, rich_table
    from scripts.bench.wrk import CONNECTIONS

    click.echo("Starting servers", err=True)
    comparisons = [Comparison(case, [], []) for case in CASES]
    try:
        with started(processes) as measured:
            measured.warm_up()
            for number in range(1, rounds + 1):
                click.echo(f"Round {number} of {rounds}", err=True)
                for comparison in comparisons:
                    nginx, ours = measured.pair(comparison.case, seconds)
                    comparison.nginx.append(nginx)
                    comparison.ours.append(ours)
            versions = measured.versions
    except Refused as ex:
        raise click.ClickException(str(ex)) from ex
    if markdown:
        click.echo(markdown_table(comparisons) + "\n")
    else:
        # A pipe has no width of its own.
        Console(width=None if sys.stdout.isatty() else 140).print(rich_table(comparisons))
    click.echo(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions}.\n"
        f"Medians over {rounds} x {seconds} s; {CONNECTIONS} connections; worker processes on each side: {processes}."
    )
