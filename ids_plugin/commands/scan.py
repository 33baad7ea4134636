"""`ids-plugin scan`: inputs → explained alerts."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ids_plugin.commands import Command, Console, Progress, counted
from ids_plugin.commands.options.inputs import (
    add_input_options,
    exit_code,
    locality,
    reads,
    unread,
    within_period,
)
from ids_plugin.errors import LedgerError
from ids_plugin.writing import writing

if TYPE_CHECKING:
    from ids_plugin.bundle import Bundle
    from ids_plugin.pipeline import Pipeline, Scan
    from ids_plugin.schema.alert import Document
    from ids_plugin.schema.ledger import Ledger
    from ids_plugin.schema.reject import Reject
    from ids_plugin.sinks import Sink

LEVELS = ("low", "medium", "high", "critical")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `scan`."""
    add_input_options(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="write alerts.ndjson, rejects.ndjson, ledger.json and report.html there",
    )
    parser.add_argument(
        "--bundle", default="default", help="name, directory or .idsb file (default: %(default)s)"
    )
    parser.add_argument(
        "--key", metavar="PEM", help="public key (Ed25519) that must have signed the bundle"
    )
    parser.add_argument(
        "--allow",
        metavar="FILE",
        help="allow-list (TOML): what isn't to alert; counted in the ledger",
    )
    parser.add_argument(
        "--min-severity", choices=LEVELS, default="low", help="leave out alerts below this"
    )
    parser.add_argument(
        "--fail-on",
        choices=LEVELS,
        help="exit with 1 if there is an alert of this severity or more",
    )
    parser.add_argument(
        "--ask-every-model",
        action="store_true",
        help="score every flow with every model, without the gate: slower",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError: options that can't be, a place that can't be written to.
        ConfigError, BundleError: a file that can't be used.
        InputError: no input could be read at all.
        LedgerError: the ledger doesn't balance.
    """
    from ids_plugin.alerts import read_allow_list
    from ids_plugin.bundle import find, read, read_key
    from ids_plugin.pipeline import Pipeline
    from ids_plugin.windows import spec

    bundle = read(find(args.bundle), spec=spec(), public_key=read_key(args.key))
    pipeline = Pipeline(bundle, allow=read_allow_list(args.allow), cascade=not args.ask_every_model)
    outputs = Outputs(Path(args.out) if args.out else None, console)
    with contextlib.ExitStack() as unless_complete:
        unless_complete.callback(outputs.abort)
        worst = _scan(args, console, pipeline, outputs)
        outputs.close(
            pipeline.ledger,
            {"id": bundle.id, "family": bundle.family, "trained_on": _trained_on(bundle)},
        )
        unless_complete.pop_all()
    _tell(console, pipeline, args.out)
    failed = args.fail_on and worst >= LEVELS.index(args.fail_on)
    return exit_code(outputs.unread, args, console) or int(bool(failed))


def _scan(args: argparse.Namespace, console: Console, pipeline: Pipeline, outputs: Outputs) -> int:
    """Runs the scan into the outputs; returns the index in LEVELS of the worst alert, -1 for none."""
    from ids_plugin.pipeline import scan

    progress = console.progress("scan")
    worst, given, hidden = -1, 0, 0
    try:
        for documents in scan(
            (within_period(step, args) for step in reads(args)),
            pipeline,
            _how(args, outputs, progress),
        ):
            given += len(documents)
            shown = [
                document
                for document in documents
                if _level(document) >= LEVELS.index(args.min_severity)
            ]
            worst = max([worst, *(_level(one) for one in shown if one["event"]["kind"] == "alert")])
            hidden += len(documents) - len(shown)
            outputs.write(shown)
    finally:
        progress.close()
    if hidden:
        pipeline.ledger.notes["below_min_severity"] = hidden
    _settle(pipeline.ledger, given)
    return worst


def _settle(ledger: Ledger, given: int) -> None:
    """Enters as delivered what the outputs were given; what --min-severity keeps out of them is noted beside.

    Raises:
        LedgerError: the ledger doesn't balance.
    """
    if ledger.total.documents != given:
        raise LedgerError(
            f"{ledger.total.documents} documents were made and {given} given to the outputs"
        )
    for _, counts in tuple(ledger.items()):
        counts.delivered = counts.documents
    ledger.check()


class Outputs:
    """Where a scan's results go: the files of a folder, a table, or lines of JSON; whole or not at all."""

    def __init__(self, folder: Path | None, console: Console) -> None:
        """
        Raises:
            UsageError: a file can't be made.
        """
        from ids_plugin.sinks import ndjson, report, table
        from ids_plugin.sinks.traffic_timeline import Traffic

        self.traffic = Traffic()
        self.unread: list[Reject] = []
        """inputs of which nothing could be read"""
        self._folder = folder
        self._new = self._folder is not None and not self._folder.exists()
        self._part: Path | None = None
        self._report: report.Report | None = None
        self._rejects: ndjson.Ndjson | None = None
        self._sinks: list[Sink] = []
        if self._folder:
            with writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._part = part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._folder))
            self._rejects = ndjson.Ndjson(part / "rejects.ndjson")
            self._report = report.Report(part / "report.html")
            self._sinks += [ndjson.Ndjson(part / "alerts.ndjson"), self._report]
        if console.json:
            self._sinks.append(ndjson.Ndjson(console.out.buffer))
        elif not self._folder:
            self._sinks.append(table.Table(console.out))

    def write(self, documents: list[Document]) -> None:
        """Alert documents, as they are made."""
        self._each(lambda sink: sink.write(documents))

    def _each(self, do: Callable[[Sink], object]) -> None:
        """Does it with every sink. When nobody reads standard output any more, the files are still completed."""
        for sink in tuple(self._sinks):
            try:
                do(sink)
            except BrokenPipeError:
                if not self._folder:
                    raise
                self._sinks.remove(sink)

    def reject(self, rejects: tuple[Reject, ...]) -> None:
        """Records that could not be read."""
        self.unread += unread(rejects)
        if self._rejects:
            self._rejects.write([reject._asdict() for reject in rejects])

    def close(self, ledger: Ledger, bundle: dict[str, Any]) -> None:
        """Puts everything in its place."""
        entries = ledger.to_dict()
        if self._report:
            self._report.describe(ledger=entries, traffic=self.traffic.buckets(), bundle=bundle)
        self._each(lambda sink: sink.close())
        if self._rejects:
            self._rejects.close()
        if self._folder and self._part:
            with writing(self._folder):
                (self._part / "ledger.json").write_bytes(
                    orjson.dumps(entries, option=orjson.OPT_INDENT_2)
                )
                for made in sorted(self._part.iterdir()):
                    made.replace(self._folder / made.name)
                self._part.rmdir()

    def abort(self) -> None:
        """Leaves nothing half done."""
        for sink in (*self._sinks, *([self._rejects] if self._rejects else [])):
            sink.abort()
        if self._part:
            shutil.rmtree(self._part, ignore_errors=True)
        if self._folder and self._new:
            with contextlib.suppress(OSError):
                self._folder.rmdir()


