"""Bench `detection`: what a bundle finds and misses where it was not trained. Writes docs/results-BUNDLE.md.

    python -m tests.bench.detection [--bundle anomaly_net] [--json] [--out docs/results-anomaly-net.md]

The lab's sample and judging runs ship with the project. IoT-23, the 72 hours of an exposed host and the captures are
public research data that doesn't: IDS_SHARED_DATA names the folder that holds it; what is absent is left out and named.
Thresholds are the bundle's own, frozen when it was made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ids_plugin import cli
from ids_plugin.bundle import Bundle, find, read
from ids_plugin.datasets.labelled_flows import Labelled, load
from ids_plugin.schema.score import CLASSES
from ids_plugin.training.evaluate import Options, evaluate
from ids_plugin.training.examples import as_seen_by
from tests.lab import metering

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("IDS_SHARED_DATA", ROOT.parent / "shared" / "data"))
IOT23 = (
    "8-1-hakai",
    "20-1-torii",
    "34-1-mirai",
    "44-1-mirai",
    "honeypot-4-1-philips-hue",
    "honeypot-7-1-somfy-lock",
)
SCANNED = {
    "zeek-72h": "an internet-facing host, 72 h, Zeek logs, unlabelled",
    "pcap/philips-hue-2018-09-14.pcap": "a Philips Hue's day, capture, benign",
    "pcap/iot-23-42-1.pcap": "IoT-23 42-1 (trojan), capture",
}
ELSEWHERE = ("tcp_auc_elsewhere", "tcp_recall_at_1%_elsewhere")
FIGURES = ("f1", "auc", "tcp_auc", "tcp_recall_at_1%", "tcp_recall_at_5%", *ELSEWHERE)
POORER = {
    "zeek": "Zeek, or the built-in meter",
    "suricata": "Suricata: no payload bytes, no history",
    "elastic": "Elastic's integration: also whole milliseconds",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write the tables there (Markdown)")
    args = parser.parse_args()
    bundle = read(find(args.bundle))
    data = labelled()
    results = {name: judge(bundle, networks, 100) for name, networks in data.items()}
    seen = {name: {"zeek": result} | poorer(bundle, data[name]) for name, result in results.items()}
    scans = {name: scanned(name, args.bundle) for name in SCANNED if (SHARED / name).exists()}
    text = page(args.bundle, bundle, results, seen, scans)
    if args.out:
        args.out.write_text(text)
    print(
        json.dumps({"labelled": results, "sources": seen, "scanned": scans}) if args.json else text
    )
    return 0


def labelled() -> dict[str, list[Labelled]]:
    """Labelled networks, as far as the data are there."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.parquet"
        metering.read(ROOT / "tests/lab/sample").write_parquet(sample)
        found = {"lab": [*load(f"lab:{sample}"), *load(f"lab:{ROOT / 'tests/lab/flows/judge'}")]}
    files = [SHARED / "iot-23" / f"{name}.conn.log.labeled" for name in IOT23]
    if all(file.exists() for file in files):
        found["iot23"] = [network for file in files for network in load(f"iot23:{file}")]
    return found


def judge(bundle: Bundle, networks: Sequence[Labelled], explained: int) -> dict[str, Any]:
    """The bundle on these networks; `explained` flows take the deletion test, at most."""
    return evaluate(
        bundle,
        networks,
        Options(explained=explained),
        lambda message: print(message, file=sys.stderr),
    )


def poorer(bundle: Bundle, networks: Sequence[Labelled]) -> dict[str, dict[str, Any]]:
    """The same networks as the other kinds of source give them."""
    kinds = [kind for kind in POORER if kind != "zeek"]
    return {
        kind: judge(
            bundle, [replace(one, flows=as_seen_by(kind, one.flows)) for one in networks], 0
        )
        for kind in kinds
    }


def scanned(name: str, bundle: str) -> dict[str, Any]:
    """Alerts of a scan without labels, by class."""
    with tempfile.TemporaryDirectory() as folder:
        cli.main(["scan", str(SHARED / name), "--bundle", bundle, "--out", folder, "--quiet"])
        documents = [
            json.loads(line) for line in (Path(folder) / "alerts.ndjson").read_text().splitlines()
        ]
        ledger = json.loads((Path(folder) / "ledger.json").read_text())
    opened = [one for one in documents if one["event"]["kind"] == "alert"]
    kinds = Counter(
        (one["ids_plugin"]["label"], one["ids_plugin"]["fold"]["role"]) for one in opened
    )
    return {
        "flows": ledger["total"]["scored"],
        "alerts": {f"{kind} ({role})": n for (kind, role), n in kinds.items()},
    }


TITLES = {
    "lab": "The lab: the sample (an unseen run of known tools), and runs with tools and parameters never trained on",
    "iot23": "IoT-23 (public)",
}
LEARNT_FROM_PUBLIC = (
    "The bundle learnt from IoT-23 and from the logs without labels below: these figures say what it",
    "was made for, not what it is worth elsewhere. It did not learn from the lab.",
)
UNSEEN_PUBLIC = (
    "Nothing of the public sets was used in training, choice or calibration of the bundle.",
)
"""said of bundles whose members score windows"""


