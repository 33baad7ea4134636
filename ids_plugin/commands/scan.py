"""`ids-plugin scan`: inputs → explained alerts."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ids_plugin.commands import Command, Console
from ids_plugin.commands._inputs import add_input_options, moment, reads
from ids_plugin.errors import LedgerError

if TYPE_CHECKING:
    from ids_plugin.alerts import AllowList
    from ids_plugin.pipeline import Pipeline, Scan
    from ids_plugin.schema.alert import Document
    from ids_plugin.schema.ledger import Ledger

LEVELS = ("low", "medium", "high", "critical")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `scan`."""
    add_input_options(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="write alerts.ndjson, rejects.ndjson, ledger.json and report.html there"
    )
    parser.add_argument("--bundle", default="default", help="name, directory or .idsb file (default: %(default)s)")
    parser.add_argument("--key", metavar="PEM", help="public key (Ed25519) that must have signed the bundle")
    parser.add_argument("--allow", metavar="FILE", help="allow-list (TOML): what isn't to alert; counted in the ledger")
    parser.add_argument("--min-severity", choices=LEVELS, default="low", help="leave out alerts below this")
    parser.add_argument("--fail-on", choices=LEVELS, help="exit with 1 if there is an alert of this severity or more")
    parser.add_argument(
        "--ask-every-model", action="store_true", help="score every flow with every model, without the gate: slower"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError: options that can't be; ConfigError, BundleError: a file that can't be used.
        InputError: an input could not be read at all.
        LedgerError: the ledger doesn't balance.
    """
    from ids_plugin.bundle import find, read
    from ids_plugin.pipeline import Pipeline
    from ids_plugin.windows import spec

    key = Path(args.key).read_bytes() if args.key else None
    bundle = read(find(args.bundle), spec=spec(), public_key=key)
    pipeline = Pipeline(bundle, allow=_allow(args.allow), cascade=not args.ask_every_model)
    facts = {"id": bundle.id, "family": bundle.family, "trained_on": _trained_on(bundle.manifest)}
    with contextlib.ExitStack() as stack:
        outputs = _outputs(args, console, stack)
        worst = _scan(args, console, pipeline, outputs, facts)
    return 1 if args.fail_on and worst >= LEVELS.index(args.fail_on) else 0


def _scan(
    args: argparse.Namespace, console: Console, pipeline: Pipeline, outputs: list[Any], facts: dict[str, Any]
) -> int:
    """Runs the scan into the outputs; returns the index in LEVELS of the worst alert, -1 for none."""
    from ids_plugin.pipeline import scan
    from ids_plugin.sinks._traffic import Traffic

    traffic = Traffic()
    progress = console.progress("scan")
    how = _how(args, outputs, traffic, progress)
    worst, given = -1, 0
    for documents in scan(reads(args), pipeline, how):
        given += len(documents)
        shown = [document for document in documents if _level(document) >= LEVELS.index(args.min_severity)]
        worst = max([worst, *(_level(one) for one in shown if one["event"]["kind"] == "alert")])
        for output in outputs:
            output.add(shown)
    progress.close()
    _settle(pipeline.ledger, given)
    for output in outputs:
        output.close(ledger=pipeline.ledger.to_dict(), traffic=traffic.buckets(), bundle=facts)
    _tell(console, pipeline, args.out)
    return worst


def _settle(ledger: Ledger, given: int) -> None:
    """Enters as delivered what the outputs were given.

    Raises:
        LedgerError: the ledger doesn't balance.
    """
    if ledger.total.documents != given:
        raise LedgerError(f"{ledger.total.documents} documents were made and {given} given to the outputs")
    for _entry, counts in ledger.items():
        counts.delivered = counts.documents
    ledger.check()


def _how(args: argparse.Namespace, outputs: list[Any], traffic: Any, progress: Any) -> Scan:
    from ids_plugin.pipeline import Scan
    from ids_plugin.sources import Reject
    from ids_plugin.sources._local import Locality, networks

    def rejected(rejects: tuple[Reject, ...]) -> None:
        for output in outputs:
            output.reject(rejects)

    nets = [text for text in args.local_nets.split(",") if text.strip()]
    return Scan(
        locality=Locality(networks(nets)),
        since=moment(args.since, "--since"),
        until=moment(args.until, "--until"),
        rejected=rejected,
        watch=traffic.see,
        progress=progress,
    )


def _outputs(args: argparse.Namespace, console: Console, stack: contextlib.ExitStack) -> list[Any]:
    """Sinks: the files of --out; without it a table, or lines of JSON."""
    from ids_plugin.sinks import ndjson, report, table

    found: list[Any] = []
    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        found += [ndjson.PLUGIN(folder), report.PLUGIN(folder)]
    if console.json:
        found.append(ndjson.Lines(console.out))
    elif not args.out:
        found.append(table.PLUGIN(console.out))
    for output in found:
        stack.callback(output.abandon)
    return found


def _level(document: Document) -> int:
    from ids_plugin.schema.alert import SEVERITIES

    return [SEVERITIES[level] for level in LEVELS].index(document["event"]["severity"])


def _allow(path: str | None) -> AllowList | None:
    from ids_plugin.alerts import parse

    return parse(Path(path).read_text(), path) if path else None


def _trained_on(manifest: dict[str, Any]) -> list[str]:
    return [one["name"] for one in manifest.get("training", {}).get("data", {}).get("train", [])]


def _tell(console: Console, pipeline: Pipeline, out: str | None) -> None:
    total = pipeline.ledger.total
    rejected = total.value("rejected")
    console.say(
        f"{total.read:,} records read, {rejected:,} rejected, {total.scored:,} flows scored, "
        f"{total.opened:,} alerts, {total.value('suppressed'):,} flows suppressed"
        + (f"; {out}/report.html shows them" if out else "")
    )


PLUGIN = Command(
    "scan",
    "Find attacks in captures and logs, and say why.",
    "example: ids-plugin scan capture.pcap --out report/",
    configure,
    run,
)
