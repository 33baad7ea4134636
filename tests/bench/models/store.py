"""Finished cells and trained bundles on disk: a run resumes where the one before it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ids_plugin.bundle import Bundle, read, write


@dataclass(frozen=True)
class Cell:
    """One figure-making job: a family of a section with one seed."""

    section: str
    family: str
    seed: int = 1

    @property
    def name(self) -> str:
        """Such as `lab/cnn/1`."""
        return f"{self.section}/{self.family}/{self.seed}"


class Store:
    """A folder of results, bundles and prepared data; whatever was made from something else counts
    as absent."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        """`settings`: everything, beside the data, that a figure depends on."""
        self.root = root
        self._settings = settings

    def key(self, *parts: object) -> str:
        """Short digest of the settings and of what else a thing is made from."""
        text = json.dumps([self._settings, *parts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def load(self, cell: Cell, *parts: object) -> dict[str, Any] | None:
        """The cell's result, None where it isn't finished or was made from other `parts`."""
        path = self._cell(cell)
        if not path.exists():
            return None
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept["result"] if kept["key"] == self.key(*parts) else None

    def save(self, cell: Cell, result: dict[str, Any], *parts: object) -> None:
        """Keeps a finished cell: all of it or nothing."""
        path = self._cell(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(
            json.dumps({"key": self.key(*parts), "cell": cell.name, "result": result}, indent=1)
        )
        os.replace(draft, path)

    def bundle(self, name: str, *parts: object) -> Bundle | None:
        """A bundle kept under `name`, None where there is none that was made from `parts`."""
        path = self._bundle(name, *parts)
        return read(path) if path.exists() else None

    def keep(self, name: str, bundle: Bundle, *parts: object) -> None:
        """Keeps a trained bundle."""
        path = self._bundle(name, *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(bundle, path)

    def folder(self, name: str, *parts: object) -> Path:
        """Where prepared data made from `parts` lie, or are to lie."""
        return self.root / "data" / f"{name.replace('/', '-')}-{self.key(*parts)}"

    def _cell(self, cell: Cell) -> Path:
        return (
            self.root / "cells" / cell.section / f"{cell.family.replace('+', '-')}-{cell.seed}.json"
        )

    def _bundle(self, name: str, *parts: object) -> Path:
        return self.root / "bundles" / f"{name.replace('+', '-')}-{self.key(*parts)}"
