"""Documents as JSON, one a line: a file that appears under its name when it is complete, or a stream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import orjson

from ids_plugin.sinks import Delivered
from ids_plugin.writing import writing


class Ndjson:
    """alerts.ndjson, rejects.ndjson, or standard output.

    A `with` block closes it, or aborts it when an error passes. A BrokenPipeError passes as it is: whoever reads has
    seen enough.

    Raises:
        UsageError: the file can't be made or written (no permission, full disk, ...), at any step.
    """

    name = "ndjson"

    def __init__(self, target: Path | BinaryIO) -> None:
        self._path = target if isinstance(target, Path) else None
        self.location = str(target) if isinstance(target, Path) else "standard output"
        with writing(self.location, self.abort):
            self._stream = _part(target).open("wb") if isinstance(target, Path) else target

    def write(self, documents: Sequence[Mapping[str, object]]) -> Delivered:
        """Appends any JSON-able mappings, in their order."""
        with writing(self.location, self.abort):
            self._stream.write(
                b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in documents)
            )
        return Delivered(len(documents))

    def close(self) -> None:
        """Puts the file in its place; a stream is flushed and stays open."""
        with writing(self.location, self.abort):
            self._stream.flush()
            if self._path is not None:
                self._stream.close()
                os.replace(_part(self._path), self._path)

    def abort(self) -> None:
        """Leaves no file behind."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            _part(self._path).unlink(missing_ok=True)

    def __enter__(self) -> Ndjson:
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


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


PLUGIN = Ndjson
