"""What was done to a host of late, as a responder."""

from __future__ import annotations

import polars as pl

from ids_plugin.windows import Measure, Reading, Rolling

_FAILED = pl.col("failed") > 0

MEASURES = (
    Measure("flows", "log flows", "flows", pl.lit(1)),
    Measure("failed", "log flows", "failed flows", _FAILED),
    Measure("packets", "log packets", "packets received", pl.col("orig_pkts")),
    Measure("peers", "log hosts", "distinct originators", pl.lit(1), "contact"),
)
_ALL = tuple(measure.name for measure in MEASURES)

PLUGIN = Rolling(
    side="responder",
    role="acted_upon",
    measures=MEASURES,
    readings=(
        Reading("resp", _ALL, (10, 60, 600, 3600)),
        Reading("orig", ("flows", "failed"), (600,)),
    ),
)
