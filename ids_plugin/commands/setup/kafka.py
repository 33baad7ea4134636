"""`ids-plugin setup kafka`: our topics, and on request those of the sensors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ids_plugin import config, kafka
from ids_plugin.commands import Command, Console
from ids_plugin.commands.setup.steps import report
from ids_plugin.config import Config

PARTITIONS = 4
SMALL_SEGMENTS = {"segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.1"}
"""Only closed segments are compacted: what grows fast and is replaced all the time closes them
early."""


class Topic(NamedTuple):
    """A topic as it has to be."""

    name: str
    spread: bool
    """it has as many partitions as work is to be shared by; else one"""
    settings: Mapping[str, str]


class Step(NamedTuple):
    """One topic: what was done with it, or would be."""

    name: str
    action: str
    """create, change, or keep (nothing to do)"""
    why: str = ""


def own_topics(config: Config) -> tuple[Topic, ...]:
    """Our topics; settings that aren't named are the broker's."""
    names = config.topics
    compacted = {"cleanup.policy": "compact"}
    expiring = {"cleanup.policy": "delete"}
    return (
        Topic(names.flows, True, expiring),
        Topic(names.alerts, True, expiring),
        Topic(names.rejects, False, expiring),
        Topic(names.ledger, False, expiring),
        Topic(names.state, False, compacted | SMALL_SEGMENTS),
        Topic(names.places, False, compacted | SMALL_SEGMENTS),
        Topic(names.bundles, False, compacted | {"max.message.bytes": str(kafka.LARGEST_BUNDLE)}),
    )


def sensor_topics(config: Config) -> tuple[Topic, ...]:
    """The sensors' topics that are named; their settings are the sensors' or the broker's."""
    return tuple(Topic(name, True, {}) for name in config.normalise.topics)


def existing_topics(admin: Any, topics: tuple[Topic, ...]) -> dict[str, tuple[int, dict[str, str]]]:
    """Number of partitions and settings of those topics that are there."""
    from kafka.admin import ConfigResource, ConfigResourceType

    names = [topic.name for topic in topics]
    counts = {
        entry["name"]: len(entry["partitions"])
        for entry in admin.describe_topics()
        if entry["name"] in names
    }
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    settings = admin.describe_configs(asked, config_filter="all")["topic"] if asked else {}
    return {
        name: (count, {key: str(entry["value"]) for key, entry in settings[name].items()})
        for name, count in counts.items()
    }


def install(
    config: Config, topics: tuple[Topic, ...], *, partitions: int, replication: int, dry_run: bool
) -> Iterator[Step]:
    """Does one step after the other, and says so after each; with `dry_run` only says so.
    Partitions aren't added to what there is: the state of sensors lies by partition.

    Raises:
        MissingExtraError, ConfigError, ServiceError: as `kafka.reaching`; what was done before
            stays.
    """
    with kafka.admin(config) as admin, kafka.reaching(config):
        from kafka.admin import ConfigResource, ConfigResourceType

        existing = existing_topics(admin, topics)
        for topic in topics:
            if topic.name not in existing:
                count = partitions if topic.spread else 1
                options = {
                    "num_partitions": count,
                    "replication_factor": replication,
                    "configs": dict(topic.settings),
                }
                if not dry_run:
                    admin.create_topics({topic.name: options}, wait_for_metadata=True)
                yield Step(topic.name, "create", f"{count} partition{'s' * (count > 1)}")
                continue
            count, settings = existing[topic.name]
            differing = {
                key: value for key, value in topic.settings.items() if settings.get(key) != value
            }
            if differing:
                if not dry_run:
                    admin.alter_configs(
                        [ConfigResource(ConfigResourceType.TOPIC, topic.name, differing)]
                    )
                yield Step(
                    topic.name,
                    "change",
                    ", ".join(f"{key} to {value}" for key, value in differing.items()),
                )
            else:
                fewer = (
                    f"it has {count} partitions, not {partitions}"
                    if topic.spread and count != partitions
                    else ""
                )
                yield Step(topic.name, "keep", fewer)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `setup kafka`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings (TOML): [kafka] and [topics] count here",
    )
    text = (
        "of each topic that is made, so many instances of a "
        f"consumer can share the work (default: {PARTITIONS})"
    )
    parser.add_argument("--partitions", type=int, default=PARTITIONS, metavar="N", help=text)
    parser.add_argument(
        "--replication",
        type=int,
        default=-1,
        metavar="N",
        help="copies of each topic that is made (default: broker's)",
    )
    parser.add_argument(
        "--sources", action="store_true", help="also make the topics of normalise.topics"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError: numbers that can't be.
        MissingExtraError, ConfigError: kafka-python isn't installed; settings that can't be.
        ServiceError: a step can't be done; what was done before it stays.
    """
    settings = config.load(args.config)
    topics = own_topics(settings) + (sensor_topics(settings) if args.sources else ())
    steps = install(
        settings,
        topics,
        partitions=args.partitions,
        replication=args.replication,
        dry_run=args.dry_run,
    )
    report(steps, console, what="topic", kind=lambda _: "topic", dry_run=args.dry_run)
    return 0


TARGET = Command(
    "kafka",
    "Topics for our flows, alerts, rejects, counts, state and bundles.",
    "example: ids-plugin setup kafka --config ids.toml --partitions 8",
    configure,
    run,
)
