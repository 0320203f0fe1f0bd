"""``todo token``"""

from datetime import timedelta
from pathlib import Path

import click

from scripts.tokens import sign_token
from scripts.tool_settings import data_dir_option, tool_settings


@click.command()
@click.option("--user", default="demo", show_default=True, help="Whose todos: the `sub` of the token.")
@click.option(
    "--hours", type=click.IntRange(min=1), default=168, show_default=True, help="How long it is valid."
)
@data_dir_option
def token(user: str, hours: int, folder: Path) -> None:
    """Print a token for the API.

    Signed with JWT_SECRET, or with the secret of `todo up` when that is not set.
    """
    if not user:
        raise click.BadParameter("must not be empty", param_hint="--user")
    click.echo(sign_token(tool_settings(folder), user, timedelta(hours=hours)))
