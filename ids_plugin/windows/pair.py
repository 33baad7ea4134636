"""What passed between two hosts of late, in either direction."""

from __future__ import annotations

import polars as pl

from ids_plugin.windows import Measure, Reading, Rolling

_FAILED = pl.col("failed") > 0
_LOGIN_DONE = (pl.col("login_service") > 0) & (pl.col("completed") > 0)

MEASURES = (
    Measure("flows", "log flows", "flows", pl.lit(1)),
    Measure("failed", "log flows", "failed flows", _FAILED),
    Measure("sent", "log B", "bytes sent", pl.col("orig_ip_bytes")),
    Measure("received", "log B", "bytes received", pl.col("resp_ip_bytes")),
    Measure("logins", "log flows", "completed sessions with a login service", _LOGIN_DONE),
    Measure(
        "failed_ports", "log ports", "distinct ports with failed flows", _FAILED, "failed_service"
    ),
)

PLUGIN = Rolling(
    side="pair",
    role="pair",
    measures=MEASURES,
    readings=(Reading("pair", tuple(measure.name for measure in MEASURES), (60, 600, 3600)),),
)
