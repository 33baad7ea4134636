"""`ids-plugin export`: the alerts of a scan into Elasticsearch, as the live path would have written them."""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ids_plugin.commands import Command, Console, counted
from ids_plugin.commands._access import access, add_access_options
from ids_plugin.errors import IdsPluginError, InputError, ServiceError

if TYPE_CHECKING:
    from ids_plugin.sinks import Delivered, Refusal
    from ids_plugin.sinks.elasticsearch import Elasticsearch

BATCH = 500
"""Documents a request: about 2 MB"""
PATIENCE = 5.0
"""seconds of waiting after which it is given up: run again, it goes on where it was"""


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
    from ids_plugin.sinks.elasticsearch import Elasticsearch

    path = Path(args.folder) / "alerts.ndjson"
    sink = Elasticsearch(access(args))
    new, known, refusals, progress = 0, 0, Counter[str](), console.progress("export")
    try:
        for batch in _batches(path):
            delivered = _deliver(sink, [document for _, document in batch])
            _complain(console, path, [number for number, _ in batch], delivered.refusals)
            new += delivered.documents - delivered.known
            known += delivered.known
            refusals.update(delivered.refused)
            progress("sent", len(batch))
    finally:
        progress.close()
        sink.close()
    refused = refusals.total()
    console.say(f"{counted(new, 'document')} new, {known:,} there already, {refused:,} refused: {sink.location}")
    if console.json:
        console.result({"new": new, "known": known, "refused": dict(refusals), "stream": sink.stream})
    return IdsPluginError.exit_code if refused else 0


def _batches(path: Path) -> Iterator[list[tuple[int, Any]]]:
    """Line numbers and documents.

    Raises:
        InputError: the file can't be read, or a line is damaged.
    """
    try:
        with path.open("rb") as lines:
            numbered = enumerate(lines, 1)
            while batch := [
                (number, _document(path, number, line)) for number, line in itertools.islice(numbered, BATCH)
            ]:
                yield batch
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"can't be read: {why}", location=str(path), hint="scan INPUT… --out DIR makes it") from error


def _document(path: Path, number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"no JSON: {error}", location=f"{path}:{number}", hint="scan again") from error


def _deliver(sink: Elasticsearch, documents: list[Any]) -> Delivered:
    """
    Raises:
        ServiceError: it didn't take them within PATIENCE.
    """
    from ids_plugin.sinks import Delivered

    waited = 0.0
    while not isinstance(answer := sink.write(documents, ingested=datetime.now(UTC)), Delivered):
        waited += answer.seconds
        if waited >= PATIENCE:
            raise ServiceError(answer.reason)
        time.sleep(answer.seconds)
    return answer


def _complain(console: Console, path: Path, numbers: list[int], refusals: tuple[Refusal, ...]) -> None:
    for one in refusals:
        console.complain(f"{path}:{numbers[one.place]}: refused: {one.reason}: {one.detail}")


PLUGIN = Command(
    "export",
    "Send a scan's alerts to Elasticsearch, each once.",
    "example: ids-plugin export report/ --elasticsearch http://localhost:9200",
    configure,
    run,
)
