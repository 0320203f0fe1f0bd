"""``todo bench``"""

import os
import platform

import click


@click.group()
def bench() -> None:
    """Measure on real servers started for it."""


@bench.command()
@click.option(
    "--commands",
    default=60_000,
    show_default=True,
    type=click.IntRange(min=1_000),
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
