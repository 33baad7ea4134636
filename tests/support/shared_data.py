"""Finds the public research data that measurements use and that the project doesn't ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(
    os.environ.get("IDS_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


def shared(*parts: str) -> Path:
    """Path of a shared file or folder; skips the test where it is absent."""
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"needs {'/'.join(parts)} of the shared data; set IDS_SHARED_DATA to the folder that "
            "holds it"
        )
    return path
