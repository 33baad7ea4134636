"""Bench `detection`: what the default bundle finds and misses. Writes docs/results-default.md.

    python -m tests.bench.detection [--bundle default] [--json] [--out docs/results-default.md]
                                    [--store FILE] [--skip sweep,floors]

The lab's sample and judging runs ship with the project. The public captures of real networks,
IoT-23 and the 72 hours of an exposed host don't: IDS_SHARED_DATA names the folder that holds them;
what is absent is left out and named. Thresholds are the bundle's own, frozen when it was made.
`--store` keeps what was measured for each judge and bundle, so a second run measures only what is
new.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ids_plugin import cli
from ids_plugin.bundle import Bundle, find, read
from ids_plugin.datasets.labelled_flows import Labelled, load
from ids_plugin.schema.score import CLASSES
from ids_plugin.training.evaluate import Options, evaluate
from ids_plugin.training.examples import as_seen_by
from tests.bench.support import overlay, real_tables
from tests.bench.support.overlay import Overlay
from tests.bench.support.real_captures import Verdict, captures, summary
from tests.bench.support.real_rows import FACTORS, Store, measured, rows, sweep_name
from tests.bench.support.real_tables import Judged
from tests.lab import metering
from tests.support.shared_data import ROOT as SHARED

ROOT = Path(__file__).parents[2]
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
LOOKS = (
    ("until November 2026", "the lab's judging runs and sample, IoT-23, zeek-72h, the captures",
     "anomaly_net: twice, as [bundle.md](bundle.md) says; figures only"),
    ("December 2026", "the lab's judging runs and sample",
     "the counters: seen while their rules were written, so the lab is no unseen data for them;"
     " their thresholds are from the public captures"),
    ("December 2026", "the lab's judging runs and sample",
     "`evaluate` of the detectors, this page and results-live.md: figures only; nothing was chosen"
     " by this page's runs"),
)  # fmt: skip
"""When, which data that are kept for judging, and what for."""
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
    parser.add_argument("--store", type=Path, help="verdicts on the public captures, kept there")
    parser.add_argument(
        "--skip", default="", help="parts to leave out, of sweep,floors,scans,overlays"
    )
    args = parser.parse_args()
    bundle = read(find(args.bundle))
    skipped = args.skip.split(",")
    real = judged_captures(bundle, Store(args.store), skipped)
    data = labelled()
    results = {name: judge(bundle, networks, 100) for name, networks in data.items()}
    seen = {name: {"zeek": result} | poorer(bundle, data[name]) for name, result in results.items()}
    scans = {
        name: scanned(name, args.bundle)
        for name in SCANNED
        if (SHARED / name).exists() and "scans" not in skipped
    }
    parts = Parts(real, overlaid(bundle, skipped), results, seen, scans)
    text = page(args.bundle, bundle, parts)
    if args.out:
        args.out.write_text(text)
    document = {
        "real": {name: summary(judged.verdict) for name, judged in real.items()},
        "labelled": results,
        "sources": seen,
        "scanned": scans,
    }
    print(json.dumps(document) if args.json else text)
    return 0


def progress(message: str) -> None:
    """To standard error."""
    print(message, file=sys.stderr)


def overlaid(bundle: Bundle, skipped: Sequence[str]) -> dict[str, list[Overlay]]:
    """Cases of remote control laid over an office, without and with the other logs."""
    folder = SHARED / "real"
    if not folder.exists() or "overlays" in skipped:
        return {}
    titles = {"conn.log alone": False, "with the other logs": True}
    everything = captures(folder)
    return {
        title: list(overlay.overlays(bundle, everything, has_logs=has_logs))
        for title, has_logs in titles.items()
    }


def judged_captures(bundle: Bundle, store: Store, skipped: Sequence[str]) -> dict[str, Judged]:
    """Judge → title and verdict on the public captures; empty where they are absent."""
    folder = SHARED / "real"
    if not folder.exists():
        return {}
    everything = captures(folder)
    floors = ("anomaly_net", "beacons", "lookup", "tcp")
    left_out = [name for factor in FACTORS if "sweep" in skipped for name in (sweep_name(factor),)]
    left_out += floors if "floors" in skipped else ()
    results: dict[str, Judged] = {}
    for row in rows(bundle, everything):
        if row.name in left_out:
            continue
        verdict = store.get(row.key)
        if verdict is None:
            verdict = measured(row, everything, bundle, progress)
            store.put(row.key, verdict)
        results[row.name] = Judged(row.title, verdict)
    return results


def labelled() -> dict[str, list[Labelled]]:
    """Labelled networks, as far as the data are there."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.parquet"
        metering.read(ROOT / "tests/lab/sample").write_parquet(sample)
        data = {"lab": [*load(f"lab:{sample}"), *load(f"lab:{ROOT / 'tests/lab/flows/judge'}")]}
    files = [SHARED / "iot-23" / f"{name}.conn.log.labeled" for name in IOT23]
    if all(file.exists() for file in files):
        data["iot23"] = [network for file in files for network in load(f"iot23:{file}")]
    return data


