"""One HTML file of a scan: opens from disk, loads nothing, shows every alert with its evidence.

The file is written in one pass. Documents go in as chunks of compressed JSON: small rows that the
list is made of, and the whole documents, which the page unpacks only when an alert is opened.
Everything from the traffic (addresses, uids, sentences) reaches the page as text; a content
security policy allows our own scripts by their hash and no network.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from ids_plugin.errors import UsageError
from ids_plugin.sinks import STANDARD_OUTPUT, Delivered, SinkEnvironment, TrafficBucket
from ids_plugin.sinks.script_bundle import bundle_modules
from ids_plugin.sinks.whole_file import WholeFile

Document = Mapping[str, Any]

CHUNK = 128
"""documents a chunk: at 6 kB each, opening an alert unpacks 0.8 MB, which takes milliseconds"""
ROWS = 16 * CHUNK
"""rows a chunk: all are unpacked at the start, and few large chunks unpack faster than many small
ones"""
LIBRARIES = ("vega.min.js", "vega-lite.min.js", "vega-interpreter.min.js")
ENTRY_MODULE = "main"
"""of the folder assets/report, whose ES modules become one inline script"""


class Report:
    """Writes a report in one pass. The target is a path; the file appears when it is complete.

    A `with` block closes the sink, or aborts it when an error passes.

    Raises:
        UsageError: the file can't be made or written (no permission, full disk, ...), in any
            method.
    """

    name = "report"

    def __init__(self, path: Path) -> None:
        self.documents = 0
        self._facts: dict[str, Any] = {}
        self._rows: list[Document] = []
        self._chunk: list[Document] = []
        head, self._tail = _page()
        self._file = WholeFile(path)
        self._file.write(head.encode())

    @classmethod
    def open(cls, target: str, environment: SinkEnvironment) -> Self:
        """A sink for a path.

        Raises:
            UsageError: the target is standard output, or can't be made.
        """
        if target == STANDARD_OUTPUT:
            raise UsageError("a report is a file", location="report=-", hint="report=report.html")
        return cls(Path(target))

    def write(self, documents: Sequence[Document]) -> Delivered:
        """Takes alert documents, opening and closing ones, in any order."""
        for document in documents:
            self._chunk.append(document)
            self._rows.append(_row(document))
            if len(self._chunk) == CHUNK:
                self._flush("documents", self._chunk)
            if len(self._rows) == ROWS:
                self._flush("rows", self._rows)
        self.documents += len(documents)
        return Delivered(len(documents))

    def describe(
        self, *, ledger: Document, traffic: Sequence[TrafficBucket], bundle: Document
    ) -> None:
        """Takes what is known at the end: see `sinks.DescribesRun`."""
        self._facts = {"ledger": ledger, "traffic": traffic, "bundle": bundle}

    def close(self) -> None:
        """Puts the file in its place."""
        self._flush("documents", self._chunk)
        self._flush("rows", self._rows)
        facts = _inert(self._facts | {"chunk": CHUNK})
        self._file.write(f'<script type="application/json" id="facts">{facts}</script>\n'.encode())
        self._file.write(self._tail.encode())
        self._file.close()

    def abort(self) -> None:
        """Leaves no file behind."""
        self._file.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _flush(self, kind: str, items: list[Document]) -> None:
        if items:
            self._file.write(
                f'<script type="text/plain" class="{kind}">{_packed(items)}</script>\n'.encode()
            )
            items.clear()


def write(
    path: Path,
    documents: Iterable[Document],
    *,
    ledger: Document,
    traffic: Sequence[TrafficBucket],
    bundle: Document,
) -> int:
    """Write the report of `documents` to `path`; returns how many documents are in it.

    `ledger`, `traffic` and `bundle` (see `Report.describe`) are read after the last document was
    taken, so whoever produces the documents may still be filling them.

    Raises:
        UsageError: the file can't be written; nothing is left behind.
    """
    with Report(path) as report:
        for document in documents:
            report.write([document])
        report.describe(ledger=ledger, traffic=traffic, bundle=bundle)
    return report.documents


PLUGIN = Report


def _packed(value: object) -> str:
    """JSON, compressed (zlib), as base64: about a tenth of the JSON, and inert in HTML."""
    return base64.b64encode(zlib.compress(orjson.dumps(value), 6)).decode()


def _inert(value: object) -> str:
    """JSON that can't end the script element around it."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")


def _row(document: Document) -> dict[str, Any]:
    """What the list shows, sorts by and searches: the page reads the rest only when the alert is
    opened."""
    return {
        "id": _at(document, "event", "id"),
        "group": _at(document, "ids_plugin", "fold", "id"),
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
    """What the text filter finds beside the columns: addresses, ports, ids, techniques, the
    sensor."""
    values = (
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
    listed = (
        value if isinstance(value, list) else [value] for value in values if value is not None
    )
    yield from map(str, itertools.chain.from_iterable(listed))


def _at(document: Any, *path: str) -> Any:
    """The value at `path` of nested objects; None where a step is missing."""
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


@cache
def _page() -> tuple[str, str]:
    """The page before and after the data.

    It is the template with the style, the scripts, and the policy that allows just these.
    """
    assets = files(__package__).joinpath("assets")
    style = assets.joinpath("report.css").read_text("utf-8")
    libraries = [assets.joinpath(name).read_text("utf-8") for name in LIBRARIES]
    script = bundle_modules(_modules(), ENTRY_MODULE)
    allowed = " ".join(_hash(text) for text in (*libraries, script))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; "
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
    scripts = [f"<script>{library}</script>" for library in libraries]
    scripts.append(f'<script type="module">{script}</script>')
    return head, after.replace("{{scripts}}", "\n".join(scripts))


def _modules() -> dict[str, str]:
    """Name → source of the page's modules."""
    folder = files(__package__).joinpath("assets", "report")
    return {
        path.name.removesuffix(".js"): path.read_text("utf-8")
        for path in folder.iterdir()
        if path.name.endswith(".js")
    }


def _hash(text: str) -> str:
    """CSP source that allows an inline element with exactly this text
    (https://www.w3.org/TR/CSP3/#framework-directive-source-list)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
