"""Features of one flow: Flow frame → Flow frame + float32 columns. A file here that defines
`PLUGIN` adds a group."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from ids_plugin import registry
from ids_plugin.schema.window import Feature


class Group(NamedTuple):
    """Features and the Polars expressions that compute them from the Flow columns, in the same
    order."""

    features: tuple[Feature, ...]
    expressions: tuple[pl.Expr, ...]


def columns() -> tuple[Feature, ...]:
    """All features of one flow, in the order of the files' names."""
    return tuple(feature for group in registry.load_all("features") for feature in group.features)


def add(flows: pl.DataFrame) -> pl.DataFrame:
    """The frame with one float32 column per feature: null where the source can't know it."""
    expressions = [
        expression.cast(pl.Float32).alias(feature.name)
        for group in registry.load_all("features")
        for feature, expression in zip(group.features, group.expressions, strict=True)
    ]
    return flows.with_columns(expressions)
