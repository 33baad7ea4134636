"""Features of single flows, by name."""

from __future__ import annotations

from ids_plugin import features
from tests.support.factories import flow, frame


def of(**columns: object) -> dict[str, float | None]:
    """Every feature of a short TCP connection from inside to outside, with `columns` changed."""
    row = flow(0, **({"resp_h": "203.0.113.9"} | columns))  # type: ignore[arg-type]
    found = features.add(frame([row])).row(0, named=True)
    return {feature.name: found[feature.name] for feature in features.columns()}
