"""``todo health``"""

import http.client
import socket
import sys
from typing import NoReturn
from urllib.parse import urlsplit

import click

from config.settings import load_settings

_TIMEOUT_S = 2.0


@click.command()
@click.option("--url", help="What to ask instead, for example http://api.example:8080/ready.")
@click.option("--relay", is_flag=True, help="Whether the relay listens on PUBLISHER_SOCKET instead.")
def health(url: str | None, relay: bool) -> None:
    """Ask the API on this machine whether it lives: exit code 0 or 1.

    For containers, which need no shell and no curl for it. Whether it should get requests is what /ready says.
    """
    if relay:
        if url:
            raise click.UsageError("--url and --relay ask different programs: give one of them")
        _ask_relay()
    _ask_api(url or f"http://127.0.0.1:{load_settings('tool').http_port}/health")


def _ask_relay() -> NoReturn:
    path = load_settings("relay").publisher_socket
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(str(path))
        except OSError as ex:
            click.echo(f"Nobody listens at {path}: {ex}", err=True)
            sys.exit(1)
    click.echo(f"A relay listens at {path}")
    sys.exit(0)


def _ask_api(url: str) -> NoReturn:
    asked = urlsplit(url)
    if asked.scheme != "http" or not asked.hostname:
        raise click.BadParameter("must be a URL beginning with http://", param_hint="--url")
    connection = http.client.HTTPConnection(asked.hostname, asked.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", asked.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as ex:
        click.echo(f"No answer from {asked.geturl()}: {ex}", err=True)
        sys.exit(1)
    finally:
        connection.close()
    click.echo(f"{status} from {asked.geturl()}")
    sys.exit(status != 200)