def _how(args: argparse.Namespace, outputs: Outputs, progress: Progress) -> Scan:
    from ids_plugin.pipeline import Scan

    return Scan(
        locality=locality(args),
        rejected=outputs.reject,
        watch=outputs.traffic.see,
        progress=progress,
    )


def _level(document: Document) -> int:
    from ids_plugin.schema.alert import SEVERITIES

    return [SEVERITIES[level] for level in LEVELS].index(document["event"]["severity"])


def _trained_on(bundle: Bundle) -> list[str]:
    return [
        one["file"] for one in bundle.manifest.get("training", {}).get("data", {}).get("train", [])
    ]


def _tell(console: Console, pipeline: Pipeline, out: str | None) -> None:
    total, notes = pipeline.ledger.total, pipeline.ledger.notes
    told = [
        f"{counted(total.read, 'record')} read",
        f"{total.value('rejected'):,} rejected",
        f"{counted(total.scored, 'flow')} scored",
        counted(total.opened, "alert"),
        f"{counted(total.value('suppressed'), 'flow')} suppressed",
    ]
    beside = (
        (total.value("out_of_scope"), "out of scope"),
        (notes.get("unknown_inputs", 0), "of the files of no known kind"),
        (notes.get("empty_inputs", 0), "of the inputs empty"),
    )
    told += [f"{count:,} {what}" for count, what in beside if count]
    console.say(", ".join(told) + (f"; {out}/report.html shows them" if out else ""))


PLUGIN = Command(
    "scan",
    "Find attacks in captures and logs, and say why.",
    "example: ids-plugin scan capture.pcap --out report/",
    configure,
    run,
)
