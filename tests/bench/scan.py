"""Bench `scan`: logs and captures to alerts, on one core, beside zat reading the same log.

    python -m tests.bench.scan [--json] [--flows 1000000] [--packets 1000000] [--memory 10000000]

Every figure is of a whole process on one core (affinity), interpreter start included. Ratios are of
runs of the same invocation. The log is a busy gateway's, drawn by seed, 0.1 % of its flows an
attack (tests/bench/support/traffic.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.support.traffic import write_zeek_json
from tests.support.captures import mixed_traffic

SAMPLE = Path(__file__).parents[1] / "lab" / "sample" / "capture.pcap.gz"
ZAT = """
import sys
from zat.log_to_dataframe import LogToDataFrame
print(len(LogToDataFrame().create_dataframe(sys.argv[1])))
"""


class Run(NamedTuple):
    """One process: wall and CPU seconds, peak resident memory in MB."""

    wall: float
    cpu: float
    memory: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument(
        "--memory",
        type=int,
        default=0,
        metavar="FLOWS",
        help="also a log of so many, for its memory",
    )
    parser.add_argument(
        "--packets", type=int, default=1_000_000, help="packets of a capture the bench makes"
    )
    parser.add_argument("--sample", type=Path, default=SAMPLE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<28} {value}")
    return 0


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    log = write_zeek_json(folder / "conn.log", args.flows)
    tsv = folder / "zat.log"
    run(
        [
            sys.executable,
            "-m",
            "ids_plugin.cli",
            "flows",
            log,
            "--format",
            "tsv",
            "-o",
            tsv,
            "--quiet",
        ]
    )
    scan = run(scan_command(log, folder / "scan"))
    everything = run([*scan_command(log, folder / "everything"), "--ask-every-model"])
    zat = run([sys.executable, "-c", ZAT, str(tsv)])
    found, wanted = (alerts(folder / name) for name in ("scan", "everything"))
    result: dict[str, Any] = {
        "repeat": f"python -m tests.bench.scan --flows {args.flows}",
        "flows": args.flows,
        "scan_flows_per_s": round(args.flows / scan.wall),
        "scan_cpu_flows_per_s": round(args.flows / scan.cpu),
        "every_model_flows_per_s": round(args.flows / everything.wall),
        "zat_dataframe_flows_per_s": round(args.flows / zat.wall),
        "scan_against_zat": round(zat.wall / scan.wall, 2),
        "scan_peak_mb": round(scan.memory),
        "zat_peak_mb": round(zat.memory),
        "alerts": len(found),
        "alerts_only_of_the_cascade": sorted(found - wanted),
        "alerts_only_of_every_model": sorted(wanted - found),
    }
    if args.memory:
        long = write_zeek_json(folder / "long.log", args.memory)
        result["long_log_flows"] = args.memory
        result["long_log_peak_mb"] = round(run(scan_command(long, folder / "long")).memory)
    if args.packets:
        capture = folder / "mixed.pcap"
        with capture.open("wb") as stream:
            stream.writelines(mixed_traffic(args.packets, seed=1))
        mixed = run(scan_command(capture, folder / "mixed"))
        result["packets"] = args.packets
        result["scan_packets_per_s"] = round(args.packets / mixed.wall)
        result["scan_cpu_packets_per_s"] = round(args.packets / mixed.cpu)
        result["capture_peak_mb"] = round(mixed.memory)
    if args.sample.exists():
        sample = run(scan_command(args.sample, folder / "sample"))
        result["sample_seconds"] = round(sample.wall, 2)
    return result


def scan_command(source: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "ids_plugin.cli",
        "scan",
        str(source),
        "--out",
        str(out),
        "--quiet",
    ]


def alerts(out: Path) -> set[tuple[str, str]]:
    """(host, class) of every alert of a scan."""
    documents = (json.loads(line) for line in (out / "alerts.ndjson").read_text().splitlines())
    return {
        (one["ids_plugin"]["fold"]["subject"], one["ids_plugin"]["label"])
        for one in documents
        if one["event"]["kind"] == "alert"
    }


def run(command: list[Any]) -> Run:
    """Runs a command on one core and measures it as the operating system accounts for it."""
    one_core: Callable[[], None] = lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # noqa: E731
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    child = subprocess.Popen(
        [str(one) for one in command],
        preexec_fn=one_core,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: {command}")
    return Run(wall, usage.ru_utime + usage.ru_stime, memory(usage))


def memory(usage: resource.struct_rusage) -> float:
    """Peak resident memory in MB."""
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
