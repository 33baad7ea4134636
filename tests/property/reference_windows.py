"""What a window is, written to be read, not to be fast: one flow at a time, every rule a loop over
what came before.

No code of `ids_plugin.windows` is used here but the names of the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

HOUR = 3600
DAY = 24 * HOUR
EARLIER = 10
Flow = dict[str, Any]


def identity(flow: Flow) -> tuple[Any, ...]:
    """What makes two records the same connection."""
    return flow["uid"], flow["orig_h"], flow["resp_h"]


def content(flow: Flow) -> tuple[Any, ...]:
    """What makes two records of a connection duplicates."""
    names = ("conn_state", "ts", "duration", "orig_bytes", "resp_bytes", "orig_pkts", "resp_pkts")
    return tuple(flow[name] for name in (*names, "orig_ip_bytes", "resp_ip_bytes"))


def windows(flows: list[Flow]) -> list[dict[str, Any]]:
    """Context features of every flow that isn't a duplicate. `flows` are in known order, with the
    flow features."""
    past: list[Flow] = []
    found = []
    seen = set()
    clock = -math.inf
    for flow in flows:
        key = identity(flow), content(flow)
        if key in seen:
            continue
        seen.add(key)
        clock = max(clock, flow["known"])
        flow = flow | {"clock": clock}
        replaced = [other for other in past if other["open"] and identity(other) == identity(flow)]
        past = [other for other in past if other not in replaced]
        past.append(flow)
        found.append(_context(past) | {"earlier": [other["uid"] for other in _pair_window(past)]})
    return found


def _pair_window(past: list[Flow]) -> list[Flow]:
    now = past[-1]
    pair = {now["orig_h"], now["resp_h"]}
    same = [
        f
        for f in past[:-1]
        if {f["orig_h"], f["resp_h"]} == pair and now["clock"] - f["clock"] < DAY
    ]
    return same[-EARLIER:]


def _context(past: list[Flow]) -> dict[str, float]:
    now = past[-1]
    values: dict[str, float] = {}
    for whose, host in (("orig", now["orig_h"]), ("resp", now["resp_h"])):
        acts: Callable[[Flow], bool] = lambda f, host=host: f["orig_h"] == host  # type: ignore[misc]  # noqa: E731
        upon: Callable[[Flow], bool] = lambda f, host=host: f["resp_h"] == host  # type: ignore[misc]  # noqa: E731
        for horizon in (10, 60, 600, HOUR):
            window = [f for f in past if now["clock"] - f["clock"] < horizon]
            # Towards the originator, a flow to itself counts from the next flow on.
            before = window if whose == "resp" else window[:-1]
            values |= _named(f"{whose}_acts", horizon, _sums([f for f in window if acts(f)]))
            values |= _named(f"{whose}_acted_upon", horizon, _sums([f for f in before if upon(f)]))
    for horizon in (60, 600, HOUR):
        pair = {now["orig_h"], now["resp_h"]}
        window = [
            f
            for f in past
            if now["clock"] - f["clock"] < horizon and {f["orig_h"], f["resp_h"]} == pair
        ]
        values |= _named("pair", horizon, _sums(window))
    return values


def _named(prefix: str, horizon: int, sums: dict[str, int]) -> dict[str, float]:
    return {f"{prefix}_{name}_{horizon}s": math.log(1 + value) for name, value in sums.items()}


def _sums(window: list[Flow]) -> dict[str, int]:
    failed = [f for f in window if f["failed"]]
    return {
        "flows": len(window),
        "failed": len(failed),
        "packets": sum(f["orig_pkts"] or 0 for f in window),
        "upload": sum(f["orig_ip_bytes"] or 0 for f in window if f["outbound"]),
        "logins": sum(1 for f in window if f["login_service"] and f["completed"]),
        "peers": len({(f["orig_h"], f["resp_h"]) for f in window}),
        "failed_peers": len({(f["orig_h"], f["resp_h"]) for f in failed}),
        "failed_services": len({(f["orig_h"], f["resp_h"], f["resp_p"]) for f in failed}),
        "failed_ports": len({(f["orig_h"], f["resp_h"], f["resp_p"]) for f in failed}),
        "sent": sum(f["orig_ip_bytes"] or 0 for f in window),
        "received": sum(f["resp_ip_bytes"] or 0 for f in window),
    }
