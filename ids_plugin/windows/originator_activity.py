"""What a host did of late as an originator: the features that generalise best across networks."""

from __future__ import annotations

import polars as pl

from ids_plugin.windows import Measure, Reading, Rolling

_FAILED = pl.col("failed") > 0
_LOGIN_DONE = (pl.col("login_service") > 0) & (pl.col("completed") > 0)
_OUT = pl.col("outbound") > 0

MEASURES = (
    Measure("flows", "log flows", "flows", pl.lit(1)),
    Measure("failed", "log flows", "failed flows", _FAILED),
    Measure("packets", "log packets", "packets sent", pl.col("orig_pkts")),
    Measure(
        "upload",
        "log B",
        "bytes sent outside",
        pl.when(_OUT).then(pl.col("orig_ip_bytes")).otherwise(0),
    ),
    Measure("logins", "log flows", "completed sessions with login services", _LOGIN_DONE),
    Measure("peers", "log hosts", "distinct peers", pl.lit(1), "contact"),
    Measure(
        "failed_peers", "log hosts", "distinct peers with failed flows", _FAILED, "failed_contact"
    ),
    Measure(
        "failed_services",
        "log services",
        "distinct peers and ports with failed flows",
        _FAILED,
        "failed_service",
    ),
)
_ALL = tuple(measure.name for measure in MEASURES)

PLUGIN = Rolling(
    side="originator",
    role="acts",
    measures=MEASURES,
    readings=(
        Reading("orig", _ALL, (10, 60, 600, 3600)),
        Reading("resp", ("flows", "failed", "failed_peers"), (600,)),
    ),
)
