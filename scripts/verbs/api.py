"""``todo api``"""

import os
import sys
from typing import NoReturn

import click

from config.settings import load_settings


@click.command()
def api() -> NoReturn:
    """Run the API against the environment's servers.

    The same as `gunicorn wsgi:app`, after the settings have been checked.
    """
    load_settings("api")
    os.execv(  # noqa: S606 an argument list, no shell
        sys.executable,
        [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn_conf", "wsgi:app"],
    )
