"""`ids-plugin calibrate`: a bundle's thresholds fitted to one's own normal traffic and a budget of
alerts."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any

from ids_plugin import api
from ids_plugin.bundle import read_key, sign, write
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.inputs import (
    InputTally,
    add_input_options,
    exit_code,
    input_options,
    interrupt_reads,
)
from ids_plugin.errors import UsageError

PER_DAY = {"hour": 24.0, "day": 1.0, "week": 1 / 7}
SURPRISING = 0.01
"""probability below which more alerts than the budget aren't taken for chance"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `calibrate`."""
    add_input_options(parser)
    parser.add_argument(
        "--bundle", default="default", help="name, directory or .idsb file (default: %(default)s)"
    )
    parser.add_argument(
        "--budget",
        required=True,
        metavar="N/day",
        help="false alerts that are bearable: N/hour, N/day",
    )
    parser.add_argument(
        "--out", required=True, metavar="BUNDLE", help="directory, or file ending in .idsb"
    )
    parser.add_argument(
        "--allow",
        metavar="FILE",
        help="allow-list (TOML) that will be in use: what it hides is fine",
    )
    parser.add_argument(
        "--only-raise", action="store_true", help="let no threshold fall below the bundle's own"
    )
    parser.add_argument(
        "--others-traffic",
        action="store_true",
        help="the traffic is that of other networks: fit to a fifth of the budget",
    )
    parser.add_argument("--key", metavar="PEM", help="private key (Ed25519) that signs the result")


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError: too few flows for the budget, options that can't be, a place that can't be
            written to.
        ConfigError, BundleError: a file that can't be used.
        InputError: no input could be read at all.
    """
    per_day, signing = _budget(args.budget), read_key(args.key)
    bundle = api.load_bundle(args.bundle)
    options = input_options(args)
    interrupt_reads()
    tally = InputTally(console, "calibrate")
    try:
        made, report = api.calibrate(
            bundle,
            args.inputs,
            alerts_per_day=per_day,
            allow=args.allow,
            only_raise=args.only_raise,
            others_traffic=args.others_traffic,
            options=options,
            watch=tally,
        )
    finally:
        tally.close()
    write(made if signing is None else sign(made, signing), Path(args.out))
    calibration = made.manifest.document["calibration"]
    if console.json:
        console.result({"bundle": made.id, "of": calibration["of"], "out": args.out, **report})
    _report(report, console)
    if bundle.signature is not None and signing is None:
        console.complain(
            "the bundle was signed and the new one isn't: --key, or ids-plugin bundle sign"
        )
    console.say(f"wrote {args.out}: {made.id[:12]}")
    return exit_code(tally.unread, args.inputs, console)


def _budget(text: str) -> float:
    """Alerts a day.

    Raises:
        UsageError: it is no such number.
    """
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)/({'|'.join(PER_DAY)})", text.strip())
    budget = float(match[1]) * PER_DAY[match[2]] if match else 0.0
    if not budget:
        raise UsageError(
            f"--budget {text!r} is no number of alerts in a time", hint="such as 20/day"
        )
    return budget


def _report(report: dict[str, Any], console: Console) -> None:
    held = report["held_back"]
    console.say(
        f"fitted on {report['flows']:,} flows of {report['hours']:.1f} h "
        f"({report['flows_per_day']:,.0f} a day); {_promise(report)}"
    )
    hours = "; it is less than a day, and other hours weren't seen" if report["hours"] < 24 else ""
    console.say(f"this holds while the traffic stays like that: drift voids it{hours}")
    for message in report["as_it_was"]["largest"]:
        console.complain(
            f"taken for normal: {message} (an attack? leave it out. known? --allow it)"
        )
    for name, after in report["thresholds"].items():
        before = report["thresholds_before"][name]
        off = " (nothing reaches it any more)" if after > 1 > before else ""
        console.say(f"  {name:<28} {before:.6g} → {after:.6g}{off}")
    for when in ("before", "after"):
        counts = held[when]
        rate = (
            "no time"
            if counts["alerts_per_day"] is None
            else f"{counts['alerts_per_day']:,.1f} a day"
        )
        console.say(
            f"held back: {held['flows']:,} flows of {held['hours']:.1f} h, {when}: "
            f"{counts['over']:,} flows over in "
            f"{counted(counts['alerts'], 'alert')}: {rate}"
        )
    expected = report["fitted_budget_per_day"] * held["hours"] / 24
    if _at_least(held["after"]["alerts"], expected) < SURPRISING:
        console.complain(
            f"held-back traffic gives {counted(held['after']['alerts'], 'alert')} where the "
            f"budget has {expected:.1f}: "
            "it isn't like the traffic before it (drift), and the budget may not hold"
        )


def _promise(report: dict[str, Any]) -> str:
    """What the budget means for the traffic that fits."""
    budget = f"{report['fitted_budget_per_day']:g} alerts a day"
    if "alpha" in report:
        return (
            f"{budget} are at most {report['alpha']:.2g} of the flows, "
            f"which takes {report['needed']:,} flows"
        )
    return (
        f"{budget} are {report['alerts_allowed']:,} in that time, "
        f"and the thresholds stand for {report['expected_per_day']:g} a day"
    )


def _at_least(count: int, expected: float) -> float:
    """Probability of so many or more where so many are expected (Poisson)."""
    term, below = math.exp(-expected), 0.0
    for number in range(count):
        below += term
        term *= expected / (number + 1)
    return 1.0 - below


PLUGIN = Command(
    "calibrate",
    "Fit a bundle's thresholds to normal traffic and a budget of alerts.",
    "example: ids-plugin calibrate --budget 20/day --out mine conn.log",
    configure,
    run,
)
