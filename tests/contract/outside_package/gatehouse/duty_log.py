"""A sink: one line of text an alert, for a duty log. The target is a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ids_plugin.errors import UsageError
from ids_plugin.schema.alert import Document
from ids_plugin.sinks import STANDARD_OUTPUT, Delivered, SinkEnvironment


class DutyLog:
    """Collects lines, and writes the file when it is closed."""

    name = "duty_log"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    @classmethod
    def open(cls, target: str, environment: SinkEnvironment) -> Self:
        """A sink for a path.

        Raises:
            UsageError: the target is standard output.
        """
        if target == STANDARD_OUTPUT:
            raise UsageError("a duty log needs a path", location=target)
        return cls(Path(target))

    def write(self, documents: Sequence[Document]) -> Delivered:
        """A line for each alert; what closes a group is no alert."""
        for document in documents:
            if document["event"]["kind"] == "alert":
                self._lines.append(_line(document))
        return Delivered(len(documents))

    def close(self) -> None:
        """Writes the file."""
        self._path.write_text("".join(self._lines), encoding="utf-8")

    def abort(self) -> None:
        """Leaves no file."""
        self._lines.clear()


def _line(document: Document) -> str:
    product = document["ids_plugin"]
    models = ",".join(sorted(product["scores"]))
    return f"{document['@timestamp']} {product['label']} {document['source']['ip']} {models}\n"


PLUGIN = DutyLog
