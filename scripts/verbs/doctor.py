"""``todo doctor``"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from config.settings import Settings
from scripts import tool_settings
from scripts.doctor.checked import Checked, Clock, skipped, system_clock

_COLOURS = {"ok": "green", "problem": "red", "skipped": "yellow"}


@click.command()
@click.option(
    "--instances",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="API instances there are.",
)
@click.option(
    "--workers", type=click.IntRange(0, 10_000), default=1, show_default=True, help="Workers there are."
)
@click.option(
    "--max-age",
    type=click.IntRange(1, 1_000_000),
    default=30,
    show_default=True,
    help="Seconds that a command may wait to be applied.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@tool_settings.data_dir_option
def doctor(instances: int, workers: int, max_age: int, as_json: bool, folder: Path) -> None:
    """Say what is wrong with this deployment, and how to mend it.

    Run it where the API or the worker runs, with their settings. Changes nothing. Exits with 0 when all is well, 1 when
    there is something to mend, 2 when the settings do not say what to look at.
    """
    # Exits with 2 when it is not known.
    tool_settings.database_url(folder)
    found = examine(
        tool_settings.tool_settings(folder), instances=instances, workers=workers, max_age_s=max_age
    )
    results = []
    for checked in found:
        results.append(checked)
        if not as_json:
            _say(checked)
    is_well = all(checked.state != "problem" for checked in results)
    if as_json:
        click.echo(
            json.dumps({"ok": is_well, "checks": [checked._asdict() for checked in results]}, indent=2)
        )
    sys.exit(0 if is_well else 1)


def examine(
    settings: Settings, *, instances: int, workers: int, max_age_s: float, clock: Clock = system_clock
) -> Iterator[Checked]:
    """Yield what every check finds, in an order in which the first problem often explains the others."""
    from scripts.doctor.backlog import check_backlog
    from scripts.doctor.postgres import check_postgres
    from scripts.doctor.redis import check_redis
    from scripts.doctor.secrets import check_secrets

    yield from check_secrets(settings, Path())
    yield from check_postgres(settings, instances=instances, workers=workers, clock=clock)
    yield from check_redis(settings, instances=instances, workers=workers, clock=clock)
    if settings.command_log == "kafka":
        from scripts.doctor.kafka import check_kafka

        found = list(check_kafka(settings))
        yield from found
        if any(checked.state == "skipped" for checked in found):
            yield skipped("backlog", "Kafka is not reached")
            return
    yield from check_backlog(settings, max_age_s=max_age_s, clock=clock)


def _say(checked: Checked) -> None:
    label = click.style(
        f"{checked.state.upper() if checked.state == 'problem' else checked.state:<8}",
        fg=_COLOURS[checked.state],
    )
    click.echo(f"{label} {checked.name}: {checked.text}")
    if checked.fix:
        click.echo(f"         {checked.fix}")
