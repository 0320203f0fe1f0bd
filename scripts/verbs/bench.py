"""``todo bench``"""

import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from scripts.bench.running_api import GeneratorName
    from scripts.bench.tables import Table


class Worse(click.ClickException):
    """The run counts, but it is worse than the baseline."""

    exit_code = 3


class _Measurement(click.Command):
    """Needs the extra ``bench``, but not for its help."""

    def invoke(self, ctx: click.Context) -> Any:
        if find_spec("psutil") is None or find_spec("httptools") is None:
            raise click.ClickException("`todo bench` needs an extra: pip install 'todo-api[bench]'")
        return super().invoke(ctx)


class _OnOwnServers(_Measurement):
    """Starts a PostgreSQL and a Valkey, and says before all else when there is none to start."""

    def invoke(self, ctx: click.Context) -> Any:
        from scripts.stack.postgres import find_binaries
        from scripts.stack.valkey import find_binary

        find_binaries()
        find_binary()
        return super().invoke(ctx)


@click.group()
def bench() -> None:
    """Measure on real servers started for it, or one that runs."""


@bench.command(cls=_Measurement)
@click.argument("base_url", default="http://localhost:8080")
@click.argument("duration_sec", default=30, type=click.IntRange(1, 3600))
@click.argument("concurrency", default=200, type=click.IntRange(1, 10_000))
@click.option("--path", default="/todos?limit=100", show_default=True, help="What is asked for.")
@click.option("--gzip", is_flag=True, help="Ask for compressed answers.")
@click.option(
    "--rate", type=click.FloatRange(min=1), help="Requests a second, due whether answers come or not."
)
@click.option(
    "--generator",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "wrk", "hey", "own"]),
    help="auto: wrk, else hey, else our own client; with --rate always our own.",
)
@click.option(
    "--results",
    default=Path("bench-results"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a folder with JSON, Markdown and plots is made; only shown where the default cannot be written.",
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A result.json to compare with; exit code 3 when this run is worse.",
)
@click.option(
    "--save-baseline", type=click.Path(dir_okay=False, path_type=Path), help="Also write result.json here."
)
def http(
    base_url: str,
    duration_sec: int,
    concurrency: int,
    path: str,
    gzip: bool,
    rate: float | None,
    generator: "GeneratorName",
    results: Path,
    baseline: Path | None,
    save_baseline: Path | None,
) -> None:
    """Show how fast a running API answers one page, and what holds it up.

    Refuses (exit code 1) when more than 0.1 % of the requests failed or the cache was cold.
    """
    from scripts.bench.baseline import compare, load_baseline
    from scripts.bench.load import Plan, Refused
    from scripts.bench.report import markdown, result, write
    from scripts.bench.running_api import choose_generator, measure

    plan = Plan(
        url=base_url.rstrip("/") + path,
        duration_s=duration_sec,
        connections=concurrency,
        headers={"Accept-Encoding": "gzip"} if gzip else {},
        rate=rate,
    )
    then = load_baseline(baseline) if baseline else None
    chosen = choose_generator(generator, plan)
    kept = _kept(results)
    click.echo(f"Warming up, then {duration_sec} s", err=True)
    try:
        values = result(measure(plan, chosen), datetime.now(UTC))
    except Refused as ex:
        raise click.ClickException(str(ex)) from ex
    differences = compare(values, then) if then else None
    report = markdown(values, differences)
    folder = write(results, values, report) if kept else None
    if save_baseline:
        save_baseline.write_text(json.dumps(values) + "\n")
    click.echo(report)
    click.echo(
        f"Written to {folder}" if folder else "Only shown: --results names a folder to keep it in", err=True
    )
    if differences and any(each.is_worse for each in differences):
        raise Worse("worse than the baseline")


@bench.command(cls=_OnOwnServers)
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


@bench.command(cls=_OnOwnServers)
@click.option(
    "--processes",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Worker processes of each server.",
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Interleaved rounds."
)
@click.option(
    "--seconds", default=4, show_default=True, type=click.IntRange(1, 60), help="Length of one measurement."
)
@click.option(
    "--peers/--no-peers",
    default=True,
    show_default=True,
    help="Also FastAPI and Fastify, where pip and npm can install them (into bench-results/peers).",
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
def compare(processes: int, rounds: int, seconds: int, peers: bool, markdown: bool) -> None:
    """Show how fast lists are answered, beside other servers that answer the same bytes.

    Real PostgreSQL and Valkey, the worker, gunicorn, nginx and the peers in a temporary folder; wrk makes the load.
    A CPU second is one of the server's own processes, so that the load generator on the same cores does not count.
    """
    from scripts.bench.compare import CASES, CONNECTIONS, Comparison
    from scripts.bench.compare import bench as started
    from scripts.bench.compare_table import compare_table
    from scripts.bench.load import Refused
    from scripts.bench.measure import machine

    click.echo("Starting servers", err=True)
    comparisons = [Comparison(case) for case in CASES]
    try:
        with started(processes, Path("bench-results", "peers") if peers else None) as measured:
            for reason in measured.left_out:
                click.echo(f"Left out: {reason}", err=True)
            measured.warm_up()
            for number in range(1, rounds + 1):
                click.echo(f"Round {number} of {rounds}", err=True)
                for comparison in comparisons:
                    measured.round(comparison, seconds)
            versions = measured.versions
    except Refused as ex:
        raise click.ClickException(str(ex)) from ex
    _show(compare_table(comparisons), markdown)
    click.echo(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions}.\n"
        f"Medians over {rounds} x {seconds} s (smallest-largest); {CONNECTIONS} connections; "
        f"worker processes of each server: {processes}."
    )


@bench.command(cls=_OnOwnServers)
@click.option(
    "--processes",
    default=2,
    show_default=True,
    type=click.IntRange(1, 16),
    help="API processes of each kind.",
)
@click.option(
    "--seconds",
    default=10,
    show_default=True,
    type=click.IntRange(1, 600),
    help="How long todos are created, and length of one load.",
)
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1, 100), help="Interleaved rounds of load."
)
@click.option("--kafka", is_flag=True, help="Commands wait in Kafka, not in Valkey Streams.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
def freshness(processes: int, seconds: int, rounds: int, kafka: bool, markdown: bool) -> None:
    """Show how soon writes are seen in the lists of every API process, and what they cost the readers.

    Real servers, the worker and gunicorn in a temporary folder. First todos are created at 50 a second while each list
    of each process is watched; then lists are loaded with and without 1,000 commands a second applied.
    """
    from scripts.bench.freshness import CONNECTIONS, reads_table, visibility_table
    from scripts.bench.freshness import bench as started
    from scripts.bench.load import Refused
    from scripts.bench.measure import machine
    from scripts.bench.visibility import WARM_UP_S, WRITES_PER_S

    click.echo("Starting servers", err=True)
    try:
        with started(processes, kafka=kafka) as measured:
            click.echo("Creating todos", err=True)
            began, spent_s = time.monotonic(), time.process_time()
            seen = measured.visibility(seconds)
            watching = (time.process_time() - spent_s) / (time.monotonic() - began)
            shares = []
            for number, each in enumerate(measured.rounds(rounds, seconds), 1):
                click.echo(f"Round {number} of {rounds}", err=True)
                shares.append(each)
    except Refused as ex:
        raise click.ClickException(str(ex)) from ex
    click.echo(
        f"From the 202 to the last process, at {WRITES_PER_S} writes a second, after {WARM_UP_S} s of the same:"
    )
    _show(visibility_table(seen), markdown)
    click.echo("While commands are applied:")
    _show(reads_table(shares), markdown)
    click.echo(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; Python {platform.python_version()}, commands in "
        f"{'Kafka' if kafka else 'Valkey Streams'}; API processes: {processes}.\n"
        f"Writing and watching took {watching:.2f} cores. Loads: a second without writes and one with "
        f"them in turn, {seconds} s each; medians of {rounds} rounds (smallest-largest), {CONNECTIONS} connections."
    )


@bench.command(cls=_OnOwnServers)
@click.option(
    "--seconds", default=10, show_default=True, type=click.IntRange(1, 600), help="Length of one measurement."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Rounds.")
@click.option(
    "--kafka/--streams",
    default=True,
    show_default=True,
    help="Where commands wait: Kafka, or Valkey Streams.",
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
def outage(seconds: int, rounds: int, kafka: bool, markdown: bool) -> None:
    """Show what readers notice when the command log stops or hangs, in the one process that also takes the writes.

    Real servers, the worker and one API process in a temporary folder. Each round reads with the log there and then
    while it is away, from its last moment on, with 10 writes a second all the time.
    """
    from scripts.bench.load import Refused
    from scripts.bench.measure import machine
    from scripts.bench.outage import FAULTS, READS_PER_S, WRITES_PER_S, outage_table
    from scripts.bench.outage import Round as OutageRound
    from scripts.bench.outage import bench as started

    click.echo("Starting servers", err=True)
    measured: dict[str, list[OutageRound]] = {fault: [] for fault in FAULTS}
    try:
        with started(kafka=kafka) as running:
            running.warm_up()
            for number in range(1, rounds + 1):
                for fault, same in measured.items():
                    click.echo(f"Round {number} of {rounds}: {fault}", err=True)
                    same.append(running.round(fault, seconds))
    except Refused as ex:
        raise click.ClickException(str(ex)) from ex
    _show(outage_table(measured), markdown)
    click.echo(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; Python {platform.python_version()}, commands in "
        f"{'Kafka' if kafka else 'Valkey Streams'}; one API process.\n"
        f"Medians over {rounds} x {seconds} s (smallest-largest) of {READS_PER_S} reads and {WRITES_PER_S} writes a "
        "second; latencies count from when a request was due."
    )


@bench.command(cls=_OnOwnServers)
@click.option(
    "--processes",
    default=os.cpu_count() or 1,
    show_default="one for each core, as the peer has",
    type=click.IntRange(1, 128),
    help="API processes.",
)
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1, 50), help="Interleaved rounds."
)
@click.option(
    "--seconds", default=5, show_default=True, type=click.IntRange(1, 60), help="Length of one measurement."
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
def writes(processes: int, rounds: int, seconds: int, markdown: bool) -> None:
    """Show how many durable writes a second are accepted and applied, beside FastAPI and aiokafka.

    Real Kafka, PostgreSQL and Valkey in a temporary folder, all servers on the same broker, one after another; wrk
    makes the load. First without a worker, as the peer has none; then with one, which applies meanwhile.
    """
    from scripts.bench.load import Refused
    from scripts.bench.measure import machine
    from scripts.bench.writes import CONNECTIONS, PEER, WAYS, Sample, Way
    from scripts.bench.writes import bench as started
    from scripts.bench.writes_table import accepted_table, applied_table

    click.echo("Starting servers", err=True)
    samples: dict[Way, list[Sample]] = {way: [] for way in WAYS}
    try:
        with started(processes, Path("bench-results", "peers", "fastapi-writes")) as measured:
            click.echo("Warming up the broker", err=True)
            measured.measure(PEER, 3 * seconds)
            for number in range(1, rounds + 1):
                for way, ours in samples.items():
                    click.echo(f"Round {number} of {rounds}: {way.name}", err=True)
                    ours.append(measured.measure(way, seconds))
            versions = measured.versions
    except Refused as ex:
        raise click.ClickException(str(ex)) from ex
    _show(accepted_table(samples), markdown)
    _show(applied_table(samples), markdown)
    click.echo(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions}.\n"
        f"Medians over {rounds} x {seconds} s (smallest-largest); {CONNECTIONS} connections; "
        f"{processes} API processes. CPU us: microseconds of CPU time for each write accepted; those of worker and "
        "PostgreSQL for each command applied."
    )


def _kept(results: Path) -> bool:
    """Make the folder of the results; say whether it can be written. Raises ClickException when the user chose it."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        writable = os.access(results, os.W_OK)
    except OSError:
        writable = False
    chosen = click.get_current_context().get_parameter_source("results")
    if not writable and chosen is not ParameterSource.DEFAULT:
        raise click.ClickException(f"{results} cannot be written; --results takes another folder")
    return writable


def _show(table: "Table", markdown: bool) -> None:
    from rich.console import Console

    if markdown:
        click.echo(table.markdown() + "\n")
    else:
        # A pipe has no width of its own.
        Console(width=None if sys.stdout.isatty() else 140).print(table.rich())
