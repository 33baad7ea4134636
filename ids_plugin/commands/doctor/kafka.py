"""Checks of Kafka: access, topics and rights, writes in transactions, the sensors' clocks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ids_plugin import kafka
from ids_plugin.commands import counted
from ids_plugin.commands.doctor.findings import PROCESSES, Area, Asked, State
from ids_plugin.commands.setup import kafka as setup
from ids_plugin.config import Config
from ids_plugin.errors import ServiceError

if TYPE_CHECKING:
    from kafka import KafkaConsumer

Found = tuple[State, str, str]
ADMINISTRATOR = "the broker's administrator has to allow it (ACLs): docs/deploy.md"
SETUP = "ids-plugin setup kafka"
MIN_RETENTION_MS = 24 * 3600_000
"""for which topics must keep messages: outages last a night"""
CLOCK_SKEW_MS = 5_000
"""How far a sensor's clock may be ahead of ours"""
NEWEST_RECORDS = 20
"""Records of each source partition that are looked at"""
WRITE_TIMEOUT_MS = 10_000


class Use(NamedTuple):
    """What a process does with topics of ours, by their keys in [topics]."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


USES = {
    "normalise": Use((), ("flows", "rejects", "ledger")),
    "detect": Use(("flows", "state", "bundles"), ("alerts", "rejects", "ledger", "state")),
    "deliver": Use(("alerts", "ledger"), ("rejects", "ledger")),
    "ship": Use(("places",), ("places",)),
}


def check(asked: Asked) -> Iterator[Found]:
    """
    Raises:
        ConfigError, MissingExtraError, ServiceError: as `kafka.reaching`.
    """
    config = asked.config
    with closing(kafka.admin(config)) as admin:
        with kafka.reaching(config):
            brokers = len(admin.describe_cluster()["brokers"])
            descriptions = {topic["name"]: topic for topic in admin.describe_topics()}
        yield (
            State.OK,
            f"{', '.join(config.kafka.bootstrap)} answers: {counted(brokers, 'broker')}",
            "",
        )
        topic_results = list(_topics(asked, descriptions, brokers))
        yield from topic_results
        with kafka.reaching(config):
            yield from _settings(asked, admin)
        yield from _groups(asked, admin, descriptions)
    if not any(state is State.FAILURE for state, _, _ in topic_results):
        yield from _writes(asked)
        yield from _clocks(asked, descriptions)


def needed(asked: Asked) -> dict[str, set[str]]:
    """Topic → the rights that the processes need to it."""
    names, rights = vars(asked.config.topics), dict[str, set[str]]()
    for process in asked.processes:
        for key in USES[process].reads:
            rights.setdefault(names[key], set()).update({"READ", "DESCRIBE"})
        for key in USES[process].writes:
            rights.setdefault(names[key], set()).update({"WRITE", "DESCRIBE"})
    return rights


def _topics(asked: Asked, descriptions: Mapping[str, Any], brokers: int) -> Iterator[Found]:
    """Whether the topics are there, may be used, and have their replicas."""
    rights = needed(asked)
    if missing := sorted(rights.keys() - descriptions.keys()):
        yield (
            State.FAILURE,
            f"missing, or hidden from us: {', '.join(missing)}",
            f"{SETUP}; {ADMINISTRATOR}",
        )
    else:
        yield State.OK, f"{counted(len(rights), 'topic')} of ours are there", ""
    for name in sorted(rights.keys() & descriptions.keys()):
        lacking = sorted(rights[name] - set(descriptions[name]["authorized_operations"]))
        if lacking:
            yield (
                State.FAILURE,
                f"topic {name}: we may not {' or '.join(lacking).lower()}",
                ADMINISTRATOR,
            )
        yield from _replicas(descriptions[name], brokers)
    if "normalise" in asked.processes:
        yield from _sources(asked.config, descriptions)


def _replicas(topic: Mapping[str, Any], brokers: int) -> Iterator[Found]:
    name, partitions = topic["name"], topic["partitions"]
    if any(partition["leader_id"] < 0 for partition in partitions):
        yield (
            State.FAILURE,
            f"topic {name} has partitions without a leader",
            "start the brokers that are down",
        )
    elif any(
        len(partition["isr_nodes"]) < len(partition["replica_nodes"]) for partition in partitions
    ):
        yield (
            State.WARNING,
            f"topic {name} has copies that lag or are down",
            "start the brokers that are down",
        )
    if brokers > 1 and any(len(partition["replica_nodes"]) == 1 for partition in partitions):
        yield (
            State.WARNING,
            f"topic {name} has one copy: with its broker it is gone",
            "add replicas (kafka-reassign)",
        )


def _sources(config: Config, descriptions: Mapping[str, Any]) -> Iterator[Found]:
    sources = _read(config, descriptions)
    if missing := sorted(set(config.normalise.topics) - set(descriptions)):
        what = f"source topics missing, or hidden from us: {', '.join(missing)}"
        yield State.FAILURE, what, f"{SETUP} --sources; {ADMINISTRATOR}"
    for name in sources:
        if "READ" not in descriptions[name]["authorized_operations"]:
            yield State.FAILURE, f"source topic {name}: we may not read", ADMINISTRATOR
    if config.normalise.pattern and not sources:
        hint = "correct normalise.pattern, or wait for the sensors"
        yield State.WARNING, f"no topic fits the pattern {config.normalise.pattern}", hint
    elif sources:
        yield State.OK, f"reading {', '.join(sources)}", ""


def _read(config: Config, descriptions: Mapping[str, Any]) -> list[str]:
    """The source topics that are there."""
    if not config.normalise.pattern:
        return [name for name in config.normalise.topics if name in descriptions]
    own_topics = set(vars(config.topics).values())
    return sorted(
        name
        for name in descriptions
        if name not in own_topics and re.fullmatch(config.normalise.pattern, name)
    )


def _settings(asked: Asked, admin: Any) -> Iterator[Found]:
    """Whether our topics keep messages long enough and take the largest ones."""
    names = needed(asked)
    topics = tuple(topic for topic in setup.own_topics(asked.config) if topic.name in names)
    for name, (_, settings) in setup.existing_topics(admin, topics).items():
        wanted = next(topic.settings for topic in topics if topic.name == name)
        policy = wanted["cleanup.policy"]
        if settings["cleanup.policy"] != policy:
            yield (
                State.FAILURE,
                f"topic {name} has cleanup.policy {settings['cleanup.policy']}, not {policy}",
                SETUP,
            )
        largest = int(wanted.get("max.message.bytes", kafka.LARGEST_MESSAGE))
        if int(settings["max.message.bytes"]) < largest:
            what = (
                f"topic {name} takes messages up to "
                f"{settings['max.message.bytes']} bytes, ours have up to {largest}"
            )
            yield State.FAILURE, what, f"raise max.message.bytes of {name}"
        retention_ms = int(settings["retention.ms"])
        if policy == "delete" and 0 <= retention_ms < MIN_RETENTION_MS:
            what = (
                f"topic {name} keeps messages for "
                f"{retention_ms / 3600_000:.1f} h: a longer outage loses some"
            )
            yield State.WARNING, what, f"raise retention.ms of {name} to a day or more"


def _groups(asked: Asked, admin: Any, descriptions: Mapping[str, Any]) -> Iterator[Found]:
    """Whether the consumer groups may be used, have no idle instance, and use one bundle."""
    from kafka.errors import CoordinatorNotAvailableError

    names = asked.config.topics
    for process in (name for name in asked.processes if name in PROCESSES):
        group = getattr(asked.config, process).group
        try:
            with kafka.reaching(asked.config):
                description = admin.describe_groups([group])[group]
        except ServiceError as error:
            if isinstance(error.__cause__, CoordinatorNotAvailableError):
                yield State.OK, "nobody has used a group there yet", ""
                return
            yield State.FAILURE, f"group {group}: {error.message}", error.hint or ""
            continue
        if "READ" not in (description.get("authorized_operations") or ["READ"]):
            yield State.FAILURE, f"group {group}: we may not use it", ADMINISTRATOR
        members = len(description.get("members") or ())
        topics = {
            "normalise": _read(asked.config, descriptions),
            "detect": [names.flows],
            "deliver": [names.alerts],
        }[process]
        parts = sum(
            len(descriptions[name]["partitions"]) for name in topics if name in descriptions
        )
        if members > parts > 0:
            shared = f"{members} instances share {counted(parts, 'partition')}"
            what = f"{process}: {shared}, {members - parts} of them without work"
            yield State.WARNING, what, f"run fewer, or give {', '.join(topics)} more partitions"
        else:
            yield State.OK, f"{process}: {counted(members, 'instance')} running", ""
    if "detect" in asked.processes:
        yield from _bundles(asked.config, admin)


def _bundles(config: Config, admin: Any) -> Iterator[Found]:
    with kafka.reaching(config):
        offsets = admin.list_group_offsets({config.detect.group: None})[config.detect.group]
    partitions: dict[str, list[int]] = {}
    for partition, committed in offsets.items():
        if committed.metadata:
            bundle = str(orjson.loads(committed.metadata).get("bundle", ""))
            partitions.setdefault(bundle, []).append(partition.partition)
    if len(partitions) > 1:
        bundles = "; ".join(
            f"{bundle[:12]} on partitions {sorted(numbers)}"
            for bundle, numbers in partitions.items()
        )
        hint = "give every instance of detect the same bundle"
        yield State.FAILURE, f"instances of detect judge by different bundles: {bundles}", hint


def _writes(asked: Asked) -> Iterator[Found]:
    """A transaction as the processes make it, aborted in the end: nobody reads what it wrote."""
    config = asked.config
    options = {"delivery_timeout_ms": WRITE_TIMEOUT_MS, "request_timeout_ms": WRITE_TIMEOUT_MS // 2}
    for process in asked.processes:
        group, topic = (
            getattr(config, process).group,
            getattr(config.topics, USES[process].writes[-1]),
        )
        with (
            closing(kafka.producer(config, group, "doctor", **options)) as producer,
            kafka.reaching(config),
        ):
            producer.begin_transaction()
            try:
                producer.send(topic, b"{}", b"doctor").get(timeout=WRITE_TIMEOUT_MS / 1000)
            finally:
                producer.abort_transaction()
        yield State.OK, f"{process}: {topic} takes writes in transactions", ""


def _clocks(asked: Asked, descriptions: Mapping[str, Any]) -> Iterator[Found]:
    """Whether sensors' records are from the future."""
    topics = _read(asked.config, descriptions) if "normalise" in asked.processes else []
    if not topics:
        return
    with closing(kafka.consumer(asked.config)) as consumer, kafka.reaching(asked.config):
        newest = _newest(consumer, topics)
    now = time.time() * 1000
    for topic in topics:
        if topic not in newest:
            yield (
                State.WARNING,
                f"source topic {topic} is empty",
                "do the sensors send? Zeek's reporter.log says why not",
            )
        elif (ahead := newest[topic] - now) > CLOCK_SKEW_MS:
            what = f"source topic {topic}: records are {ahead / 1000:.0f} s ahead of the clock here"
            yield State.FAILURE, what, "set the clocks of the sensors and of this host (NTP)"
        else:
            yield (
                State.OK,
                f"source topic {topic}: newest record {max(0, -ahead) / 1000:.0f} s old",
                "",
            )


def _newest(consumer: KafkaConsumer, topics: list[str]) -> dict[str, int]:
    """The largest timestamp (ms) among the last records of each topic."""
    from kafka import TopicPartition

    parts = [
        TopicPartition(name, number)
        for name in topics
        for number in consumer.partitions_for_topic(name) or ()
    ]
    begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
    filled = [part for part in parts if ends[part] > begins[part]]
    consumer.assign(filled)
    for part in filled:
        consumer.seek(part, max(begins[part], ends[part] - NEWEST_RECORDS))
    newest: dict[str, int] = {}
    waiting, end = set[TopicPartition](filled), time.monotonic() + WRITE_TIMEOUT_MS / 1000
    while waiting and time.monotonic() < end:
        for part, records in consumer.poll(timeout_ms=200).items():
            newest[part.topic] = max(
                newest.get(part.topic, 0), *(record.timestamp for record in records)
            )
        waiting = {part for part in waiting if consumer.position(part) < ends[part]}
    return newest


AREA = Area("kafka", frozenset(USES), check)
