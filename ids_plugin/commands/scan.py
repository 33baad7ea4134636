"""`ids-plugin scan`: inputs → explained alerts."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ids_plugin import api, registry
from ids_plugin.api import (
    SEVERITY_LEVELS,
    InputOptions,
    RunningScan,
    ScanBatch,
    Severity,
    severity_level,
)
from ids_plugin.bundle import read_key
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.inputs import (
    add_input_options,
    exit_code,
    input_options,
    interrupt_reads,
    unmeasured,
    warn,
)
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger
from ids_plugin.sinks import DescribesRun, Sink, SinkEnvironment, open_sink
from ids_plugin.sinks.ndjson import Ndjson
from ids_plugin.sinks.report import Report
from ids_plugin.sinks.traffic_timeline import Traffic
from ids_plugin.writing import writing


@dataclass(frozen=True)
class ScanOptions:
    """What the command line says of a scan."""

    inputs: tuple[str, ...]
    reading: InputOptions
    bundle: str
    key: bytes | None
    allow: Path | None
    out: Path | None
    min_severity: Severity
    fail_on: Severity | None
    cascade: bool
    sinks: tuple[str, ...]
    """further outputs, `NAME=TARGET`"""
    config: Path | None
    """settings for what no option and no target says"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `scan`."""
    add_input_options(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="write alerts.ndjson, rejects.ndjson, ledger.json and report.html there",
    )
    parser.add_argument(
        "--sink",
        action="append",
        default=[],
        metavar="NAME=TARGET",
        help="send the documents there too, such as ndjson=alerts.ndjson or "
        "elasticsearch=https://host:9200; "
        f"repeatable; sinks are {', '.join(registry.names('sinks'))}",
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
        "--min-severity", choices=SEVERITY_LEVELS, default="low", help="leave out alerts below this"
    )
    parser.add_argument(
        "--fail-on",
        choices=SEVERITY_LEVELS,
        help="exit with 1 if there is an alert of this severity or more",
    )
    parser.add_argument(
        "--ask-every-model",
        action="store_true",
        help="score every flow with every model, without the gate: slower",
    )