def judge(bundle: Bundle, networks: Sequence[Labelled], explained: int) -> dict[str, Any]:
    """The bundle on these networks; `explained` flows take the deletion test, at most."""
    return evaluate(bundle, networks, Options(explained=explained), progress)


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
    "lab": "The lab: the sample, and judging runs with other tools and parameters",
    "iot23": "IoT-23 (public)",
}
INTRODUCTION = """# What the bundle `{name}` finds and misses

This page has all figures of one bundle, network by network, for those who want to know what
it misses and where.

Made by `python -m tests.bench.detection --bundle {name} --out docs/{file}`
with bundle `{bundle}`, thresholds as they are in it. A case is a (host, class), or a (capture,
host, class), with five attack flows or more; the delay runs from its first attack flow.
"""
CONTROL_PAGE = "results-control.md"
LEARNT_FROM_PUBLIC = """
**What was training data.** The control detector learnt from the public captures of real networks,
IoT-23, the exposed host and the Hue day; the counters' thresholds were chosen on the public
captures. Figures on these say what the bundle was made for, not what it is worth elsewhere. What
remains with whole sources left out of training is measured for remote control{control}; for the
counters, the table of thresholds below shows how much hangs on them. No threshold or weight was
learnt from the lab, but whoever wrote the counters' rules had seen its runs. See also
[results-live.md](results-live.md): what a live stream finds of it.
"""
UNSEEN_PUBLIC = """
Nothing of the public sets was used in training, choice or calibration of the bundle.
"""
"""said of bundles whose members score windows"""


class Parts(NamedTuple):
    """What was measured."""

    real: dict[str, Judged]
    """judge → what it is worth on public captures"""
    overlays: dict[str, list[Overlay]]
    """which logs → cases of remote control laid over an office"""
    labelled: dict[str, Any]
    """data → what `evaluate` gives"""
    seen: dict[str, Any]
    """data → kind of source → the same"""
    scans: dict[str, Any]
    """data without labels → alerts"""


def page(name: str, bundle: Bundle, parts: Parts) -> str:
    """All tables as Markdown."""
    scans = parts.scans
    file = f"results-{name.replace('_', '-')}.md"
    lines = [INTRODUCTION.format(name=name, file=file, bundle=bundle.id[:12])]
    has_page = (ROOT / "docs" / CONTROL_PAGE).exists()
    control = f" in [{CONTROL_PAGE}]({CONTROL_PAGE})" if has_page else " by itself"
    learnt = LEARNT_FROM_PUBLIC.format(control=control)
    lines += [learnt if bundle.manifest.detectors else UNSEEN_PUBLIC]
    lines += real_sections(parts.real) if parts.real else []
    for logs, results in parts.overlays.items():
        lines += _titled(f"Remote control laid over an office's busiest host, {logs}",
                         overlay.table(results))  # fmt: skip
    lines += [OVERLAY_WORDS] if parts.overlays else []
    for data, result in parts.labelled.items():
        lines += labelled_section(TITLES[data], result, parts.seen[data])
    if scans:
        lines += ["", "## Scans without labels", "", "| data | flows | alerts |", "|---|---|---|"]
    for data, scan in scans.items():
        alerts = sorted(scan["alerts"].items())
        text = ", ".join(f"{count} {kind}" for kind, count in alerts) or "none"
        lines.append(f"| {data}: {SCANNED[data]} | {scan['flows']:,} | {text} |")
    lines += ["", "## Every look at data kept for judging", "", "| when | data | what for |"]
    lines += ["|---|---|---|", *(f"| {' | '.join(look)} |" for look in LOOKS)]
    absent = [data for data in SCANNED if data not in scans]
    absent += [] if "iot23" in parts.labelled else ["iot-23"]
    absent += [] if parts.real else ["real"]
    lines += ["", f"Not measured: {', '.join(absent)}."] if absent else []
    return "\n".join(lines) + "\n"


