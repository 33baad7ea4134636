"""Public captures of real networks with labels (`real/` of IDS_SHARED_DATA), and what alerts on
them are worth.

The rules of counting, in short. A case is (capture, host, class) with WORTH_FINDING attack flows or
more. An alert involves a case where its group can hold one of the case's attack flows, as far as
its documents say: the subject is one end of the flow, the other end is a peer, the port is one of
its ports, and the flow began while the group was open. A case is found in class by an alert that
involves it and has an accepted class. An alert that involves no attack flow is false; one that
involves attack flows, but has a class that none of their cases accepts, is of a wrong class.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, reduce
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.pipeline import BATCH
from ids_plugin.schema.alert import Document
from ids_plugin.sources.facts import FactStore
from ids_plugin.sources.inputs import read_inputs
from ids_plugin.sources.ordering import ordered

WORTH_FINDING = 5
"""attack flows"""
SLACK_S = 1.0
"""that a flow may lie outside of a label's or a group's times"""
MAX_PAUSE_S = 3_600.0
"""longer pauses between flows are no time in which something was watched"""
SEVERITIES = ("critical", "high", "medium", "low")
UNJUDGED = ("unclear", "other")
ATTACK_CAPTURE = "attack capture"
Doubles = npt.NDArray[np.float64]
Label = Mapping[str, str]
"""a row of labels.csv"""


@dataclass(frozen=True)
class Capture:
    """The logs of one capture, and what is known of it."""

    name: str
    folder: Path
    labels: tuple[Label, ...]
    benign: Label | None
    """its row of benign.csv"""

    @property
    def family(self) -> str:
        """The set that the capture is from; captures of one set are alike."""
        return self.name.split("__", 1)[0]

    @property
    def kind(self) -> str:
        """The kind of benign network, or ATTACK_CAPTURE."""
        return self.benign["kind"] if self.benign else ATTACK_CAPTURE

    @property
    def is_certain(self) -> bool:
        """Alerts that involve no attack are false here."""
        is_unclear = any(label["class"] == "unclear" for label in self.labels)
        return not is_unclear and (self.benign is None or self.benign["certain"] == "yes")

    @property
    def is_counted(self) -> bool:
        """Anything that alerts say here counts."""
        return self.is_certain or bool(self.judged_labels)

    @property
    def conn_log(self) -> Path:
        """The connections, in the order in which Zeek wrote them."""
        return next(path for path in sorted(self.folder.iterdir()) if path.name.startswith("conn."))

    @cached_property
    def flows(self) -> pl.DataFrame:
        """A Flow frame in file order."""
        return read_flows(self.conn_log)

    @cached_property
    def flows_with_facts(self) -> pl.DataFrame:
        """A Flow frame in known order, with what the other logs say of the flows."""
        reads = read_inputs([str(self.folder)], batch_rows=50_000, stdin=BytesIO())
        return pl.concat(list(ordered(reads, batch_rows=BATCH, facts=FactStore())))

    @cached_property
    def judged_labels(self) -> list[Label]:
        """Labels whose attacks are known."""
        return [label for label in self.labels if label["class"] != "unclear"]


def read_flows(path: Path) -> pl.DataFrame:
    """The Flow frame of a file or folder, in file order."""
    reads = read_inputs([str(path)], batch_rows=50_000, stdin=BytesIO())
    return pl.concat([step.flows for step in reads])


def captures(folder: Path) -> list[Capture]:
    """All captures that are labelled or benign, by name."""
    labels: dict[str, list[Label]] = {}
    for row in _rows(folder / "labels.csv"):
        labels.setdefault(row["capture"], []).append(row)
    benign = {row["capture"]: row for row in _rows(folder / "benign.csv")}
    return [
        Capture(path.name, path, tuple(labels.get(path.name, ())), benign.get(path.name))
        for path in sorted((folder / "captures").iterdir())
        if path.name in labels or path.name in benign
    ]


def _rows(path: Path) -> list[Label]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


@dataclass(frozen=True)
class Case:
    """What became of one case."""

    capture: str
    host: str
    label: str
    flows: int
    found: bool
    """in an accepted class"""
    classes: tuple[str, ...]
    """of the alerts that involve it"""
    delay_s: float | None
    """from the first attack flow to the first alert of an accepted class"""


@dataclass(frozen=True)
class FalseAlert:
    """An alert that involves no attack flow, in a capture in which that is certain."""

    capture: str
    kind: str
    """of network; ATTACK_CAPTURE for those that aren't benign as a whole"""
    subject: str
    label: str
    severity: str
    flows: int


