"""The settings of a tool: the environment's, else those of the stack that ``todo up`` runs here."""

from pathlib import Path

import click

from config.settings import Settings, SettingsError, environment, load_settings
from scripts.stack.folder import DEFAULT_FOLDER, published_environment

data_dir_option = click.option(
    "--data-dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Data folder of `todo up`.",
)


def tool_settings(folder: Path) -> Settings:
    """Return the settings, of which the environment and ``.env`` come before what the stack in ``folder`` uses.

    Raises SettingsError.
    """
    is_set = {name: value for name, value in environment().items() if value}
    return load_settings("tool", published_environment(folder) | is_set)


def database_url(folder: Path) -> str:
    """Return the URL of the database a tool works on. Raises SettingsError when none is known."""
    url = tool_settings(folder).database_url
    if not url:
        raise SettingsError(f"settings:\n  - DATABASE_URL is not set, and `todo up` never ran in {folder}")
    return url