OVERLAY_WORDS = """
Most captures of infected hosts are small: a sandbox for some minutes. Here the flows of each case
alone were moved to the busiest host of the office, into its busiest hour: what a model takes from
the size of a capture would be lost there. The look-ups and other traffic of the infected host
didn't come with them."""


def real_sections(real: dict[str, Judged]) -> Iterator[str]:
    """The public captures of real networks."""
    verdict = real["bundle"].verdict
    yield "## Public captures of real networks"
    yield ""
    yield (
        f"{len(verdict.cases)} cases, {verdict.benign_days:.2f} days of benign traffic. An alert "
        "counts for a case if its group can hold one of the case's attack flows. False are alerts "
        "that hold none, in captures of which all attacks are known. The floors: the plain lookup "
        "knows three columns; TCP as remote control finds every case over TCP in some class, and "
        "says it of everything."
    )
    yield ""
    names = [name for name in real if not name.startswith("counters x")]
    yield from real_tables.side_by_side([real[name] for name in names])
    yield from _titled("By class", real_tables.by_class(verdict, _easy(real)))
    yield (
        "\nSources found in: captures of one source are alike (five cases of brute force are one "
        "tool). Without the lookup's finds: cases that the plain lookup does not find in class."
    )
    logs = real["bundle with logs"].verdict
    yield from _titled("By class, with the other logs", real_tables.by_class(logs, _easy(real)))
    yield from _titled("False alerts", real_tables.false_alerts(verdict))
    yield from _titled("False alerts, with the other logs", real_tables.false_alerts(logs))
    yield from _titled("Missed, or called something else", real_tables.missed(verdict))
    factors = {factor: sweep_name(factor) for factor in (1.0, *FACTORS)}
    sweeps = {factor: real[name].verdict for factor, name in factors.items() if name in real}
    if sweeps:
        yield from _titled("The counters' thresholds", real_tables.sweep(sweeps))


def _easy(real: dict[str, Judged]) -> Verdict:
    return real["lookup"].verdict if "lookup" in real else Verdict()


def _titled(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield from ("", f"### {title}", "")
    yield from lines


def labelled_section(title: str, result: dict[str, Any], seen: dict[str, Any]) -> Iterator[str]:
    """The tables of a labelled data set."""
    yield from ("", f"## {title}", "")
    tables: tuple[Callable[[dict[str, Any]], list[str]], ...] = (wanted, alerts, models)
    for table in tables:
        yield from (*table(result), "")
    yield (
        "`lookup` is a table on (proto, conn_state, history) taught on the other networks of the "
        "set. Figures `_elsewhere` hold a network's TCP attacks against the TCP flows of the "
        "networks in which nothing is an attack, mean over the networks."
    )
    yield ""
    if result["alone"]:
        deletion = result["deletion"]
        yield from (*alone(result), "")
        yield f"Deletion test: {deletion['passed']} of {deletion['tested']} explanations pass."
        yield ""
    yield from sources(seen)


def wanted(result: dict[str, Any]) -> list[str]:
    """Found or not, by network and class; hosts of a class together."""
    total = result["total"]
    delay = (
        "" if total["median_delay_s"] is None else f", median delay {total['median_delay_s']:.0f} s"
    )
    attacks = [host for network in result["networks"] for host in network["wanted"]
               if host["class"] != real_tables.NOISE]  # fmt: skip
    lines = [
        f"Found {total['found']} of {total['wanted']} (host, class){delay}; in any class "
        f"{total['found_in_any_class']}. Without inbound noise: "
        f"{sum(host['found'] for host in attacks)} of {len(attacks)}.",
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
            cells = (network["name"], kind, counts[0], f"{counts[1]:,}", counts[2], either, late)
            lines.append(f"| {' | '.join(map(str, cells))} |")
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
        "| source | found in class | in any | false alerts | auc | tcp_auc | "
        f"{' | '.join(ELSEWHERE)} |",
        f"|---{'|---' * (5 + len(ELSEWHERE))}|",
    ]
    for kind, result in seen.items():
        total, figures = result["total"], result["models"]["bundle"]
        rates = " | ".join(_figure(figures[name]) for name in ("auc", "tcp_auc", *ELSEWHERE))
        counts = (f"{total['found']} of {total['wanted']}", total["found_in_any_class"],
                  total["false_alerts"])  # fmt: skip
        lines.append(f"| {POORER[kind]} | {' | '.join(map(str, counts))} | {rates} |")
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
