"""Options of commands that talk to Elasticsearch or Kibana; secrets come from files: anybody can
see options."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ids_plugin.config import Elasticsearch, Kibana

    Settings = TypeVar("Settings", Elasticsearch, Kibana)


def add_access_options(parser: argparse.ArgumentParser, url: str) -> None:
    """Where it is (`url` is the option's name), who we are to it, and which of its data streams are
    meant."""
    parser.add_argument(
        url, dest="url", metavar="URL", help="Elasticsearch, such as https://host:9200"
    )
    add_login_options(parser)
    parser.add_argument("--namespace", metavar="NAME", help="last part of the data streams' names")


def add_login_options(parser: argparse._ActionsContainer) -> None:
    """Who we are to it, and the settings for what no option says."""
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with the API key: id:key, or as Kibana shows it",
    )
    parser.add_argument("--username", metavar="NAME", help="user name, instead of an API key")
    parser.add_argument("--password-file", metavar="FILE", help="file with the user's password")
    parser.add_argument(
        "--ca-file", metavar="PEM", help="certificate of the authority that signed the server's"
    )
    parser.add_argument("--config", metavar="FILE", help="settings (TOML) for what no option says")


def access(args: argparse.Namespace) -> Elasticsearch:
    """The settings of the file and the environment, and above them those of the options.

    Raises:
        ConfigError: a file can't be read, or settings don't fit together.
    """
    from ids_plugin.config import load

    settings = load(Path(args.config) if args.config else None).elasticsearch
    return with_options(args, settings, "namespace")


def with_options(args: argparse.Namespace, settings: Settings, *others: str) -> Settings:
    """Settings, and above them what the options say: of `--url`, of logins, and of the keys
    `others`.

    Raises:
        ConfigError: a file can't be read, or settings don't fit together.
    """
    from ids_plugin.config import secret

    options: dict[str, Any] = {
        "url": getattr(args, "url", None),
        "username": args.username,
        "ca_file": Path(args.ca_file) if args.ca_file else None,
        "api_key": secret(Path(args.api_key_file), "--api-key-file") if args.api_key_file else None,
        "password": secret(Path(args.password_file), "--password-file")
        if args.password_file
        else None,
        **{name: getattr(args, name, None) for name in others},
    }
    if options["api_key"] or options["username"]:
        settings = replace(settings, api_key=None, username=None, password=None)
    return replace(
        settings, **{name: value for name, value in options.items() if value is not None}
    )
