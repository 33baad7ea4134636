"""Captures → profiles of their contacts with labels, and how alerts on them are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin import features
from ids_plugin.datasets.real_captures import ATTACK_KIND, FOLDS, Capture
from ids_plugin.detectors.contact_profile.facts import with_fact_columns
from ids_plugin.detectors.contact_profile.model import FACT_COLUMN_START, NAMES
from ids_plugin.detectors.contact_profile.profiles import ProfileMemory, Profiles
from ids_plugin.windows.state import Windower

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint64]
Objects = npt.NDArray[np.object_]

CONTROL, BENIGN, UNCERTAIN, UNUSED = 1, 0, 2, -1
"""labels: remote control, normal for certain, probably normal, an attack of another kind"""
GROUP_PAUSE_US = 30 * 60_000_000
"""An alert group ends after such a pause."""
HOURS_OF_A_DAY = 24


class CaptureFacts(NamedTuple):
    """What training has to know of a capture."""

    name: str
    source: str
    fold: int
    kind: str
    is_certain: bool
    hours: float
    malware: frozenset[str]
    flows: int
    sha256: str

    @property
    def is_benign(self) -> bool:
        """Its hours count as normal traffic."""
        return self.is_certain and self.kind != ATTACK_KIND


@dataclass(frozen=True)
class ContactExamples:
    """n profiles of contacts, of many captures."""

    captures: tuple[CaptureFacts, ...]
    features: Floats
    """(n, NAMES)"""
    peer_hosts: Ints
    tokens: Keys
    """(n, WINDOW_FLOWS)"""
    flows: Ints
    """(n) of the contact so far"""
    contact: Ints
    """(n) number of the contact over all captures"""
    capture: Ints
    """(n) index into captures"""
    host: Objects
    """(n) address of the originator"""
    clock_us: Ints
    case: Objects
    """(n) host whose remote control it is, else empty"""
    is_attack: Bools
    label: Ints
    """(n) CONTROL, BENIGN, UNCERTAIN or UNUSED"""
    conn_key: Ints
    """(n) protocol, outcome and sizes of the flow itself, as one number"""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: Ints | Bools) -> ContactExamples:
        """Some of them."""
        changed = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name != "captures"
        }
        return replace(self, **changed)

    def without_facts(self) -> ContactExamples:
        """As they are where only conn.log is known."""
        blank = self.features.copy()
        blank[:, FACT_COLUMN_START:] = np.nan
        planes = np.ascontiguousarray(self.tokens).view(np.uint8).reshape(*self.tokens.shape, 8)
        conn = planes.copy()
        conn[:, :, 5:7] = 0
        conn[:, :, 7] = 255
        tokens = conn.reshape(len(conn), -1).view(np.uint64)
        return replace(self, features=blank, tokens=tokens)

    def profiles(self) -> Profiles:
        """As a model takes them."""
        rows = np.arange(len(self))
        contact = self.contact.astype(np.uint64)
        return Profiles(rows, self.features, self.peer_hosts, self.tokens, self.flows, contact)

    @cached_property
    def fold(self) -> Ints:
        """(n) number of the source's fold."""
        return np.array([capture.fold for capture in self.captures], np.int64)[self.capture]

    @cached_property
    def source(self) -> Objects:
        """(n) set of the capture."""
        return np.array([capture.source for capture in self.captures], object)[self.capture]

    @cached_property
    def kind(self) -> Objects:
        """(n) kind of the capture's traffic."""
        return np.array([capture.kind for capture in self.captures], object)[self.capture]

    @cached_property
    def is_counted(self) -> Bools:
        """(n) an alert on it in vain counts as false: normal traffic for certain, beside no
        attack."""
        benign = np.array([capture.is_benign for capture in self.captures], np.bool_)
        return np.asarray(benign[self.capture] & (self.label == BENIGN))

    def benign_days(self, folds: Sequence[int] | None = None) -> float:
        """Days of normal traffic for certain, of all folds or some."""
        hours = sum(
            capture.hours
            for capture in self.captures
            if capture.is_benign and (folds is None or capture.fold in folds)
        )
        return hours / HOURS_OF_A_DAY


def examples(captures: Iterator[Capture]) -> ContactExamples:
    """Profiles of all contacts of the captures, in their order; the same code as in serving.

    Raises:
        InputError: as datasets.real_captures.
    """
    facts: list[CaptureFacts] = []
    parts: list[ContactExamples] = []
    for number, capture in enumerate(captures):
        facts.append(
            CaptureFacts(
                capture.name,
                capture.source,
                capture.fold,
                capture.kind,
                capture.is_certain,
                capture.hours,
                capture.malware,
                len(capture.flows),
                capture.sha256,
            )
        )
        parts += _of_capture(capture, number)
    return joined(parts, tuple(facts))


