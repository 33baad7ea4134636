"""`ids-plugin export`: a scan's alerts and ledger into Elasticsearch, as the live path would have
written them."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ids_plugin.api import deliver
from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands.options.access import access, add_access_options
from ids_plugin.errors import IdsPluginError, InputError
from ids_plugin.schema.alert import Document, happened

if TYPE_CHECKING:
    from ids_plugin.sinks import Delivered, Refusal
    from ids_plugin.sinks.elasticsearch import Elasticsearch

BATCH = 500
"""Documents a request: about 2 MB"""


@dataclass
class Total:
    """What became of documents."""

    new: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{counted(self.new, 'document')} new, {self.known:,} there already, "
            f"{self.refused.total():,} refused"
        )

    def add(self, delivered: Delivered) -> None:
        """A batch more."""
        self.new += delivered.documents - delivered.known
        self.known += delivered.known
        self.refused.update(delivered.refused)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"new": self.new, "known": self.known, "refused": dict(self.refused)}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    parser.add_argument("folder", metavar="DIR", help="what `scan --out DIR` made")
    add_access_options(parser, "--elasticsearch")


def run(args: argparse.Namespace, console: Console) -> int:
    """
    Raises:
        InputError: there are no alerts in the folder, or a line of them is damaged.
        ConfigError, MissingExtraError: Elasticsearch can't be asked as things are.
        ServiceError: Elasticsearch can't be reached, or refuses us; run again, nothing comes twice.
    """
    from ids_plugin.elastic.streams import LEDGER
    from ids_plugin.sinks.elasticsearch import Elasticsearch

    path, settings = Path(args.folder) / "alerts.ndjson", access(args)
    sink, progress = Elasticsearch(settings), console.progress("export")
    total, last = Total(), 0.0
    try:
        for batch in _batches(path):
            delivered = _deliver(sink, [document for _, document in batch])
            _complain(console, path, [number for number, _ in batch], delivered.refusals)
            total.add(delivered)
            last = max(last, *(happened(document) or 0.0 for _, document in batch))
            progress("sent", len(batch))
    finally:
        progress.close()
        sink.close()
    console.say(f"{total}: {sink.location}")
    ledger = Total()
    if entries := _ledger(path.with_name("ledger.json"), last):
        with contextlib.closing(Elasticsearch(settings, LEDGER)) as sink_of_ledger:
            ledger.add(_deliver(sink_of_ledger, entries))
        console.say(f"{ledger} of its ledger: {sink_of_ledger.location}")
    if console.json:
        console.result({**total.to_dict(), "stream": sink.stream, "ledger": ledger.to_dict()})
    return IdsPluginError.exit_code if total.refused or ledger.refused else 0


def _ledger(path: Path, last: float) -> list[Document]:
    """The scan's ledger as one increment, at the time (s) of its last alert, under ids that its
    content gives: a second export gives the same. None where there was no alert or is no ledger.

    Raises:
        InputError: it is no ledger.
    """
    from ids_plugin.sinks import ledger_documents as documents

    if not last or not path.exists():
        return []
    content = path.read_bytes()
    name = f"scan/{hashlib.sha256(content).hexdigest()[:40]}"
    try:
        increment = {
            "stage": "scan",
            "instance": "scan",
            "at": round(last * 1000),
            "ledger": orjson.loads(content),
        }
        return documents.documents(increment, name)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"no ledger: {error!r}", location=str(path), hint="scan again") from error


def _batches(path: Path) -> Iterator[list[tuple[int, Any]]]:
    """Line numbers and documents.

    Raises:
        InputError: the file can't be read, or a line is damaged.
    """
    try:
        with path.open("rb") as lines:
            numbered = enumerate(lines, 1)
            while batch := [
                (number, _document(path, number, line))
                for number, line in itertools.islice(numbered, BATCH)
            ]:
                yield batch
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(
            f"can't be read: {why}", location=str(path), hint="scan INPUT… --out DIR makes it"
        ) from error


def _document(path: Path, number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"no JSON: {error}", location=f"{path}:{number}", hint="scan again"
        ) from error


def _deliver(sink: Elasticsearch, documents: list[Any]) -> Delivered:
    """
    Raises:
        ServiceError: it didn't take them in time.
    """
    return deliver(lambda: sink.write(documents, ingested=datetime.now(UTC)))


def _complain(
    console: Console, path: Path, numbers: list[int], refusals: tuple[Refusal, ...]
) -> None:
    for refusal in refusals:
        console.complain(
            f"{path}:{numbers[refusal.position]}: refused: {refusal.reason}: {refusal.detail}"
        )


PLUGIN = Command(
    "export",
    "Send a scan's alerts and ledger to Elasticsearch, each document once.",
    "example: ids-plugin export report/ --elasticsearch http://localhost:9200",
    configure,
    run,
)
