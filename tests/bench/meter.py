"""The capture reader against a real Zeek's conn.log, and its speed beside dpkt's bare parse.

    python -m tests.bench.meter [--json] [--packets N] [CAPTURE-NAME…]

Agreement: every connection of Zeek's log is looked for by its endpoints and the time of its first
packet, then field by field. Speed: packets a second of CPU time on a capture the bench makes,
beside dpkt's bare parse of headers, NFStream, Suricata and Zeek where they are installed; each in a
process of its own on one core. Memory: also of a SYN flood.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from ids_plugin.flowmeter.meter import MAX_OPEN_CONNECTIONS
from ids_plugin.flowmeter.packets.capture_files import chunks
from ids_plugin.sources import Input
from ids_plugin.sources.capture import PLUGIN
from ids_plugin.sources.meter_programs import PROGRAMS, measure
from tests.support.captures import mixed_traffic, syn_flood

FIELDS = (
    "service", "duration", "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp", "missed_bytes",
    "history", "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes", "tunnel_parents", "ip_proto",
)  # fmt: skip
KEY = ("id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto")
Row = dict[str, Any]
LOSSY = 0.001
BEGINNING = 500_000
"""Packets that slower programs read."""
FLOOD = 2_000_000
START = time.process_time()
"""CPU seconds that imports took."""


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
    from tests.support.shared_data import ROOT

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
        ours[
            row["orig_h"], row["orig_p"], row["resp_h"], row["resp_p"], row["proto"], row["ts"]
        ].append(row)
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
            result.examples.append(
                f"{name}: {unequal}: {mine[unequal]!r}, Zeek {theirs[unequal]!r}, {key}"
            )
    result.extra = sum(map(len, ours.values()))
    return result


def _measured(name: str, capture: Path) -> list[Row]:
    data = capture.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    steps = PLUGIN.read(Input(name, io.BytesIO(data), data[:65536], "bench"), 10_000)
    times = pl.col("ts").dt.timestamp("us"), pl.col("duration").dt.total_microseconds()
    flags = (pl.col(f"sensor_{name}").alias(name) for name in ("local_orig", "local_resp"))
    return pl.concat([step.flows for step in steps]).with_columns(*times, *flags).to_dicts()


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


def speed(packets: int, rounds: int) -> dict[str, Any]:
    """Packets a second of CPU time on a capture made here, and of other programs on its beginning;
    peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        mixed, beginning, flood = (
            Path(folder) / name for name in ("mixed.pcap", "beginning.pcap", "flood.pcap")
        )
        _write(mixed, mixed_traffic(packets, seed=1, lossy=LOSSY))
        _write(beginning, mixed_traffic(min(packets, BEGINNING), seed=1, lossy=LOSSY))
        ours = [_alone("ours", mixed) for _ in range(rounds)]
        others = {
            name: _alone(name, beginning)
            for name in ("dpkt", "nfstream", *PROGRAMS)
            if _is_there(name)
        }
        ours.append(_alone("ours", mixed))
        mixed.unlink()
        _write(flood, syn_flood(FLOOD, seed=1))
        flooded = _alone("ours", flood)
    best = max(ours, key=lambda each: each["rate"])
    return {
        "ours": best | {"runs": [each["rate"] for each in ours]},
        "others": {
            name: each | {"ratio": best["rate"] / each["rate"]} for name, each in others.items()
        },
        "flood": flooded,
    }


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(pieces)


def _is_there(name: str) -> bool:
    return (
        shutil.which(name) is not None
        if name in PROGRAMS
        else importlib.util.find_spec(name) is not None
    )


def _alone(name: str, path: Path) -> dict[str, Any]:
    """One way of reading a capture, in a process of its own on one core."""
    command = [sys.executable, "-m", "tests.bench.meter", "--only", name, str(path)]
    one = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | one
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _measure(name: str, path: Path) -> dict[str, Any]:
    """Reads the capture in one way, on one core; CPU and wall in seconds, peak memory of a process
    in MB (10^6)."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    begun = time.perf_counter()
    counts = {"ours": _ours, "dpkt": _dpkt, "nfstream": _nfstream}.get(name, _program(name))(path)
    wall = time.perf_counter() - begun
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in used) - START
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = max(int(status["VmHWM"].split()[0]), used[1].ru_maxrss) * 1024 / 1e6
    return {**counts, "cpu": cpu, "wall": wall, "rate": counts["packets"] / cpu, "peak_mb": peak}


def _ours(path: Path) -> dict[str, int]:
    seen: Counter[str] = Counter()
    with path.open("rb") as file:
        for step in PLUGIN.read(Input("mixed", file, b"", "bench"), 10_000):
            seen.update(step.notes)
            seen["flows"] += step.flows.height
    return {name: seen[name] for name in ("packets", "flows", "given_out_early")}


def _dpkt(path: Path) -> dict[str, int]:
    """Headers alone: no connections."""
    import dpkt

    with path.open("rb") as file:
        seen = 0
        for _, data in dpkt.pcap.Reader(file):
            dpkt.ethernet.Ethernet(data)
            seen += 1
    return {"packets": seen, "flows": 0}


def _nfstream(path: Path) -> dict[str, int]:
    """Flows by NFStream's C engine, without its look at applications."""
    from nfstream import NFStreamer

    streamer = NFStreamer(source=str(path), n_dissections=0, n_meters=1, statistical_analysis=False)
    payload_sizes = [flow.bidirectional_packets for flow in streamer]
    return {"packets": sum(payload_sizes), "flows": len(payload_sizes)}


