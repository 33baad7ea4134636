"""Pages whose tables a bench writes and whose words a person does."""

from __future__ import annotations

from pathlib import Path


def between(page: Path, start: str, end: str, text: str) -> None:
    """Replaces what stands between the two marks of a page."""
    before, _, rest = page.read_text().partition(start)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")
