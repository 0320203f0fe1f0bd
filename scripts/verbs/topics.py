"""``todo topics``"""

from pathlib import Path

import click

from scripts import tool_settings


@click.command()
@click.option(
    "--replication-factor",
    type=click.IntRange(min=1),
    help="Copies of each partition; the broker's default when not given. In production 3, with min.insync.replicas 2.",
)
@tool_settings.data_dir_option
def topics(replication_factor: int | None, folder: Path) -> None:
    """Create the Kafka topics, with their partitions.

    That of the commands and that of the dead letters, unless they are there. What is there is never altered;
    another number of partitions than KAFKA_PARTITIONS is an error. Safe to repeat, and by two at once.
    """
    settings = tool_settings.tool_settings(folder)
    if settings.command_log == "streams":
        click.echo("nothing to do, commands wait in Streams (COMMAND_LOG), which need no topics")
        return
    # Only here: the driver takes 0.2 s to import.
    from todo_api.core.command_log.kafka_security import KafkaSecurity
    from todo_api.core.command_log.topics import ensure_topics

    for topic in ensure_topics(
        settings.kafka_brokers,
        settings.kafka_todo_topic,
        settings.kafka_partitions,
        replication_factor=-1 if replication_factor is None else replication_factor,
        security=KafkaSecurity(**settings.kafka_security),
    ):
        click.echo(f"{'created' if topic.created else 'exists'} {topic.name} ({_count(topic.partitions)})")


def _count(partitions: int) -> str:
    return f"{partitions} partition{'s' * (partitions != 1)}"
