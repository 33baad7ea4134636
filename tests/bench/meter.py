"""The capture reader against a real Zeek's conn.log, and its speed beside dpkt's bare parse.

    python -m tests.bench.meter [--json] [--packets N] [CAPTURE-NAME…]

Agreement: every connection of Zeek's log is looked for by its endpoints and the time of its first packet, then field by
field. Speed: packets a second of CPU time on a capture the bench makes; dpkt parses the headers of the same packets.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import dpkt
import polars as pl

from ids_plugin.sources import Input
from ids_plugin.sources.capture import PLUGIN
from tests.captures import mixed_traffic
from tests.shared_data import ROOT

FIELDS = (
    "service", "duration", "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp", "missed_bytes",
    "history", "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes", "tunnel_parents", "ip_proto",
)  # fmt: skip
KEY = ("id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto")
Row = dict[str, Any]
DPKT_PACKETS = 100_000


@dataclass
class Agreement:
    """How one capture's flows compare with Zeek's log."""

    name: str
    expected: int = 0
    matched: int = 0
    extra: int = 0
    unequal: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def fields(self) -> int:
        return self.matched * len(FIELDS)


def cases() -> Iterator[tuple[str, Path, Path]]:
    """Name, capture and conn.log of every shared pair; nothing where the shared data is absent."""
    for folder in sorted((ROOT / "zeek-8.0.8").glob("[a-z]*")):
        if folder.is_dir():
            yield folder.name, next(folder.glob("capture.pcap*")), folder / "conn.log"
    for path in sorted((ROOT / "pcap").glob("*.pcap")):
        yield path.stem, path, path.with_suffix(".zeek-8.0.8.conn.log")


def compare(name: str, capture: Path, log: Path) -> Agreement:
    """Reads the capture and compares with the log."""
    result = Agreement(name)
    ours: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in _measured(name, capture):
        ours[row["orig_h"], row["orig_p"], row["resp_h"], row["resp_p"], row["proto"], row["ts"]].append(row)
    for theirs in _zeek(log):
        result.expected += 1
        ports = {"id.orig_p": int(theirs["id.orig_p"]), "id.resp_p": int(theirs["id.resp_p"])}
        key = (*(ports.get(part, theirs[part]) for part in KEY), _micros(theirs["ts"]))
        if not ours[key]:
            result.examples.append(f"{name}: not found: {key} {theirs['history']}")
            continue
        result.matched += 1
        mine = ours[key].pop(0)
        for unequal in (part for part in FIELDS if not _equal(part, mine[part], theirs[part])):
            result.unequal[unequal] += 1
            result.examples.append(f"{name}: {unequal}: {mine[unequal]!r}, Zeek {theirs[unequal]!r}, {key}")
    result.extra = sum(map(len, ours.values()))
    return result


def _measured(name: str, capture: Path) -> list[Row]:
    data = capture.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    steps = PLUGIN.read(Input(name, io.BytesIO(data), data[:65536], "bench"), 10_000)
    times = pl.col("ts").dt.timestamp("us"), pl.col("duration").dt.total_microseconds()
    return pl.concat([step.flows for step in steps]).with_columns(*times).to_dicts()


def _zeek(log: Path) -> Iterator[Row]:
    names: list[str] = []
    for line in log.read_text().splitlines():
        parts = line.split("\t")
        if parts[0] == "#fields":
            names = parts[1:]
        elif not line.startswith("#"):
            yield dict(zip(names, parts, strict=True))


def _micros(seconds: str) -> int:
    return int(Decimal(seconds) * 1_000_000)


def _equal(name: str, mine: Any, theirs: str) -> bool:
    """Whether a value is what Zeek wrote; services in any order, tunnels by being there."""
    if mine is None or theirs == "-":
        return mine is None and theirs == "-"
    if name == "service":
        return set(str(mine).split(",")) == set(theirs.split(","))
    if name == "tunnel_parents":
        return True
    if name == "duration":
        return bool(mine == _micros(theirs))
    return theirs == ({True: "T", False: "F"}[mine] if isinstance(mine, bool) else str(mine))


def speed(packets: int) -> dict[str, float]:
    """Packets a second of CPU time, ours and dpkt's, and our peak memory, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        for piece in mixed_traffic(packets, seed=1):
            file.write(piece)
        file.flush()
        command = [sys.executable, "-m", "tests.bench.meter", "--only-speed", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _speed_of(path: Path) -> dict[str, float]:
    begin, seen, flows = time.process_time(), 0, 0
    with path.open("rb") as file:
        for step in PLUGIN.read(Input("mixed", file, b"", "bench"), 10_000):
            seen += step.notes.get("packets", 0)
            flows += step.flows.height
    ours = seen / (time.process_time() - begin)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    with path.open("rb") as file:
        parsed = _dpkt(file)
    return {"packets": seen, "flows": flows, "ours": ours, "dpkt": parsed, "ratio": ours / parsed, "peak_mib": peak}


def _dpkt(file: BinaryIO) -> float:
    begin, seen = time.process_time(), 0
    for _, data in dpkt.pcap.Reader(file):
        dpkt.ethernet.Ethernet(data)
        seen += 1
        if seen == DPKT_PACKETS:
            break
    return seen / (time.process_time() - begin)


def report(results: list[Agreement], rate: dict[str, float]) -> str:
    """The tables a person reads."""
    lines = [f"{'capture':50} {'Zeek':>6} {'found':>6} {'extra':>6} {'unequal fields'}"]
    for result in results:
        unequal = ", ".join(f"{name} {count}" for name, count in result.unequal.most_common()) or "-"
        lines.append(f"{result.name:50} {result.expected:6} {result.matched:6} {result.extra:6} {unequal}")
    lines += ["", *(example for result in results for example in result.examples[:3])]
    total = summary(results)
    lines += ["", f"found {total['matched']} of {total['expected']} ({total['matched_share']:.4%})"]
    lines += [f"equal fields {total['equal_share']:.4%} of {total['fields']}"]
    lines += [f"{name:16} {count} unequal" for name, count in total["unequal"].items()]
    lines += [
        "",
        f"{rate['packets']:,.0f} packets → {rate['flows']:,.0f} flows at {rate['ours']:,.0f} packets/s of CPU time",
    ]
    lines += [f"dpkt's bare parse {rate['dpkt']:,.0f} packets/s: {rate['ratio']:.1f} times as fast"]
    lines += [f"peak memory {rate['peak_mib']:.0f} MiB", "", "again: python -m tests.bench.meter"]
    return "\n".join(lines)


def summary(results: list[Agreement]) -> dict[str, Any]:
    """Totals over all captures."""
    unequal = sum((result.unequal for result in results), Counter[str]())
    expected, matched = sum(result.expected for result in results), sum(result.matched for result in results)
    fields = sum(result.fields for result in results)
    return {
        "expected": expected,
        "matched": matched,
        "matched_share": matched / max(expected, 1),
        "extra": sum(result.extra for result in results),
        "fields": fields,
        "equal_share": 1 - sum(unequal.values()) / max(fields, 1),
        "unequal": {name: unequal[name] for name in FIELDS},
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only captures whose name contains one of these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--only-speed", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_speed:
        print(json.dumps(_speed_of(arguments.only_speed)))
        return
    chosen = [case for case in cases() if not arguments.names or any(name in case[0] for name in arguments.names)]
    results = [compare(*case) for case in chosen]
    rate = speed(arguments.packets)
    if arguments.json:
        captures = {result.name: {**vars(result), "unequal": dict(result.unequal)} for result in results}
        print(json.dumps({"agreement": summary(results), "captures": captures, "speed": rate}))
    else:
        print(report(results, rate))
    if not results:
        print("no shared captures: set IDS_SHARED_DATA", file=sys.stderr)


if __name__ == "__main__":
    main()
