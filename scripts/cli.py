"""The ``todo`` command: one module of ``scripts.verbs`` a verb, loaded only when it is called."""

from importlib import import_module
from typing import Any, Final

import click

# What ``todo --help`` shows, without loading the verbs; a test compares it with what they say themselves.
VERBS: Final = {
    "up": "Run the whole thing here: database, cache, log, worker and API.",
    "api": "Run the API against the environment's servers.",
    "worker": "Run the worker against the environment's servers.",
    "relay": "Run the relay that appends for all API processes of this machine.",
    "health": "Ask the API on this machine whether it lives: exit code 0 or 1.",
    "migrate": "Bring the database to the schema this version needs.",
    "topics": "Create the Kafka topics, with their partitions.",
    "doctor": "Say what is wrong with this deployment, and how to mend it.",
    "dlq": "List, show, replay and purge dead letters.",
    "token": "Print a token for the API.",
    "seed": "Insert many todos at once.",
    "bench": "Measure on real servers started for it, or one that runs.",
    "plan": "Say what a load needs, and what breaks first.",
    "config": "Print every setting as it is in force, secrets hidden.",
}


class BadSettings(click.ClickException):
    """The settings are wrong, so nothing was begun."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group whose commands are modules of ``scripts.verbs``, each with a command of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command = getattr(import_module(f"scripts.verbs.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        from config.settings import SettingsError
        from scripts.stack.server import StackError
        from todo_api.core.errors import TodoError

        try:
            return super().invoke(ctx)
        except SettingsError as ex:
            raise BadSettings(str(ex)) from ex
        except (StackError, TodoError) as ex:
            raise click.ClickException(str(ex)) from ex


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="todo-api", prog_name="todo")
def main() -> None:
    """Run, feed and look after the Todo API."""


if __name__ == "__main__":
    main()
