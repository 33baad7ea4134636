"""Options that every consumer has, and the settings they lead to."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import itertools
import socket
from dataclasses import dataclass
from pathlib import Path

from ids_plugin import config
from ids_plugin.config import Config

GROUP_STAGES = ("normalise", "detect", "deliver")
"""Stages whose instances can replace each other: any name that no other instance has will do."""


@dataclass(frozen=True)
class ServiceOptions:
    """What the options of every consumer say."""

    config_path: Path | None = None
    instance: str | None = None
    """name of this instance; it takes precedence over that of the configuration"""

    @classmethod
    def parse(cls, args: argparse.Namespace) -> ServiceOptions:
        """The values of the options that `add_service_options` adds."""
        return cls(Path(args.config) if args.config else None, args.instance)


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every consumer."""
    parser.add_argument(
        "--config", metavar="FILE", help="settings (TOML); the environment's IDS_SECTION_KEY win"
    )
    parser.add_argument(
        "--instance", metavar="NAME", help="name of this instance, steady and unique in its group"
    )


def load_settings(options: ServiceOptions, section: str) -> Config:
    """The configuration that the options name, with the instance's name in `section`.

    An instance that shares the work of a group and has no name gets a free one.

    Raises:
        ConfigError: the configuration can't be used.
    """
    settings = config.load(options.config_path)
    stage_settings = getattr(settings, section)
    instance = options.instance or stage_settings.instance
    if not instance and section in GROUP_STAGES:
        instance = _free_instance_name(stage_settings.group)
    return dataclasses.replace(
        settings, **{section: dataclasses.replace(stage_settings, instance=instance)}
    )


def _free_instance_name(group: str) -> str:
    """`HOST-1`, or the next number that no other process of the group on this host has.

    The name is the same again after a restart. A socket holds it, because a socket is released with
    its process however the process ends.
    """
    host = socket.gethostname()
    for number in itertools.count(1):
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0ids-consumer/{group}/{number}")
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE:
                return host
        else:
            _NAME_HOLDERS.append(holder)
            return f"{host}-{number}"
    raise AssertionError("numbers have no end")


_NAME_HOLDERS: list[socket.socket] = []
"""Sockets that hold the names of this process; they stay open until it ends."""
