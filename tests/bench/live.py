"""Bench `live`: whether a live stream finds what a scan finds. Writes docs/results-live.md.

    python -m tests.bench.live [--bundle default] [--only lab,real,zeek-72h,roads] [--json]
                               [--out docs/results-live.md]

A scan sorts flows by the time they were known (start + duration); a live stream takes them as the
sensor writes them, and counts what comes behind its clock as of that clock. Compared are the alerts
of both by (host, class).

- `lab`: the lab's runs, in the order in which Zeek would have written them (support/zeek_order.py).
- `real`: public captures, in the order of a real Zeek's log; `zeek-72h`: an exposed host's logs.
- `roads`: a log that a real Zeek wrote live, by `ship`, as zeek-kafka sends it, and scanned.

IDS_SHARED_DATA names the folder of the public data; what is absent is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.alerts import policy
from ids_plugin.bundle import Bundle, find, read
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.schema.alert import Document
from ids_plugin.schema.flow import known
from ids_plugin.schema.score import CLASSES
from tests.bench.support import real_captures
from tests.bench.support.roads import as_written, in_known_order, scanned, shipped, zeek_kafka
from tests.bench.support.zeek_order import in_written_order
from tests.lab import metering
from tests.support.shared_data import ROOT as SHARED

LAB = Path(__file__).parents[1] / "lab"
ZEEK_LIVE = SHARED / "zeek-live" / "zeek-live-sample.conn.json.gz"
PARTS = ("lab", "real", "zeek-72h", "roads")
Key = tuple[str, str, str]
"""network, host and class"""


@dataclass
class Comparison:
    """Alerts of a scan and of a stream."""

    scan: set[Key] = field(default_factory=set)
    live: set[Key] = field(default_factory=set)
    of_local_rule: set[Key] = field(default_factory=set)
    """of the stream's rule of who is local, in known order"""
    groups: Counter[str] = field(default_factory=Counter)
    """alert groups of `scan` and `live`"""
    attacks: dict[Key, tuple[bool, bool]] = field(default_factory=dict)
    """labelled attack → found by the scan, found live"""
    flows: int = 0
    late: int = 0
    """flows that were written behind the clock"""

    def add(self, network: str, bundle: Bundle, flows: pl.DataFrame) -> list[list[Document]]:
        """Compares the flows of a network, in the order they were written; documents of both."""
        results = [road(bundle, flows) for road in (scanned, as_written)]
        for keys, name, documents in zip((self.scan, self.live), ("scan", "live"), results,
                                         strict=True):  # fmt: skip
            alerts = alert_keys(documents)
            keys |= {(network, *alert) for alert in alerts}
            self.groups[name] += alerts.total()
        if results[0] != results[1]:
            alerts = alert_keys(in_known_order(bundle, flows))
        self.of_local_rule |= {(network, *alert) for alert in alerts}
        self.flows += len(flows)
        self.late += late_flows(flows)
        return results

    def table(self) -> list[dict[str, Any]]:
        """By class, then all."""
        names = [name for name in CLASSES if any(key[2] == name for key in self.all_keys)]
        return [self._row(name) for name in (*names, "all")]

    @property
    def all_keys(self) -> set[Key]:
        """Alerts and attacks."""
        return self.scan | self.live | self.attacks.keys()

    def _row(self, kind: str) -> dict[str, Any]:
        scan, live, local = (
            {key for key in keys if kind in ("all", key[2])}
            for keys in (self.scan, self.live, self.of_local_rule)
        )
        found = [pair for key, pair in self.attacks.items() if kind in ("all", key[2])]
        return {
            "class": kind,
            "scan": len(scan),
            "live": len(live),
            "only_scan": sorted(scan - live),
            "only_live": sorted(live - scan),
            "due_to_order": len(local ^ live),
            "attacks": len(found),
            "attacks_scan": sum(by_scan for by_scan, _ in found),
            "attacks_live": sum(by_stream for _, by_stream in found),
            "attacks_different": sum(by_scan != by_stream for by_scan, by_stream in found),
        }


