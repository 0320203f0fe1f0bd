"""``todo worker``"""

import os
import sys
from typing import NoReturn

import click

from config.settings import load_settings


@click.command()
def worker() -> NoReturn:
    """Run the worker against the environment's servers.

    The same as `python -m todo_worker`, after the settings have been checked.
    """
    load_settings("worker")
    os.execv(sys.executable, [sys.executable, "-m", "todo_worker"])  # noqa: S606 an argument list, no shell
