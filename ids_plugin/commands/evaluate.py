"""`ids-plugin evaluate`: what a bundle finds and misses on labelled flows, beside rules that know
nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ids_plugin import api
from ids_plugin.bundle import Bundle, require_place, seal, write
from ids_plugin.bundle.card import judgement_of
from ids_plugin.commands import Command, Console
from ids_plugin.commands.options.record import add_record_option, recorded

if TYPE_CHECKING:
    from rich.table import Table


PROTOCOLS = ("leave-one-out", "time", "random")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate`."""
    parser.add_argument(
        "--bundle", default="default", help="name, directory or .idsb file (default: %(default)s)"
    )
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="SPEC", help="KIND:PATH of labelled flows"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="CSV of labels of `zeek:` logs")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="leave-one-out",
        help="what the lookup table may learn from: the other networks, the first 70 %% of each in "
        "time, or a random 70 %% (as papers do; flatters) (default: %(default)s)",
    )
    parser.add_argument(
        "--ask-every-model", action="store_true", help="score every flow with every model"
    )
    parser.add_argument(
        "--explained",
        type=int,
        default=300,
        metavar="N",
        help="explanations tested by deletion, a network",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the deletion test and of random splits"
    )
    parser.add_argument(
        "--out", metavar="BUNDLE", help="write the bundle anew with these figures in its model card"
    )
    add_record_option(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        BundleError, InputError: the bundle or the data can't be used.
        UsageError: a place that can't be written to.
    """
    bundle = api.load_bundle(args.bundle)
    if args.out:
        require_place(Path(args.out))
    with recorded(args, args.data) as record:
        result = api.evaluate(
            bundle,
            args.data,
            protocol=args.protocol,
            labels=args.labels,
            cascade=not args.ask_every_model,
            explained=args.explained,
            seed=args.seed,
            progress=console.say,
        )
        record.update(result)
        if args.out:
            _carded(bundle, result, args.out, console)
    if console.json:
        console.result(result)
    else:
        _print(result, console)
    return 0


def _carded(bundle: Bundle, result: dict[str, Any], out: str, console: Console) -> None:
    """Writes the bundle with another model card, so under another id, unsigned."""
    judged = [*bundle.manifest.judged, judgement_of(result)]
    made = seal(bundle.manifest.replaced(judged=judged), bundle.files)
    write(made, Path(out))
    if bundle.signature is not None:
        console.complain("the bundle was signed and the new one isn't: ids-plugin bundle sign")
    console.say(f"wrote {out}: {made.id[:12]}")


def _print(result: dict[str, Any], console: Console) -> None:
    from rich.console import Console as Rich

    rich = Rich(file=console.out)
    for table in (
        _wanted(result),
        _networks(result),
        _models(result),
        _detectors(result),
        _alone(result),
        _confusion(result),
    ):
        if table.row_count:
            rich.print(table)
    if not result["left_out"]:
        for line in _deletion(result["deletion"]):
            rich.print(line)
    for part in result["left_out"]:
        rich.print(f"left out: {part}")


def _deletion(deletion: dict[str, Any]) -> Iterator[str]:
    """What taking the named evidence away does, beside taking as much at random."""
    tested, by_features = deletion["tested"], deletion["features_passed"]
    yield (
        f"deletion test: {deletion['passed']} of {tested} explanations pass,"
        f" {by_features} by their features alone"
    )
    for method, counts in deletion["flows"].items():
        share = f"{counts['passed']} of {counts['tested']} tested pass"
        yield f"  earlier flows by {method}: {counts['explained']}, {share}"


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _wanted(result: dict[str, Any]) -> Table:
    """Hosts one by one, but the many that external originators knock at: these in one row a
    network."""
    total = result["total"]
    columns = ("network", "host", "class", "flows", "found", "after")
    table = _table(f"hosts: {total['found']} of {total['wanted']} found", *columns)
    for network in result["networks"]:
        noise = [host for host in network["wanted"] if host["class"] == "inbound_noise"]
        for host in network["wanted"]:
            if host not in noise:
                finding = (
                    "yes"
                    if host["found"]
                    else ("other class" if host["found_in_any_class"] else "no")
                )
                after = "" if host["delay_s"] is None else f"{host['delay_s']:.0f} s"
                table.add_row(
                    network["name"],
                    host["host"],
                    host["class"],
                    f"{host['flows']:,}",
                    finding,
                    after,
                )
        if noise:
            flows, hits = sum(host["flows"] for host in noise), sum(host["found"] for host in noise)
            table.add_row(
                network["name"],
                f"{len(noise)} hosts",
                "inbound_noise",
                f"{flows:,}",
                f"{hits} of {len(noise)}",
                "",
            )
    return table


def _networks(result: dict[str, Any]) -> Table:
    total = result["total"]
    false = _rate(total["false_alerts_per_day"])
    rate = f"{_rate(total['alerts_per_day'])} alerts a day, {false} of them false"
    names = ("network", "flows", "attack flows", "hours", "alerts", "false alerts")
    table = _table(f"networks: {total['alerts']} alerts in {total['hours']:g} h: {rate}", *names)
    for network in result["networks"]:
        numbers = (
            f"{network[name]:,}"
            for name in ("flows", "attack_flows", "hours", "alerts", "false_alerts")
        )
        table.add_row(network["name"], *numbers)
    return table


def _rate(value: float | None) -> str:
    return "no" if value is None else f"{value:,.1f}"


def _models(result: dict[str, Any]) -> Table:
    columns = ("f1", "auc", "tcp_auc", "tcp_recall_at_1%", "tcp_recall_at_5%")
    table = _table(f"flows, protocol {result['protocol']}", "model", *columns)
    for name, figures in result["models"].items():
        table.add_row(name, *("" if figures[c] is None else f"{figures[c]:.3f}" for c in columns))
    return table


def _detectors(result: dict[str, Any]) -> Table:
    """What each detector raised."""
    table = _table("detectors", "detector", "alerts", "false alerts")
    for name, counts in result["detectors"].items():
        table.add_row(name, f"{counts['alerts']:,}", f"{counts['false_alerts']:,}")
    return table


def _alone(result: dict[str, Any]) -> Table:
    """What each member would find without the others."""
    members = sorted({name for row in result["alone"].values() for name in row})
    table = _table(
        "each member alone: share of hosts (and flows) it calls the right class", "class", *members
    )
    for label, row in result["alone"].items():
        table.add_row(
            label, *(f"{row[name]['hosts']:.0%} ({row[name]['flows']:.0%})" for name in members)
        )
    return table


def _confusion(result: dict[str, Any]) -> Table:
    names = sorted({name for row in result["confusion"].values() for name in row})
    table = _table("confusion (rows: label)", "", *names)
    for label, row in result["confusion"].items():
        table.add_row(label, *(f"{row.get(name, 0):,}" for name in names))
    return table


PLUGIN = Command(
    "evaluate",
    "Measure a bundle on labelled flows.",
    "example: ids-plugin evaluate --bundle default --data lab:tests/lab/flows/judge",
    configure,
    run,
)