def parse(args: argparse.Namespace) -> ScanOptions:
    """
    Raises:
        UsageError, ConfigError: options that can't be, a file that can't be used.
    """
    return ScanOptions(
        inputs=tuple(args.inputs),
        reading=input_options(args),
        bundle=args.bundle,
        key=read_key(args.key),
        allow=Path(args.allow) if args.allow else None,
        out=Path(args.out) if args.out else None,
        min_severity=args.min_severity,
        fail_on=args.fail_on,
        cascade=not args.ask_every_model,
        sinks=tuple(args.sink),
        config=Path(args.config) if args.config else None,
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        UsageError: options that can't be, a place that can't be written to.
        ConfigError, BundleError: a file that can't be used.
        InputError: no input could be read at all.
        LedgerError: the ledger doesn't balance.
    """
    options = parse(args)
    interrupt_reads()
    progress = console.progress("scan")
    scan = api.iter_scan(
        options.inputs,
        bundle=api.load_bundle(options.bundle, public_key=options.key),
        allow=options.allow,
        options=options.reading,
        cascade=options.cascade,
        progress=progress,
    )
    outputs = Outputs(options, console)
    with contextlib.ExitStack() as unless_complete:
        unless_complete.callback(outputs.abort)
        try:
            worst = _run_into(scan, outputs, options.min_severity)
        finally:
            progress.close()
        outputs.close(scan.ledger, api.describe_bundle(scan.pipeline.bundle))
        unless_complete.pop_all()
    warn(console, scan.warnings)
    _summarise(console, scan.ledger, options.out)
    failed = options.fail_on is not None and worst >= SEVERITY_LEVELS.index(options.fail_on)
    return exit_code(scan.unread, options.inputs, console) or int(failed)


def _run_into(scan: RunningScan, outputs: Outputs, min_severity: Severity) -> int:
    """Runs the scan into the outputs; returns the level of the worst alert shown, -1 for none."""
    lowest = SEVERITY_LEVELS.index(min_severity)
    worst, hidden = -1, 0
    for batch in scan:
        outputs.watch(batch)
        shown = [document for document in batch.documents if severity_level(document) >= lowest]
        alerts = [document for document in shown if document["event"]["kind"] == "alert"]
        worst = max([worst, *map(severity_level, alerts)])
        hidden += len(batch.documents) - len(shown)
        outputs.write(shown)
    if hidden:
        scan.ledger.notes["below_min_severity"] = hidden
    return worst


class Outputs:
    """Where a scan's results go: the files of a folder, a table, lines of JSON, and any sinks;
    whole or not at all."""

    def __init__(self, options: ScanOptions, console: Console) -> None:
        """
        Raises:
            UsageError, ConfigError, MissingExtraError: a sink can't be made.
        """
        self._traffic = Traffic()
        self._folder = options.out
        self._is_new_folder = self._folder is not None and not self._folder.exists()
        self._part: Path | None = None
        self._rejects: Ndjson | None = None
        self._sinks: list[Sink] = []
        environment = SinkEnvironment(console.out, options.config, lambda: datetime.now(UTC))
        with contextlib.ExitStack() as unless_complete:
            unless_complete.callback(self.abort)
            if self._folder:
                self._open_folder(self._folder)
            if console.json:
                self._sinks.append(open_sink("ndjson=-", environment))
            elif not (self._folder or options.sinks):
                self._sinks.append(open_sink("table=-", environment))
            for specification in options.sinks:
                self._sinks.append(open_sink(specification, environment))
            unless_complete.pop_all()

    def _open_folder(self, folder: Path) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._part = part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        self._rejects = Ndjson(part / "rejects.ndjson")
        self._sinks += [Ndjson(part / "alerts.ndjson"), Report(part / "report.html")]

    def watch(self, batch: ScanBatch) -> None:
        """What a step of the scan read: flows for a timeline, and records that could not be
        read."""
        if len(batch.flows):
            self._traffic.see(batch.flows)
        if self._rejects:
            self._rejects.write([reject._asdict() for reject in batch.rejects])

    def write(self, documents: list[Document]) -> None:
        """Alert documents, as they are made.

        Raises:
            UsageError, ServiceError: a sink takes no documents.
        """
        if documents:
            self._each(lambda sink: api.deliver(partial(sink.write, documents)))

    def _each(self, action: Callable[[Sink], object]) -> None:
        """Does it with every sink. When nobody reads standard output any more, the others are still
        completed."""
        for sink in tuple(self._sinks):
            try:
                action(sink)
            except BrokenPipeError:
                if len(self._sinks) == 1:
                    raise
                self._sinks.remove(sink)

    def close(self, ledger: Ledger, bundle: dict[str, Any]) -> None:
        """Puts everything in its place."""
        entries = ledger.to_dict()
        for sink in self._sinks:
            if isinstance(sink, DescribesRun):
                sink.describe(ledger=entries, traffic=self._traffic.buckets(), bundle=bundle)
        self._each(lambda sink: sink.close())
        if self._rejects:
            self._rejects.close()
        if self._folder and self._part:
            with writing(self._folder):
                (self._part / "ledger.json").write_bytes(
                    orjson.dumps(entries, option=orjson.OPT_INDENT_2)
                )
                for file in sorted(self._part.iterdir()):
                    file.replace(self._folder / file.name)
                self._part.rmdir()

    def abort(self) -> None:
        """Leaves nothing half done."""
        for sink in (*self._sinks, *([self._rejects] if self._rejects else [])):
            sink.abort()
        if self._part:
            shutil.rmtree(self._part, ignore_errors=True)
        if self._folder and self._is_new_folder:
            with contextlib.suppress(OSError):
                self._folder.rmdir()


def _summarise(console: Console, ledger: Ledger, out: Path | None) -> None:
    total, notes = ledger.total, ledger.notes
    parts = [
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
    parts += [f"{count:,} {what}" for count, what in beside if count]
    parts += unmeasured(notes)
    console.say(", ".join(parts) + (f"; {out}/report.html shows them" if out else ""))


PLUGIN = Command(
    "scan",
    "Find attacks in captures and logs, and say why.",
    "example: ids-plugin scan capture.pcap --out report/",
    configure,
    run,
)
