"""`ids-plugin compress`: bundle → smaller bundle, and what it cost."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ids_plugin import registry
from ids_plugin.commands import Command, Console
from ids_plugin.commands.options import record
from ids_plugin.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from ids_plugin.bundle import Bundle
    from ids_plugin.compression.run import Stage

_RECORDED = ("data", "train", "labels", "steps", "epochs", "fit", "seed")
"""options that a record repeats"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `compress`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="name, directory or .idsb file")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="SPEC",
        help="KIND:PATH of labelled flows that fix the scales and show the cost: best those that "
        "calibrated the bundle",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="CSV of labels of `zeek:` logs")
    parser.add_argument(
        "--steps",
        default="int8",
        metavar="STEP[=VALUE],…",
        help=f"in this order; there are {', '.join(registry.names('compression_steps'))} "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--train",
        nargs="+",
        default=[],
        metavar="SPEC",
        help="labelled flows from which steps learn again that do",
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="of learning again, at most (default: the recipe's)"
    )
    parser.add_argument(
        "--fit",
        metavar="flash=32k,ram=2k",
        help="of tiny_cnn's ladder: the most accurate rung that a device with so much left holds, "
        "with its C header",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of everything random (default: %(default)s)"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="run record: options, rows and what was measured",
    )
    parser.add_argument(
        "--out", required=True, metavar="BUNDLE", help="directory, or file ending in .idsb"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        MissingExtraError: onnx or torch isn't installed.
        UsageError, BundleError, InputError: the bundle, the steps or the data can't be used.
    """
    try:
        from ids_plugin.compression.run import Options, with_fit
        from ids_plugin.compression.run import run as compressed
    except ImportError as error:
        raise MissingExtraError(
            f"compression needs {error.name}", hint="pip install 'ids-plugin[train]'"
        ) from error
    from ids_plugin.bundle import find, read

    bundle = read(find(args.bundle))
    if bundle.family == "tiny_cnn":
        return _tiny(bundle, args, console)
    if args.fit:
        raise UsageError(
            f"--fit picks from tiny_cnn's ladder, and this is {bundle.family}", location=args.bundle
        )
    if not args.data:
        raise UsageError("--data is missing: labelled flows that fix the scales and show the cost")
    steps = tuple(step.strip() for step in args.steps.split(",") if step.strip())
    options = Options(
        tuple(args.data), steps, tuple(args.train), seed=args.seed, labels=args.labels
    )
    stages = list(compressed(bundle, with_fit(options, args.epochs), console.say))
    return _written(stages, bundle, args, console)


def _written(
    stages: list[Stage], before: Bundle, args: argparse.Namespace, console: Console
) -> int:
    from ids_plugin.bundle import write
    from ids_plugin.compression.cost import as_row, measured
    from ids_plugin.training.torch_network import MODEL

    smaller = stages[-1].bundle
    write(smaller, Path(args.out))
    models = {
        f"{number} {stage.step}": stage.bundle.files[MODEL] for number, stage in enumerate(stages)
    }
    times = [as_row(cost) for cost in measured(models).values()]
    rows: list[dict[str, Any]] = [
        {**stage.row, **time} for stage, time in zip(stages, times, strict=True)
    ]
    result = {"bundle": smaller.id, "from": before.id, "out": args.out, "compression": rows}
    return _report(
        result,
        ["  ".join(f"{name} {value}" for name, value in row.items()) for row in rows],
        args,
        console,
    )


def _report(
    result: dict[str, Any], lines: list[str], args: argparse.Namespace, console: Console
) -> int:
    """Writes the record, and says what was made: as JSON, or in lines."""
    if args.record:
        record.write(
            args.record, {**result, "options": {name: getattr(args, name) for name in _RECORDED}}
        )
    if console.json:
        console.result(result)
        return 0
    for line in lines:
        print(line, file=console.out)
    console.say(f"wrote {args.out}: {result['bundle'][:12]}")
    return 0


def _tiny(before: Bundle, args: argparse.Namespace, console: Console) -> int:
    """The ladder of tiny_cnn's networks, unless the bundle has it; with --fit one rung of it."""
    from ids_plugin.bundle import write
    from ids_plugin.compression.tiny.fit import DeviceMemory, described, fit
    from ids_plugin.compression.tiny.ladder import has_ladder, ladder

    bundle, room = before, DeviceMemory.parse(args.fit) if args.fit else None
    if not has_ladder(bundle):
        if not args.data:
            raise UsageError("--data is missing: the runs that the networks were trained with")
        bundle = ladder(bundle, args.data, args.seed, console.say)
    if room is not None:
        bundle = fit(bundle, room)
    write(bundle, Path(args.out))
    result = {
        "bundle": bundle.id,
        "from": before.id,
        "out": args.out,
        "rungs": bundle.manifest.document["members"],
    }
    result["device"] = bundle.manifest.document.get("device")
    return _report(result, described(bundle), args, console)


PLUGIN = Command(
    "compress",
    "Make a bundle's network smaller and say what it cost.",
    "example: ids-plugin compress my-bundle --data lab:tests/lab/flows/runs --steps int8 --out "
    "my-small-bundle",
    configure,
    run,
)
