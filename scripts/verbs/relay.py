"""``todo relay``"""

import os
import sys
from typing import NoReturn

import click

from config.settings import load_settings


@click.command()
def relay() -> NoReturn:
    """Run the relay that appends for all API processes of this machine.

    The same as `python -m todo_api.relay`, after the settings have been checked.
    """
    load_settings("relay")
    os.execv(sys.executable, [sys.executable, "-m", "todo_api.relay"])  # noqa: S606 an argument list, no shell
