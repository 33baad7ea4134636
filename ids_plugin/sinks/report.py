"""One HTML file of a scan: opens from disk, loads nothing, shows every alert with its evidence.

The file is written in one pass. Documents go in as chunks of compressed JSON: small rows that the list is made of, and
the whole documents, which the page unpacks only when an alert is opened. Everything from the traffic (addresses, uids,
sentences) reaches the page as text; a content security policy allows our own scripts by their hash and no network.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

import orjson

from ids_plugin.sinks import Delivered
from ids_plugin.writing import writing

Document = Mapping[str, Any]

CHUNK = 128
"""Documents a chunk: at 6 kB each, opening an alert unpacks 0.8 MB, which takes milliseconds"""
ROWS = 16 * CHUNK
"""Rows a chunk: all are unpacked at the start, and few large chunks unpack faster than many small ones"""
SCRIPTS = ("vega.min.js", "vega-lite.min.js", "vega-interpreter.min.js", "charts.js", "report.js")


class Bucket(TypedDict, total=False):
    """Traffic of one stretch of the timeline."""

    t: int
    """start, µs since the epoch"""
    flows: int
    bytes: int
    """payload or IP bytes, whichever the sources know; left out where none does"""


class Report:
    """A sink that writes a report in one pass; the file appears under its name when it is closed, whole or not at all.

    A `with` block closes it, or aborts it when an error passes.

    Raises:
        UsageError: the file can't be made or written (no permission, full disk, ...), at any step.
    """

    name = "report"

    def __init__(self, path: Path) -> None:
        self.documents = 0
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._facts: dict[str, Any] = {}
        self._rows: list[Document] = []
        self._chunk: list[Document] = []
        head, self._tail = _page()
        with writing(self._path, self.abort):
            self._file = self._part.open("w", encoding="utf-8", newline="\n")
            self._file.write(head)

    def write(self, documents: Sequence[Document]) -> Delivered:
        """Take alert documents, opening and closing ones, in any order."""
        for document in documents:
            self._chunk.append(document)
            self._rows.append(_row(document))
            if len(self._chunk) == CHUNK:
                self._flush("documents", self._chunk)
            if len(self._rows) == ROWS:
                self._flush("rows", self._rows)
        self.documents += len(documents)
        return Delivered(len(documents))

    def tell(self, *, ledger: Document, traffic: Sequence[Bucket], bundle: Document) -> None:
        """What is known at the end, before `close`.

        Args:
            ledger: as in ledger.json.
            traffic: buckets of equal width, oldest first; empty stretches may be left out.
            bundle: `id`, `family` and `trained_on` (names of the training data).
        """
        self._facts = {"ledger": ledger, "traffic": traffic, "bundle": bundle}

    def close(self) -> None:
        """Put the file in its place."""
        self._flush("documents", self._chunk)
        self._flush("rows", self._rows)
        facts = _inert(self._facts | {"chunk": CHUNK})
        with writing(self._path, self.abort):
            self._file.write(f'<script type="application/json" id="facts">{facts}</script>\n')
            self._file.write(self._tail)
            self._file.close()
            os.replace(self._part, self._path)

    def abort(self) -> None:
        """Leave no file behind."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _flush(self, kind: str, items: list[Document]) -> None:
        if items:
            with writing(self._path, self.abort):
                self._file.write(
                    f'<script type="text/plain" class="{kind}">{_packed(items)}</script>\n'
                )
            items.clear()


def write(
    path: Path,
    documents: Iterable[Document],
    *,
    ledger: Document,
    traffic: Sequence[Bucket],
    bundle: Document,
) -> int:
    """Write the report of `documents` to `path`; returns how many documents are in it.

    `ledger`, `traffic` and `bundle` (see `Report.tell`) are read after the last document was taken, so whoever
    produces the documents may still be filling them.

    Raises:
        UsageError: the file can't be written; nothing is left behind.
    """
    with Report(path) as report:
        for document in documents:
            report.write([document])
        report.tell(ledger=ledger, traffic=traffic, bundle=bundle)
    return report.documents


PLUGIN = Report


def _packed(value: object) -> str:
    """JSON, compressed (zlib), as base64: about a tenth of the JSON, and inert in HTML."""
    return base64.b64encode(zlib.compress(orjson.dumps(value), 6)).decode()


def _inert(value: object) -> str:
    """JSON that can't end the script element around it."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")


def _row(document: Document) -> dict[str, Any]:
    """What the list shows, sorts by and searches: the page reads the rest only when the alert is opened."""
    return {
        "id": _at(document, "event", "id"),
        "fold": _at(document, "ids_plugin", "fold", "id"),
        "state": _at(document, "ids_plugin", "fold", "state"),
        "role": _at(document, "ids_plugin", "fold", "role"),
        "host": _at(document, "ids_plugin", "fold", "subject"),
        "class": _at(document, "ids_plugin", "label"),
        "severity": _at(document, "event", "severity"),
        "risk": _at(document, "event", "risk_score"),
        "score": _at(document, "ids_plugin", "score"),
        "count": _at(document, "ids_plugin", "fold", "count"),
        "first": _at(document, "ids_plugin", "fold", "first"),
        "last": _at(document, "ids_plugin", "fold", "last"),
        "message": _at(document, "message"),
        "summary": _at(document, "ids_plugin", "evidence", "summary"),
        "words": list(dict.fromkeys(_words(document))),
    }


def _words(document: Document) -> Iterator[str]:
    """What the text filter finds beside the columns: addresses, ports, ids, techniques, the sensor."""
    found = (
        _at(document, "event", "id"),
        _at(document, "zeek", "session_id"),
        _at(document, "network", "community_id"),
        _at(document, "network", "protocol"),
        _at(document, "network", "transport"),
        _at(document, "destination", "port"),
        _at(document, "observer", "name"),
        _at(document, "related", "ip"),
        _at(document, "threat", "technique", "id"),
        _at(document, "threat", "technique", "name"),
        _at(document, "threat", "tactic", "name"),
    )
    listed = (value if isinstance(value, list) else [value] for value in found if value is not None)
    yield from map(str, itertools.chain.from_iterable(listed))


def _at(document: Any, *path: str) -> Any:
    """The value at `path` of nested objects; None where a step is missing."""
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


@cache
def _page() -> tuple[str, str]:
    """The page before and after the data: template, style, scripts, and the policy that allows just these."""
    assets = files(__package__).joinpath("assets")
    style = assets.joinpath("report.css").read_text("utf-8")
    scripts = [assets.joinpath(name).read_text("utf-8") for name in SCRIPTS]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    template = assets.joinpath("template.html").read_text("utf-8")
    notice = assets.joinpath("NOTICE").read_text("utf-8").replace("<", "&lt;")
    before, after = template.split("{{data}}")
    head = (
        before.replace("{{policy}}", policy)
        .replace("{{style}}", style)
        .replace("{{notice}}", notice)
    )
    return head, after.replace(
        "{{scripts}}", "\n".join(f"<script>{script}</script>" for script in scripts)
    )


def _hash(text: str) -> str:
    """CSP source that allows an inline element with exactly this text (https://www.w3.org/TR/CSP3/#framework-directive-source-list)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
