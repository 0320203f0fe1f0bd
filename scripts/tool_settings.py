"""The settings of a tool: the environment's, else those of the stack that ``todo up`` runs here."""

from pathlib import Path
from typing import Final

import click

from config.settings import Settings, SettingsError, environment, load_settings
from scripts.stack.folder import DEFAULT_FOLDER, published_environment

# What of the stack's settings says where its servers are.
_SERVERS: Final = {"DATABASE_URL", "REDIS_URL", "COMMAND_LOG", "KAFKA_BROKERS", "PUBLISHER_SOCKET"}

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

    Another database there means other servers: then none of the stack's is used. Raises SettingsError.
    """
    is_set = {name: value for name, value in environment().items() if value}
    stack = published_environment(folder)
    if is_set.get("DATABASE_URL", stack.get("DATABASE_URL")) != stack.get("DATABASE_URL"):
        stack = {name: value for name, value in stack.items() if name not in _SERVERS}
    return load_settings("tool", stack | is_set)


def database_url(folder: Path) -> str:
    """Return the URL of the database a tool works on. Raises SettingsError when none is known."""
    url = tool_settings(folder).database_url
    if not url:
        raise SettingsError(f"settings:\n  - DATABASE_URL is not set, and `todo up` never ran in {folder}")
    return url