@dataclass
class Verdict:
    """What the alerts of a capture, or of many, are worth."""

    cases: list[Case] = field(default_factory=list)
    false: list[FalseAlert] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    """class → alerts that involve attacks, but of other classes"""
    hours: dict[str, float] = field(default_factory=dict)
    """kind of network → hours watched, where false alerts are counted"""
    alerts: int = 0

    def add(self, other: Verdict) -> None:
        """Takes another capture in."""
        self.cases += other.cases
        self.false += other.false
        self.wrong += other.wrong
        for kind, hours in other.hours.items():
            self.hours[kind] = self.hours.get(kind, 0.0) + hours
        self.alerts += other.alerts

    @property
    def benign_days(self) -> float:
        """Days of benign traffic."""
        return sum(hours for kind, hours in self.hours.items() if kind != ATTACK_CAPTURE) / 24

    @property
    def false_in_benign(self) -> list[FalseAlert]:
        """False alerts in captures without an attack."""
        return [alert for alert in self.false if alert.kind != ATTACK_CAPTURE]

    def of_class(self, label: str | None = None) -> list[Case]:
        """The cases of a class; all for None."""
        return [case for case in self.cases if label in (None, case.label)]


def found(cases: Sequence[Case]) -> int:
    """Cases found in class."""
    return sum(case.found for case in cases)


def median_delay_s(cases: Sequence[Case]) -> float | None:
    """Of the cases found."""
    delays = [case.delay_s for case in cases if case.delay_s is not None]
    return median(delays) if delays else None


class _Attacks:
    """The attack flows of a capture, label by label."""

    def __init__(self, capture: Capture) -> None:
        seconds = pl.col("ts").dt.epoch("us") / 1e6
        flows = capture.flows.select("orig_h", "resp_h", port=pl.col("resp_p").fill_null(0),
                                     second=seconds)  # fmt: skip
        self.labels = capture.judged_labels
        self.flows = [flows.filter(is_labelled(label)) for label in self.labels]

    def involved(self, group: _Group) -> set[int]:
        """Numbers of the labels of which the group can hold a flow."""
        return {
            number
            for number, flows in enumerate(self.flows)
            if flows.filter(group.can_hold(is_any_peer=_is_any(self.labels[number]["peer"]))).height
        }

    def of_labels(self, numbers: Sequence[int]) -> pl.DataFrame:
        """Their attack flows, each (second, ends, port) once."""
        return pl.concat([self.flows[number] for number in numbers]).unique()


def _is_any(text: str) -> bool:
    return text in ("", "*")


def is_labelled(label: Label) -> pl.Expr:
    """Whether a flow is one of the label's: its host, peer, ports and times."""
    me, other = ("orig_h", "resp_h") if label["role"] == "actor" else ("resp_h", "orig_h")
    first, last = float(label["first"] or 0), float(label["last"] or 9e18)
    tests = [
        pl.col(me) == label["host"],
        pl.col("second").is_between(first - SLACK_S, last + SLACK_S),
    ]
    if not _is_any(label["peer"]):
        tests.append(pl.col(other) == label["peer"])
    elif label["class"] == "inbound_noise":
        is_global = pl.col(other).map_elements(_is_global, return_dtype=pl.Boolean)
        tests.append(is_global)
    if not _is_any(label["port"]):
        ranges = [part.partition("-") for part in label["port"].split("|")]
        within = [pl.col("port").is_between(int(low), int(high or low)) for low, _, high in ranges]
        tests.append(pl.any_horizontal(within))
    return reduce(lambda left, right: left & right, tests)


def _is_global(address: str) -> bool:
    return ip_address(address).is_global


def labelled(capture: Capture) -> pl.DataFrame:
    """The flows of a capture with `label`; without those of which it isn't known."""
    unknown = pl.lit("benign" if capture.is_certain else None, dtype=pl.String)
    seconds = (pl.col("ts").dt.epoch("us") / 1e6).alias("second")
    port = pl.col("resp_p").fill_null(0).alias("port")
    flows = capture.flows.with_columns(seconds, port)
    named = [
        pl.when(is_labelled(label)).then(pl.lit(label["class"])) for label in capture.judged_labels
    ]
    return (
        flows.with_columns(pl.coalesce(*named, unknown).alias("label"))
        .filter(pl.col("label").is_not_null())
        .drop("second", "port")
    )


class _Group:
    """An alert group as its opening and closing documents tell it."""

    def __init__(self, opening: Document, closing: Document) -> None:
        fold = closing["ids_plugin"]["fold"]
        self.label: str = opening["ids_plugin"]["label"]
        self.severity: str = opening["ids_plugin"]["severity"]
        self.alerted_s = _epoch(opening["@timestamp"])
        self.subject: str = fold["subject"]
        self.flows: int = fold["count"]
        self.first_s, self.last_s = _epoch(fold["first"]), _epoch(fold["last"])
        peers = [peer["ip"] for peer in fold.get("top_peers", ())]
        ends = (opening.get(name, {}).get("ip") for name in ("source", "destination"))
        self.peers = sorted({*peers, *(end for end in ends if end)} - {self.subject})
        self.has_more_peers = fold.get("peers", 0) > len(peers)
        self.ports = [port["port"] for port in fold.get("top_ports", ())]
        self.has_more_ports = not self.ports or fold.get("ports", 0) > len(self.ports)

    def can_hold(self, *, is_any_peer: bool) -> pl.Expr:
        """Whether the group may hold a flow: one with any peer, where the group has more peers than
        it names and the label names none."""
        from_subject, to_subject = (pl.col(end) == self.subject for end in ("orig_h", "resp_h"))
        test = pl.col("second").is_between(self.first_s - SLACK_S, self.last_s + SLACK_S)
        if self.has_more_peers and is_any_peer:
            test &= from_subject | to_subject
        else:
            to_peer, from_peer = (pl.col(end).is_in(self.peers) for end in ("resp_h", "orig_h"))
            test &= (from_subject & to_peer) | (to_subject & from_peer)
        if not self.has_more_ports:
            test &= pl.col("port").is_in([*self.ports, 0])
        return test


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _groups(documents: Sequence[Document]) -> Iterator[_Group]:
    opening: dict[str, Document] = {}
    closing: dict[str, Document] = {}
    for document in documents:
        of_kind = opening if document["event"]["kind"] == "alert" else closing
        of_kind[document["ids_plugin"]["fold"]["id"]] = document
    for number, document in opening.items():
        yield _Group(document, closing.get(number, document))