def joined(parts: Sequence[ContactExamples], captures: tuple[CaptureFacts, ...]) -> ContactExamples:
    """Parts of several captures as one; contacts are numbered anew."""
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(ContactExamples)
        if field.name != "captures"
    }
    pair = np.stack([columns["capture"], columns["contact"]], axis=1)
    columns["contact"] = np.unique(pair, axis=0, return_inverse=True)[1].reshape(-1)
    return ContactExamples(captures, **columns)


def _of_capture(capture: Capture, number: int) -> Iterator[ContactExamples]:
    memory = ProfileMemory()
    for windows in Windower(rolling=False).step(features.add(capture.flows)):
        flows = windows.flows
        profiles = memory.step(with_fact_columns(flows))
        if not len(profiles.rows):
            continue
        own = flows[profiles.rows]
        case = own["control_host"].fill_null("").to_numpy().astype(object)
        is_attack = own["is_attack"].to_numpy()
        yield ContactExamples(
            captures=(),
            features=profiles.features,
            peer_hosts=profiles.peer_hosts,
            tokens=profiles.tokens,
            flows=profiles.flows,
            contact=profiles.contact.view(np.int64),
            capture=np.full(len(own), number, np.int64),
            host=own["orig_h"].to_numpy().astype(object),
            clock_us=own["clock"].dt.epoch("us").to_numpy(),
            case=case,
            is_attack=is_attack,
            label=_labels(capture, case, is_attack),
            conn_key=_conn_keys(profiles.tokens, own["proto"].to_numpy() == "tcp"),
        )


def _labels(capture: Capture, case: Objects, is_attack: Bools) -> Ints:
    if capture.is_unclear:
        other = UNUSED
    elif capture.is_certain:
        other = BENIGN
    else:
        other = UNUSED if capture.kind == "miner" else UNCERTAIN
    return np.where(case != "", CONTROL, np.where(is_attack, UNUSED, other)).astype(np.int64)


def _conn_keys(tokens: Keys, is_tcp: Bools) -> Ints:
    last = np.ascontiguousarray(tokens[:, -1]).view(np.uint8).reshape(-1, 8).astype(np.int64)
    return np.asarray(is_tcp + 2 * (last[:, 4] + 32 * ((last[:, 1] >> 4) + 16 * (last[:, 2] >> 4))))


class Judged(NamedTuple):
    """What alerts on some rows amount to."""

    cases: frozenset[tuple[int, str]]
    """(capture, host) of remote control that alert groups found"""
    false_groups: int
    """alert groups in normal traffic for certain"""


def judge(data: ContactExamples, is_over: Bools) -> Judged:
    """Alert groups (capture, host, pauses of half an hour) of the rows over a threshold."""
    rows = np.flatnonzero(is_over)
    if not len(rows):
        return Judged(frozenset(), 0)
    hosts = np.unique(data.host[rows].astype(str), return_inverse=True)[1]
    order = np.lexsort((data.clock_us[rows], hosts, data.capture[rows]))
    rows, hosts = rows[order], hosts[order]
    capture, clock = data.capture[rows], data.clock_us[rows]
    opens = np.r_[
        True,
        (capture[1:] != capture[:-1])
        | (hosts[1:] != hosts[:-1])
        | (np.diff(clock) > GROUP_PAUSE_US),
    ]
    group = np.cumsum(opens) - 1
    is_involved = np.zeros(group[-1] + 1, np.bool_)
    is_involved[group[data.is_attack[rows] | (data.case[rows] != "")]] = True
    is_false = ~is_involved[group] & data.is_counted[rows]
    named = rows[data.case[rows] != ""]
    cases = {(int(data.capture[row]), str(data.case[row])) for row in named}
    return Judged(frozenset(cases), len(np.unique(group[is_false])))


def smallest_threshold(
    data: ContactExamples, score: Doubles, rows: Bools, false_groups: float
) -> float:
    """Lowest score from which the `rows` give at most so many false alert groups."""
    choice = 1.01
    candidates = np.unique(score[rows & data.is_counted])[::-1]
    for threshold in candidates:
        if judge(data, rows & data.is_counted & (score >= threshold)).false_groups > false_groups:
            break
        choice = float(threshold)
    return choice


__all__ = [
    "BENIGN",
    "CONTROL",
    "FOLDS",
    "NAMES",
    "UNCERTAIN",
    "UNUSED",
    "ContactExamples",
    "examples",
    "joined",
    "judge",
    "smallest_threshold",
]