def page(
    name: str, bundle: Bundle, results: dict[str, Any], seen: dict[str, Any], scans: dict[str, Any]
) -> str:
    """All tables as Markdown."""
    lines = [
        f"# What the bundle `{name}` finds and misses",
        "",
        "This page has all figures of one bundle, network by network, for those who want to know what",
        "it misses and where.",
        "",
        f"Made by `python -m tests.bench.detection --bundle {name} --out docs/results-{name.replace('_', '-')}.md`",
        f"with bundle `{bundle.id[:12]}`,",
        "thresholds as they are in it, seed 1. A (host, class) counts from five attack flows on; the delay runs from",
        "its first attack flow. `lookup` is a table on (proto, conn_state, history) taught on the other networks of",
        "the set. Figures `_elsewhere` hold a network's TCP attacks against the TCP flows of the networks in which",
        "nothing is an attack, mean over the networks: what an infected one mislabels as benign (106 of the 111 such",
        "flows of IoT-23 34-1, it seems) doesn't judge it.",
    ]
    lines += ["", *(LEARNT_FROM_PUBLIC if bundle.manifest.detectors else UNSEEN_PUBLIC)]
    for data, result in results.items():
        lines += [
            "",
            f"## {TITLES[data]}",
            "",
            *wanted(result),
            "",
            *alerts(result),
            "",
            *models(result),
        ]
        lines += ["", *alone(result)]
        deletion = result["deletion"]
        lines += [
            "",
            f"Deletion test: {deletion['passed']} of {deletion['tested']} explanations pass.",
        ]
        lines += ["", *sources(seen[data])]
    lines += ["", "## Scans without labels", "", "| data | flows | alerts |", "|---|---|---|"]
    for data, scan in scans.items():
        told = (
            ", ".join(f"{count} {kind}" for kind, count in sorted(scan["alerts"].items())) or "none"
        )
        lines.append(f"| {data}: {SCANNED[data]} | {scan['flows']:,} | {told} |")
    absent = [data for data in SCANNED if data not in scans] + (
        [] if "iot23" in results else ["iot-23"]
    )
    lines += ["", f"Not measured, data absent: {', '.join(absent)}."] if absent else []
    return "\n".join(lines) + "\n"


def wanted(result: dict[str, Any]) -> list[str]:
    """Found or not, by network and class; hosts of a class together."""
    total = result["total"]
    delay = (
        "" if total["median_delay_s"] is None else f", median delay {total['median_delay_s']:.0f} s"
    )
    lines = [
        f"Found {total['found']} of {total['wanted']} (host, class){delay}; in any class "
        f"{total['found_in_any_class']}.",
        "",
        "| network | class | hosts | attack flows | found in class | in any | delay |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in result["networks"]:
        for kind in CLASSES:
            hosts = [one for one in network["wanted"] if one["class"] == kind]
            if not hosts:
                continue
            delays = sorted(one["delay_s"] for one in hosts if one["delay_s"] is not None)
            late = f"{delays[len(delays) // 2]:.0f} s" if delays else "–"
            counts = (
                len(hosts),
                sum(one["flows"] for one in hosts),
                sum(one["found"] for one in hosts),
            )
            either = sum(one["found_in_any_class"] for one in hosts)
            lines.append(
                f"| {network['name']} | {kind} | {counts[0]} | {counts[1]:,} | {counts[2]} | {either} | {late} |"
            )
    return lines


def alerts(result: dict[str, Any]) -> list[str]:
    """Alerts and false ones by network."""
    lines = ["| network | flows | hours | alerts | false alerts |", "|---|---|---|---|---|"]
    for one in result["networks"]:
        false = ", ".join(f"{host} {kind} ({flows} flows)" for host, kind, flows in one["false"])
        told = f"{one['false_alerts']}" + (f": {false}" if false else "")
        lines.append(
            f"| {one['name']} | {one['flows']:,} | {one['hours']} | {one['alerts']} | {told} |"
        )
    return lines


def sources(seen: dict[str, dict[str, Any]]) -> list[str]:
    """The bundle by kind of source."""
    lines = [
        "The same flows as each kind of source gives them:",
        "",
        f"| source | found in class | in any | false alerts | auc | tcp_auc | {' | '.join(ELSEWHERE)} |",
        f"|---{'|---' * (5 + len(ELSEWHERE))}|",
    ]
    for kind, result in seen.items():
        total, figures = result["total"], result["models"]["bundle"]
        rates = " | ".join(_figure(figures[name]) for name in ("auc", "tcp_auc", *ELSEWHERE))
        found = f"{total['found']} of {total['wanted']} | {total['found_in_any_class']} | {total['false_alerts']}"
        lines.append(f"| {POORER[kind]} | {found} | {rates} |")
    return lines


def models(result: dict[str, Any]) -> list[str]:
    """Flow-level figures, model by model."""
    lines = [f"| model | {' | '.join(FIGURES)} |", f"|---{'|---' * len(FIGURES)}|"]
    for name, figures in result["models"].items():
        lines.append(f"| {name} | {' | '.join(_figure(figures[one]) for one in FIGURES)} |")
    return lines


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def alone(result: dict[str, Any]) -> list[str]:
    """What each member would find without the others."""
    members = sorted({name for row in result["alone"].values() for name in row})
    lines = [
        "Each member alone: share of the hosts, and of the flows, that it calls the right class.",
        "",
        f"| class | {' | '.join(members)} |",
        f"|---{'|---' * len(members)}|",
    ]
    for label, row in result["alone"].items():
        cells = (f"{row[name]['hosts']:.0%}, {row[name]['flows']:.0%}" for name in members)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
