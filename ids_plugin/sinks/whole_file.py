"""A file that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ids_plugin.writing import writing


class WholeFile:
    """Writes to `NAME.part` beside the file and renames it when it is closed.

    Raises:
        UsageError: the file can't be made or written (no permission, full disk, ...), in any
            method; nothing is left behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        with writing(path, self.abort):
            self._file = self._part.open("wb")

    def write(self, content: bytes) -> None:
        """Appends bytes."""
        with writing(self.path, self.abort):
            self._file.write(content)

    def close(self) -> None:
        """Renames the file; a file that had this name before is replaced."""
        with writing(self.path, self.abort):
            self._file.close()
            os.replace(self._part, self.path)

    def abort(self) -> None:
        """Removes the incomplete file."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)
