"""``todo migrate``"""

from pathlib import Path

import click

from scripts import tool_settings
from todo_api.core import migrations


@click.command()
@click.option(
    "--new-epoch",
    is_flag=True,
    help="Afterwards give the database a new epoch: after a backup was restored, so that no cached page survives.",
)
@tool_settings.data_dir_option
def migrate(new_epoch: bool, folder: Path) -> None:
    """Bring the database to the schema this version needs.

    Safe to repeat, and safe to run by two at once.
    """
    url = tool_settings.database_url(folder)
    applied = migrations.migrate(url)
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("nothing to do, the schema is up to date")
    if new_epoch:
        click.echo(f"new epoch {migrations.new_epoch(url)}")
