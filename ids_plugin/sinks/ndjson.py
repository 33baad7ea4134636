"""Documents as JSON, one a line: a file that appears when it is complete, or a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from ids_plugin.sinks import STANDARD_OUTPUT, Delivered, SinkEnvironment
from ids_plugin.sinks.whole_file import WholeFile
from ids_plugin.writing import writing


class Ndjson:
    """Writes alerts.ndjson, rejects.ndjson, or standard output. The target is a path or `-`.

    A `with` block closes the sink, or aborts it when an error passes. A BrokenPipeError passes as
    it is: the reader of a pipe has gone and needs no message.

    Raises:
        UsageError: the file can't be made or written (no permission, full disk, ...), in any
            method.
    """

    name = "ndjson"

    def __init__(self, target: Path | BinaryIO) -> None:
        self._output = WholeFile(target) if isinstance(target, Path) else _Stream(target)

    @classmethod
    def open(cls, target: str, environment: SinkEnvironment) -> Self:
        """A sink for a path, or for standard output (`-`)."""
        return cls(environment.stdout.buffer if target == STANDARD_OUTPUT else Path(target))

    def write(self, documents: Sequence[Mapping[str, object]]) -> Delivered:
        """Appends any JSON-able mappings, in their order."""
        self._output.write(
            b"".join(
                orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in documents
            )
        )
        return Delivered(len(documents))

    def close(self) -> None:
        """Puts the file in its place; a stream is flushed and stays open."""
        self._output.close()

    def abort(self) -> None:
        """Leaves no file behind."""
        self._output.abort()

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


class _Stream:
    """Standard output, which is written to as it is and never closed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, content: bytes) -> None:
        with writing("standard output"):
            self._stream.write(content)

    def close(self) -> None:
        with writing("standard output"):
            self._stream.flush()

    def abort(self) -> None:
        """Does nothing: what was written can't be taken back."""


PLUGIN = Ndjson
