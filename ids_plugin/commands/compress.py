"""`ids-plugin compress`: bundle → smaller bundle, and what it cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from ids_plugin.commands import Command, Console
from ids_plugin.errors import MissingExtraError


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `compress`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="name, directory or .idsb file")
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="SPEC",
        help="KIND:PATH of labelled flows that fix the scales and show the cost: best those that calibrated the bundle",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="CSV of labels of `zeek:` logs")
    parser.add_argument("--steps", default="int8", help="comma-separated steps of the recipe (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the windows that are drawn (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="directory, or file ending in .idsb")


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        MissingExtraError: onnx or torch isn't installed.
        UsageError, BundleError, InputError: the bundle, the steps or the data can't be used.
    """
    try:
        from ids_plugin.compress._run import Options, compress
    except ImportError as error:
        raise MissingExtraError(f"compression needs {error.name}", hint="pip install 'ids-plugin[train]'") from error
    from ids_plugin.bundle import find, read, write

    bundle = read(find(args.bundle))
    steps = tuple(step.strip() for step in args.steps.split(",") if step.strip())
    smaller = compress(bundle, Options(tuple(args.data), steps, seed=args.seed, labels=args.labels), console.say)
    write(smaller, Path(args.out))
    if console.json:
        console.result({"bundle": smaller.id, "out": args.out, "compression": smaller.manifest["compression"]})
        return 0
    for row in smaller.manifest["compression"]:
        print("  ".join(f"{name} {value}" for name, value in row.items()), file=console.out)
    console.say(f"wrote {args.out}: {smaller.id[:12]}")
    return 0


PLUGIN = Command(
    "compress",
    "Make a bundle's network smaller and say what it cost.",
    "example: ids-plugin compress my-bundle --data lab:tests/lab/flows/runs --out my-small-bundle",
    configure,
    run,
)
