"""Small made captures in the form of `real:DIR`: a beacon among browsing, and browsing alone."""

from __future__ import annotations

import random
from pathlib import Path

FIELDS = (
    "ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service",
    "duration", "orig_bytes", "resp_bytes", "conn_state", "missed_bytes", "history", "orig_pkts",
    "orig_ip_bytes", "resp_pkts", "resp_ip_bytes",
)  # fmt: skip
TYPES = (
    "time", "string", "addr", "port", "addr", "port", "enum", "string", "interval", "count",
    "count", "string", "count", "string", "count", "count", "count", "count",
)  # fmt: skip
START = 1_700_000_000.0
HOST, CONTROLLER, BROWSED = "10.0.0.5", "203.0.113.9", "198.51.100.7"
CONTROL_PORT = 8443
BEACON_GAP_S = 60.0


def write_captures(folder: Path, *, attacked: int, quiet: int, flows: int = 40) -> None:
    """`attacked` captures with a beacon, then `quiet` ones, with their tables; all are alike but
    for jitter. Capture n belongs to the set `set<n>`."""
    labels = ["capture,host,role,class,peer,port,first,last,attack_flows,confidence,why,accept"]
    benign = ["capture,hours,flows,kind,certain"]
    sources = ["capture,set,source"]
    for number in range(attacked + quiet):
        name = f"set{number}__made-{number}"
        has_beacon = number < attacked
        place = folder / "captures" / name
        place.mkdir(parents=True)
        (place / "conn.log").write_text(_log(random.Random(number), has_beacon, flows))
        sources.append(f"{name},set{number},made")
        if has_beacon:
            labels.append(
                f"{name},{HOST},actor,command_and_control,{CONTROLLER},{CONTROL_PORT},,,"
                f"{flows},sure,made,"
            )
        else:
            benign.append(f"{name},1,{flows},office,yes")
    for table, lines in (("labels", labels), ("benign", benign), ("sources", sources)):
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")


def _log(draw: random.Random, has_beacon: bool, flows: int) -> str:
    rows = []
    time = START
    for step in range(flows):
        time += draw.expovariate(1 / 40)
        up, down = draw.randint(200, 3_000), draw.randint(2_000, 300_000)
        rows.append((time, BROWSED, 443, draw.uniform(0.1, 20), up, down))
        if has_beacon:
            beacon = START + BEACON_GAP_S * step + draw.uniform(-0.5, 0.5)
            rows.append((beacon, CONTROLLER, CONTROL_PORT, 0.3, 180, 90))
    rows.sort()
    head = [
        "#separator \\x09",
        "#set_separator\t,",
        "#empty_field\t(empty)",
        "#unset_field\t-",
        "#path\tconn",
        "\t".join(["#fields", *FIELDS]),
        "\t".join(["#types", *TYPES]),
    ]
    return "\n".join([*head, *(_line(number, *row) for number, row in enumerate(rows))]) + "\n"


def _line(
    number: int, time: float, peer: str, port: int, duration: float, up: int, down: int
) -> str:
    cells = (
        f"{time:.6f}", f"C{number:06d}", HOST, 40_000 + number, peer, port, "tcp", "ssl",
        f"{duration:.6f}", up, down, "SF", 0, "ShADadFf", 8, up + 320, 8, down + 320,
    )  # fmt: skip
    return "\t".join(map(str, cells))
