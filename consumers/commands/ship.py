"""The command `ids-consumer ship`."""

from __future__ import annotations

import argparse

from ids_plugin.commands import Command, Console

from ..shipping.options import ShipOptions
from .options import ServiceOptions, add_service_options, load_settings

STAGE = "ship"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `ship`."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="log that is written to, or a glob of such; or one elasticsearch:URL/INDEX, "
        "whose documents are followed",
    )
    parser.add_argument("--topic", required=True, help="where the lines go")
    parser.add_argument(
        "--rotated",
        action="append",
        default=[],
        metavar="GLOB",
        help="rotated files in other folders",
    )
    parser.add_argument(
        "--sensor",
        metavar="NAME",
        help="whose files these are (default: ship.sensor, else the host)",
    )
    parser.add_argument(
        "--from-end", action="store_true", help="leave out what is there at the very first start"
    )
    parser.add_argument(
        "--arrival",
        default="event.ingested",
        metavar="FIELD",
        help="of an index: the date at which a document was indexed (default: %(default)s)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="of an index: how long after its arrival a document may become searchable "
        "(default: %(default)g)",
    )
    add_service_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Runs the process until a stop is requested.

    Raises:
        ConfigError: the configuration can't be used.
        MissingExtraError: a client isn't installed.
        UsageError: another process has our name; files and indices don't go together.
    """
    from ..runtime.service import Service

    options = _ship_options(args)
    is_of_index = options.is_of_index
    with Service(STAGE, load_settings(ServiceOptions.parse(args), STAGE)) as service:
        if is_of_index:
            from ..shipping.index_shipper import IndexShipper

            IndexShipper(service, options).run()
        else:
            from ..shipping.file_shipper import FileShipper

            FileShipper(service, options).run()
    return 0


def _ship_options(args: argparse.Namespace) -> ShipOptions:
    return ShipOptions(
        topic=args.topic,
        inputs=tuple(args.files),
        rotated=tuple(args.rotated),
        sensor=args.sensor,
        is_from_end=args.from_end,
        arrival_field=args.arrival,
        overlap_s=args.overlap,
    )


PLUGIN = Command(
    STAGE,
    "Follow log files of Zeek and Suricata onto the streaming pipeline, through rotation and "
    "restarts.",
    "example: ids-consumer ship /var/log/suricata/eve.json --topic suricata --config ids.toml",
    configure,
    run,
)
