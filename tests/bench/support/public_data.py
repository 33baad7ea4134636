"""Where public research data lie that don't ship with the project."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(
    os.environ.get("IDS_SHARED_DATA", Path(__file__).parents[3].parent / "shared" / "data")
)
