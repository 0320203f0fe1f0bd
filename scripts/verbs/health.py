"""``todo health``"""

import http.client
import sys

import click

from config.settings import load_settings

_TIMEOUT_S = 2.0


@click.command()
def health() -> None:
    """Ask the API on this machine whether it lives: exit code 0 or 1.

    For containers, which need no shell and no curl for it. Whether it should get requests is what /ready says.
    """
    port = load_settings("tool").http_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as ex:
        click.echo(f"Nobody answers on port {port}: {ex}", err=True)
        sys.exit(1)
    finally:
        connection.close()
    click.echo(f"{status} from port {port}")
    sys.exit(status != 200)