def judge(capture: Capture, documents: Sequence[Document]) -> Verdict:
    """What the alert documents of a capture are worth."""
    attacks = _Attacks(capture)
    groups = [(group, attacks.involved(group)) for group in _groups(documents)]
    verdict = Verdict(cases=list(_cases(capture, attacks, groups)), alerts=len(groups))
    for group, numbers in groups:
        if not numbers and capture.is_certain:
            verdict.false.append(
                FalseAlert(
                    capture.name,
                    capture.kind,
                    group.subject,
                    group.label,
                    group.severity,
                    group.flows,
                )
            )
        elif numbers and not any(_accepts(attacks.labels[n], group.label) for n in numbers):
            verdict.wrong[group.label] += 1
    if capture.is_certain:
        verdict.hours[capture.kind] = watched_hours(capture.flows)
    return verdict


def _cases(
    capture: Capture, attacks: _Attacks, groups: Sequence[tuple[_Group, set[int]]]
) -> Iterator[Case]:
    numbers_of: dict[tuple[str, str], list[int]] = {}
    for number, label in enumerate(attacks.labels):
        numbers_of.setdefault((label["host"], label["class"]), []).append(number)
    for (host, kind), numbers in numbers_of.items():
        flows = attacks.of_labels(numbers)
        stated = sum(int(attacks.labels[number]["attack_flows"] or 0) for number in numbers)
        if kind in UNJUDGED or not flows.height or max(flows.height, stated) < WORTH_FINDING:
            continue
        first_s = float(flows["second"].min() or 0.0)  # type: ignore[arg-type]
        accepted = {name for number in numbers for name in _accepted(attacks.labels[number])}
        involving = [group for group, involved in groups if involved & set(numbers)]
        delays = [group.alerted_s - first_s for group in involving if group.label in accepted]
        yield Case(
            capture=capture.name, host=host, label=kind, flows=flows.height, found=bool(delays),
            classes=tuple(sorted({group.label for group in involving})),
            delay_s=min(delays, default=None),
        )  # fmt: skip


def _accepted(label: Label) -> set[str]:
    return {label["class"], *re.findall(r"[^|]+", label["accept"])}


def _accepts(label: Label, kind: str) -> bool:
    return label["class"] == "other" or kind in _accepted(label)


def watched_hours(flows: pl.DataFrame) -> float:
    """Hours from the first flow to the last, without pauses of more than an hour."""
    seconds: Doubles = np.sort(flows["ts"].dt.epoch("us").to_numpy() / 1e6)
    pauses = np.diff(seconds)
    return float(pauses[pauses <= MAX_PAUSE_S].sum()) / 3_600


def any_class(cases: Sequence[Case]) -> int:
    """Cases with an alert of whatever class."""
    return sum(bool(case.classes) for case in cases)


def summary(verdict: Verdict) -> dict[str, Any]:
    """Figures by class and kind of network, JSON-able."""
    names = sorted({case.label for case in verdict.cases})
    by_class = {
        name or "all": {
            "cases": len(cases),
            "in_class": found(cases),
            "any_class": any_class(cases),
            "missed": len(cases) - any_class(cases),
            "median_delay_s": median_delay_s(cases),
        }
        for name in (*names, None)
        if (cases := verdict.of_class(name))
    }
    benign = verdict.false_in_benign
    kinds = sorted(kind for kind in verdict.hours if kind != ATTACK_CAPTURE)
    return {
        "classes": by_class,
        "benign_days": round(verdict.benign_days, 3),
        "false_benign": _by_severity(benign),
        "by_kind": {
            kind: {"hours": round(verdict.hours[kind], 2)}
            | _by_severity([alert for alert in benign if alert.kind == kind])
            for kind in kinds
        },
        "attack_days": round(verdict.hours[ATTACK_CAPTURE] / 24, 3),
        "false_attack": _by_severity([a for a in verdict.false if a.kind == ATTACK_CAPTURE]),
        "wrong_class": dict(sorted(verdict.wrong.items())),
    }


def _by_severity(alerts: Sequence[FalseAlert]) -> dict[str, int]:
    counts = Counter(alert.severity for alert in alerts)
    return {"total": len(alerts)} | {name: counts[name] for name in SEVERITIES}