def late_flows(flows: pl.DataFrame) -> int:
    """Flows behind the clock in the order they have."""
    times = flows.select(known().dt.epoch("us")).to_series().to_numpy()
    return int((times < np.maximum.accumulate(times)).sum())


def alert_keys(documents: Sequence[Document]) -> Counter[tuple[str, str]]:
    """(host, class) of the alerts → how many groups."""
    return Counter(
        (document["ids_plugin"]["fold"]["subject"], document["ids_plugin"]["label"])
        for document in documents
        if document["event"]["kind"] == "alert"
    )


def lab(bundle: Bundle) -> Comparison:
    """The sample and all runs."""
    comparison = Comparison()
    for name, flows in _lab_networks():
        unlabelled = in_written_order(flows).with_columns(label=None, label_detail=None)
        results = comparison.add(name, bundle, unlabelled.cast(flows.schema))
        alerts = [alert_keys(documents).keys() for documents in results]
        for attack in _attacks(flows):
            comparison.attacks[name, *attack] = attack in alerts[0], attack in alerts[1]
    return comparison


def _lab_networks() -> Iterator[tuple[str, pl.DataFrame]]:
    yield "sample", metering.read(LAB / "sample")
    for folder in ("runs", "judge"):
        for network in load(f"lab:{LAB / 'flows' / folder}"):
            yield network.name, network.flows


def _attacks(flows: pl.DataFrame) -> list[tuple[str, str]]:
    """(host, class) of attacks that are worth finding."""
    attacks = flows.filter(pl.col("label") != "benign")
    labels = np.array([CLASSES.index(name) for name in attacks["label"]], np.int64)
    hosts, kinds = policy.labelled_keys(attacks, labels)
    counts = Counter(zip(hosts, (CLASSES[kind] for kind in kinds.tolist()), strict=True))
    return [attack for attack, count in counts.items() if count >= real_captures.WORTH_FINDING]


def real(bundle: Bundle) -> Comparison:
    """The public captures, in file order."""
    comparison = Comparison()
    for capture in real_captures.captures(SHARED / "real"):
        results = comparison.add(capture.name, bundle, capture.flows)
        by_road = [real_captures.judge(capture, documents).cases for documents in results]
        for by_scan, by_stream in zip(*by_road, strict=True):
            key = capture.name, by_scan.host, by_scan.label
            comparison.attacks[key] = by_scan.found, by_stream.found
    return comparison


def exposed_host(bundle: Bundle) -> Comparison:
    """72 hours of conn logs, hour by hour in file order."""
    comparison = Comparison()
    paths = sorted((SHARED / "zeek-72h").rglob("conn.*.gz"))
    flows = pl.concat([real_captures.read_flows(path) for path in paths])
    comparison.add("zeek-72h", bundle, flows)
    return comparison


def roads(bundle: Bundle) -> dict[str, list[tuple[str, str]]]:
    """The alerts of every road, of one log that a real Zeek wrote live."""
    flows = real_captures.read_flows(ZEEK_LIVE)
    documents = {
        "scan of the unsorted file": scanned(bundle, flows),
        "ship": shipped(bundle, ZEEK_LIVE),
        "zeek-kafka, tagged": zeek_kafka(bundle, ZEEK_LIVE, is_tagged=True),
        "zeek-kafka, untagged": zeek_kafka(bundle, ZEEK_LIVE, is_tagged=False),
    }
    return {road: sorted(alert_keys(of_road).elements()) for road, of_road in documents.items()}


TITLES = {
    "lab": "The lab's sample, training runs and judging runs, in a Zeek's order",
    "real": "Public captures, in a real Zeek's order",
    "zeek-72h": "An exposed host's 72 hours, as a real Zeek logged them",
}
COMPARISONS: dict[str, tuple[str, Callable[[Bundle], Comparison]]] = {
    "lab": ("tests/lab", lab),
    "real": ("real", real),
    "zeek-72h": ("zeek-72h", exposed_host),
}


