"""``todo up``"""

import os
import shlex
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from config.settings import Settings, SettingsError, environment, load_settings
from scripts.stack.embedded import Choices, EmbeddedStack
from scripts.stack.folder import held
from scripts.stack.secret_file import kept_secret
from scripts.stack.server import free_port, port_is_taken
from scripts.tokens import sign_token
from scripts.tool_settings import data_dir_option, tool_settings

_DEMO_USER = "demo"
_TOKEN_LIFETIME = timedelta(days=7)
# A process takes 40 MB or so, and this is for a person who tries it.
_DEFAULT_PROCESSES = min(2, os.cpu_count() or 1)


class StopRequested(BaseException):
    """Ctrl-C or SIGTERM: unwinds like KeyboardInterrupt, but only once."""


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the API.  [default: HTTP_PORT, else 8080]"
)
@click.option(
    "--kafka", is_flag=True, help="Commands wait in Kafka: that of KAFKA_BROKERS, else one started here."
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="API processes.  [default: WEB_CONCURRENCY, else 2]"
)
@data_dir_option
def up(port: int | None, kafka: bool, workers: int | None, folder: Path) -> None:
    """Run the whole thing here: database, cache, log, worker and API.

    Real servers of its own, whatever DATABASE_URL and REDIS_URL say; data and logs stay in the data folder.
    Ctrl-C stops everything in order.
    """
    console = Console(highlight=False, soft_wrap=True, markup=False)
    surroundings = environment()
    settings = load_settings("tool", surroundings)
    port = port or settings.http_port

    def announce(line: str) -> None:
        console.print(line, style="dim")

    signals = StopSignals(announce)
    try:
        with held(folder, f"http://127.0.0.1:{port}", announce) as lock:
            if port_is_taken(port):
                raise SettingsError(
                    f"Port {port} is taken by another program; try `todo up --port {_free_port_after(port)}`."
                )
            choices = Choices(
                http_port=port,
                jwt_secret=None if settings.jwt_secret else kept_secret(folder / "jwt-secret"),
                log_format=surroundings.get("LOG_FORMAT") or "console",
                processes=workers or settings.web_concurrency or _DEFAULT_PROCESSES,
                kafka=kafka,
                brokers=(surroundings.get("KAFKA_BROKERS") or None) if kafka else None,
            )
            stack = EmbeddedStack(folder, choices, lock=lock, announce=announce)
            try:
                stack.start()
                console.print(_banner(port, folder, choices, surroundings))
                stack.watch()
            finally:
                # From here on nothing may interrupt: an orderly stop is what is asked for.
                signals.stopping = True
                announce("Stopping the API, then the worker, then the servers")
                stack.stop()
    except StopRequested:
        announce("Stopped; the data is kept")


class StopSignals:
    """Turns the first SIGINT, SIGTERM or SIGHUP into StopRequested; says to any other that we are at it."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.stopping = False
        self._announce = announce
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            self._announce("Still stopping")
            return
        self.stopping = True
        raise StopRequested


def _free_port_after(port: int) -> int:
    following = range(port + 1, min(port + 100, 65536))
    return next((each for each in following if not port_is_taken(each)), free_port())


def _banner(port: int, folder: Path, choices: Choices, surroundings: dict[str, str]) -> str:
    url = f"http://127.0.0.1:{port}"
    ignored = [name for name in ("DATABASE_URL", "REDIS_URL") if surroundings.get(name)]
    log = f"Kafka ({choices.brokers or 'started here'})" if choices.kafka else "Valkey Streams"
    lines = [
        "",
        f"  The Todo API is at {url}   (commands wait in {log})",
        *([f"  {' and '.join(ignored)} not used: these servers are its own"] if ignored else []),
        "",
        *_invitation(url, tool_settings(folder)),
        "",
        f"  Pages  {url}/   {url}/docs   {url}/status",
        f"  Data   {folder.absolute()}",
        f"  Logs   {folder.absolute() / 'logs'}",
        "",
        "  Ctrl-C stops it; what you stored stays.",
        "",
    ]
    return "\n".join(lines)


def _invitation(url: str, settings: Settings) -> list[str]:
    try:
        token = sign_token(settings, _DEMO_USER, _TOKEN_LIFETIME)
    except SettingsError:
        return ["  Tokens come from the identity provider that JWT_JWKS_URL names."]
    body = shlex.quote('{"title": "Buy milk"}')
    return [
        f"  A token of user {_DEMO_USER}, valid for {_TOKEN_LIFETIME.days} days (`todo token` makes others):",
        "",
        token,
        "",
        "  Create a todo, then list them:",
        "",
        f"curl -X POST {url}/todos -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d {body}",
        "",
        f"curl '{url}/todos?limit=100'",
    ]