def _program(name: str) -> Callable[[Path], dict[str, int]]:
    """A real Suricata or Zeek, and reading what it wrote; it must have seen as many packets as
    there are."""

    def read(path: Path) -> dict[str, int]:
        with path.open("rb") as file:
            steps = measure(name, Input("mixed", file, b"", "bench"), 10_000)
            flows = sum(step.flows.height for step in steps)
        with path.open("rb") as file:
            return {"packets": sum(len(chunk.offset) for chunk in chunks(file)), "flows": flows}

    return read


def report(results: list[Agreement], rate: dict[str, Any]) -> str:
    """The tables a person reads."""
    lines = [f"{'capture':50} {'Zeek':>6} {'found':>6} {'extra':>6} {'unequal fields'}"]
    for result in results:
        unequal = (
            ", ".join(f"{name} {count}" for name, count in result.unequal.most_common()) or "-"
        )
        lines.append(
            f"{result.name:50} {result.expected:6} {result.matched:6} {result.extra:6} {unequal}"
        )
    lines += ["", *(example for result in results for example in result.examples[:3])]
    total = summary(results)
    lines += ["", f"found {total['matched']} of {total['expected']} ({total['matched_share']:.4%})"]
    lines += [f"equal fields {total['equal_share']:.4%} of {total['fields']}"]
    lines += [f"{name:16} {count} unequal" for name, count in total["unequal"].items()]
    return "\n".join(
        [*lines, "", *(told(rate) if rate else []), "", "again: python -m tests.bench.meter"]
    )


def told(rate: dict[str, Any]) -> list[str]:
    """Speed and memory, a line each."""
    ours, flood = rate["ours"], rate["flood"]
    lines = [
        f"{'':10} {'packets':>10} {'flows':>9} {'packets/s of CPU':>17} {'of wall':>11} {'peak MB':>8}  ours is"
    ]
    for name, each in {"ours": ours, **rate["others"], "SYN flood": flood}.items():
        times = f"{each['ratio']:.1f} times as fast" if "ratio" in each else ""
        wall = each["packets"] / each["wall"]
        lines.append(
            f"{name:10} {each['packets']:10,} {each['flows']:9,} {each['rate']:17,.0f} {wall:11,.0f}"
            f" {each['peak_mb']:8.0f}  {times}"
        )
    share = flood["given_out_early"] / flood["packets"]
    lines += [
        "dpkt parses headers alone; others on the capture's beginning, ours on all of it; best of the runs"
    ]
    lines += [
        f"of {flood['packets']:,} half-open connections {share:.0%} were given out early, at most {MAX_OPEN_CONNECTIONS:,} kept"
    ]
    return lines


def summary(results: list[Agreement]) -> dict[str, Any]:
    """Totals over all captures."""
    unequal = sum((result.unequal for result in results), Counter[str]())
    expected, matched = (
        sum(result.expected for result in results),
        sum(result.matched for result in results),
    )
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only captures whose name contains one of these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--packets", type=int, default=5_000_000, help="of the capture made for speed; 0 for none"
    )
    parser.add_argument("--rounds", type=int, default=2, help="more runs of ours; the best counts")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(_measure(arguments.only[0], Path(arguments.only[1]))))
        return
    chosen = [
        case
        for case in cases()
        if not arguments.names or any(name in case[0] for name in arguments.names)
    ]
    results = [compare(*case) for case in chosen]
    rate = speed(arguments.packets, arguments.rounds) if arguments.packets else {}
    if arguments.json:
        captures = {
            result.name: {**vars(result), "unequal": dict(result.unequal)} for result in results
        }
        print(json.dumps({"agreement": summary(results), "captures": captures, "speed": rate}))
    else:
        print(report(results, rate))
    if not results:
        print("no shared captures: set IDS_SHARED_DATA", file=sys.stderr)


if __name__ == "__main__":
    main()
