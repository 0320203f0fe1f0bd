"""``todo config``"""

import sys

import click

from config.settings import Role, SettingsError, load_settings


@click.command()
@click.option(
    "--role",
    type=click.Choice(["api", "worker"]),
    default="api",
    show_default=True,
    help="Check what this program needs.",
)
def config(role: Role) -> None:
    """Print every setting as it is in force, secrets hidden.

    Exits with 1 and names everything that is missing or wrong when the program would not start.
    """
    try:
        settings = load_settings(role)
    except SettingsError as ex:
        click.echo(str(ex), err=True)
        sys.exit(1)
    for name, value in settings.shown().items():
        click.echo(f"{name}={value}")
