"""Checks that need no service: installed packages, the bundle, the allow-list, keys, networks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec

from ids_plugin.commands.doctor.findings import PROCESSES, Area, Asked, State
from ids_plugin.config import Config
from ids_plugin.errors import ConfigError, MissingExtraError

Found = tuple[State, str, str]


def check(asked: Asked) -> Iterator[Found]:
    """
    Raises:
        ConfigError, BundleError, MissingExtraError: something can't be used.
    """
    yield from _installed(asked)
    if "normalise" in asked.processes:
        yield from _subscription(asked.config)
    if "detect" in asked.processes:
        yield from _judging(asked.config)


def _installed(asked: Asked) -> Iterator[Found]:
    if not find_spec("kafka"):
        raise MissingExtraError(
            "kafka-python isn't installed", hint="pip install 'ids-plugin[kafka]'"
        )
    if find_spec("crc32c"):
        yield State.OK, "kafka-python and crc32c are installed", ""
    else:
        yield (
            State.WARNING,
            "crc32c isn't installed: Kafka is 5 to 15 times slower",
            "pip install 'ids-plugin[kafka]'",
        )
    if "deliver" in asked.processes and not find_spec("elasticsearch"):
        raise MissingExtraError(
            "Elasticsearch's client isn't installed", hint="pip install 'ids-plugin[elastic]'"
        )
    for program, use in (("zeek", "--meter zeek"), ("suricata", "--meter suricata")):
        where = shutil.which(program)
        yield State.OK, f"{program}: {where or 'not installed, needed for ' + use + ' only'}", ""


def _subscription(config: Config) -> Iterator[Found]:
    settings = config.normalise
    if bool(settings.topics) == bool(settings.pattern):
        what = "both topics and a pattern" if settings.topics else "neither topics nor a pattern"
        raise ConfigError(f"normalise has {what}", hint='such as topics = ["zeek"]')
    unread_topics = sorted(set(settings.sensors) - set(settings.topics)) if settings.topics else []
    if unread_topics:
        yield (
            State.WARNING,
            f"normalise.sensors names topics that aren't read: {', '.join(unread_topics)}",
            "correct them",
        )


def _judging(config: Config) -> Iterator[Found]:
    from ids_plugin.alerts import read_allow_list
    from ids_plugin.bundle import find, read, read_key
    from ids_plugin.sources.local_networks import LocalRule, networks
    from ids_plugin.windows import spec

    settings = config.detect
    public_key = read_key(settings.public_key)
    bundle = read(find(str(settings.bundle or "default")), spec=spec(), public_key=public_key)
    signed = "" if settings.public_key else ", its signature not asked for"
    yield State.OK, f"bundle {bundle.id[:12]} ({bundle.family}) can be used{signed}", ""
    if settings.public_key is None:
        hint = "set detect.public_key; without it no bundle is taken from Kafka"
        yield State.WARNING, "no public key: bundles on Kafka are refused", hint
    read_allow_list(settings.allow)
    rule = LocalRule(networks(settings.local_nets))
    yield State.OK, "allow-list and local networks can be used", ""
    yield State.OK, rule.describe("detect.local_nets"), ""


AREA = Area("settings", frozenset({*PROCESSES, "ship"}), check)
