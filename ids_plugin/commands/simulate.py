"""`ids-plugin simulate`: a seed → labelled flows of simulated networks, to train and check
models.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ids_plugin.commands import Command, Console, counted
from ids_plugin.errors import InputError, UsageError
from ids_plugin.writing import writing

if TYPE_CHECKING:
    import polars as pl


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `simulate`."""
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="the same seed gives the same flows (default: %(default)s)",
    )
    parser.add_argument(
        "--networks", type=int, default=4, metavar="N", help="networks (default: %(default)s)"
    )
    parser.add_argument(
        "--hours",
        type=float,
        default=24.0,
        help="most hours of one network; how many each has is drawn (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PLACE", help="a Parquet file to write; a folder with --corpus"
    )
    parser.add_argument(
        "--corpus",
        action="store_true",
        help="write the corpus of the bundle anomaly_net: shards to train, validate and calibrate "
        "on, and a record of them; --seed, --networks and --hours don't count",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="report what is in the flows of --out, or without --out in new ones, and how far "
        "trivial rules get",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError: --out is missing, a number is too small, or the place can't be written to.
        InputError: --check finds no labelled flows at --out.
    """
    if args.networks < 1 or args.hours <= 0:
        raise UsageError("--networks must be at least 1, and --hours more than 0")
    if args.corpus:
        _write_corpus(_required_place(args), console)
    elif args.check:
        _check(args, console)
    else:
        _write_flows(args, _required_place(args), console)
    return 0


def _required_place(args: argparse.Namespace) -> Path:
    if args.out is None:
        hint = "a folder" if args.corpus else "a Parquet file; or --check without a file"
        raise UsageError("--out is missing", hint=hint)
    place: Path = args.out
    return place


def _write_corpus(folder: Path, console: Console) -> None:
    from ids_plugin.simulation.corpus import write_corpus

    records = []
    with writing(folder):
        for record in write_corpus(folder):
            console.say(f"{record['file']}: {counted(record['flows'], 'flow')}")
            records.append(record)
    if console.json:
        console.result(records)


def _write_flows(args: argparse.Namespace, path: Path, console: Console) -> None:
    from ids_plugin.simulation.corpus import write_shard

    with writing(path):
        record = write_shard(_simulated(args), path)
    if console.json:
        console.result(record)
        return
    console.say(f"{record['file']}: {counted(record['flows'], 'flow')}, sha256 {record['sha256']}")
    for label, count in record["labels"].items():
        console.say(f"  {label} {count:,}")


def _check(args: argparse.Namespace, console: Console) -> None:
    import polars as pl

    from ids_plugin.simulation.trivial_rules import check

    result = check(_read(args.out) if args.out else pl.concat(list(_simulated(args))))
    if console.json:
        console.result(result.document())
    else:
        console.out.write(result.report() + "\n")


def _read(path: Path) -> pl.DataFrame:
    """The labelled flows of a Parquet file.

    Raises:
        InputError: it can't be read.
    """
    import polars as pl

    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"can't be read: {error}", location=str(path)) from error


def _simulated(args: argparse.Namespace) -> Iterator[pl.DataFrame]:
    from ids_plugin.simulation.generate import simulate_networks
    from ids_plugin.simulation.networks import Ranges

    prefix = f"simulated-{args.seed}"
    return simulate_networks(args.seed, args.networks, args.hours, Ranges(), prefix)


PLUGIN = Command(
    "simulate",
    "Make labelled flows of simulated networks.",
    "example: ids-plugin simulate --seed 7 --networks 20 --out flows.parquet",
    configure,
    run,
)