def measured(bundle: Bundle, parts: Sequence[str]) -> dict[str, Any]:
    """Part → its figures."""
    results: dict[str, Any] = {}
    for name, (folder, compare) in COMPARISONS.items():
        if name in parts and (name == "lab" or (SHARED / folder).exists()):
            print(name, file=sys.stderr)
            comparison = compare(bundle)
            results[name] = {
                "flows": comparison.flows,
                "late": comparison.late,
                "groups": dict(comparison.groups),
                "table": comparison.table(),
            }
    if "roads" in parts and ZEEK_LIVE.exists():
        results["roads"] = roads(bundle)
    return results


INTRODUCTION = """# Whether a live stream finds what a scan finds

This page is for those who run the streaming pipeline and want to know what order costs.

Made by `python -m tests.bench.live --out docs/results-live.md` with bundle `{bundle}`. A scan sorts
flows by the time they were known (start + duration). A live stream takes them as the sensor writes
them: Zeek writes a TCP connection about 5 s after its end, a DNS look-up 10 s, other UDP and ICMP
60 s, a TCP connection that nobody closed 5 min after its last packet. What comes behind the clock
is counted as of the clock. The lab's runs are put into that order by these timeouts; the other data
stand in the order of a real Zeek's log. "By order": alerts that differ although both roads take the
same hosts for local (a scan may also take a host that is in most flows for local).

Why alerts differ: windows of 10 s and 60 s end elsewhere where a few flows come behind others
(refused, unanswered and answered connections of one attack are written at different times), and an
alert near its threshold comes or goes. Where a capture's packets lie hours out of order, Zeek
writes flows hours late, and a stream sees them all at once.
"""


def page(bundle: Bundle, results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [INTRODUCTION.format(bundle=bundle.id[:12])]
    for name in COMPARISONS:
        if name in results:
            lines += [*_comparison(name, results[name]), ""]
    if "roads" in results:
        lines += ["## One log that a real Zeek wrote live, by every road", ""]
        lines += ["| road | alerts | by class |", "|---|---|---|"]
        for road, alerts in results["roads"].items():
            counts = Counter(label for _, label in alerts)
            text = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
            lines.append(f"| {road} | {len(alerts)} | {text} |")
        same = len({json.dumps(alerts) for alerts in results["roads"].values()}) == 1
        verdict = "equal" if same else "NOT equal"
        lines += [
            "",
            f"The roads' alerts are {verdict}. All run in one process; the stream's are the"
            " consumers' own code with lists in place of a broker's topics.",
        ]
    return "\n".join(lines) + "\n"


def _comparison(name: str, result: dict[str, Any]) -> Iterator[str]:
    groups = result["groups"]
    yield f"## {TITLES[name]}"
    yield ""
    yield (
        f"{result['flows']:,} flows, {result['late']:,} behind the clock live; "
        f"{groups.get('scan', 0)} alert groups scanned, {groups.get('live', 0)} live."
    )
    yield ""
    yield (
        "| class | (host, class) scanned | live | only scanned | only live | of these by order "
        "| labelled attacks | found scanned | found live |"
    )
    yield "|---" * 9 + "|"
    for row in result["table"]:
        numbers = (row["scan"], row["live"], len(row["only_scan"]), len(row["only_live"]),
                   row["due_to_order"], row["attacks"], row["attacks_scan"],
                   row["attacks_live"])  # fmt: skip
        yield f"| {row['class']} | {' | '.join(map(str, numbers))} |"
    different = result["table"][-1]
    if different["only_scan"] or different["only_live"]:
        yield ""
    for kind in ("only_scan", "only_live"):
        for network, host, label in different[kind]:
            yield f"- {kind.replace('_', ' ')}: {network} {host} {label}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of %(default)s")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write the tables there (Markdown)")
    args = parser.parse_args()
    bundle = read(find(args.bundle))
    results = measured(bundle, args.only.split(","))
    text = page(bundle, results)
    if args.out:
        args.out.write_text(text)
    print(json.dumps(results) if args.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
