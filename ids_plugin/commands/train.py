"""`ids-plugin train`: labelled flows → bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from ids_plugin import api, registry
from ids_plugin.bundle import require_place, write
from ids_plugin.commands import Command, Console
from ids_plugin.commands.options.record import add_record_option, recorded


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    parser.add_argument(
        "--family",
        default="anomaly_net",
        metavar="FAMILY",
        help=f"model family, one of {', '.join(registry.names('models'))} (default: %(default)s)",
    )
    parser.add_argument(
        "--members",
        default="lightgbm,behaviour",
        metavar="A,B",
        help="models that vote beside the family (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="SPEC",
        help="KIND:PATH of labelled flows, such as lab:DIR",
    )
    parser.add_argument(
        "--val",
        nargs="+",
        default=[],
        metavar="SPEC",
        help="networks held out to stop early and to calibrate",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="CSV of labels of `zeek:` logs")
    parser.add_argument(
        "--seed", type=int, default=1, help="of everything random (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="of the network, at most (default: the recipe's)"
    )
    parser.add_argument(
        "--false-per-day", type=float, default=1.0, help="false alerts a day that thresholds allow"
    )
    parser.add_argument(
        "--balance",
        choices=("resample", "weight", "none"),
        default="resample",
        help="how rare classes count: drawn more often, weighing more, or not at all more "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--focal",
        type=float,
        default=0.0,
        metavar="GAMMA",
        help="focal loss; 0 is none, 2 is usual",
    )
    parser.add_argument(
        "--out", required=True, metavar="BUNDLE", help="directory, or file ending in .idsb"
    )
    add_record_option(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        MissingExtraError: torch isn't installed.
        UsageError, InputError: the family, the data or a place to write to can't be used.
    """
    out = Path(args.out)
    require_place(out)
    with recorded(args, [*args.data, *args.val]) as record:
        bundle = api.train(
            args.data,
            family=args.family,
            validation=args.val,
            labels=args.labels,
            seed=args.seed,
            epochs=args.epochs,
            members=tuple(name for name in args.members.split(",") if name),
            false_alerts_per_day=args.false_per_day,
            balance=args.balance,
            focal_gamma=args.focal,
            progress=console.say,
        )
        write(bundle, out)
        record.update(
            {
                name: bundle.manifest.document.get(name)
                for name in ("id", "training", "metrics", "thresholds")
            }
        )
    silent = [name for name, threshold in bundle.manifest.thresholds.items() if threshold >= 1.0]
    if silent:
        message = (
            f"no threshold finds any within {args.false_per_day:g} false alerts a day: "
            "these never alert"
        )
        console.complain(f"{', '.join(silent)}: {message}")
    if console.json:
        console.result(
            {"bundle": bundle.id, "out": args.out, "metrics": bundle.manifest.document["metrics"]}
        )
    else:
        console.say(f"wrote {args.out}: {bundle.id[:12]}")
    return 0


PLUGIN = Command(
    "train",
    "Train a bundle on labelled flows.",
    "example: ids-plugin train --data lab:tests/lab/flows/train --out my-bundle",
    configure,
    run,
)
