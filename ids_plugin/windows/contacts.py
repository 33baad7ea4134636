"""Contact profiles: what a host's dealings with one peer, port and protocol look like over weeks.

A contact is (host, peer, responder port, transport protocol); the host is the originator. Of every
contact the last WINDOW_FLOWS flows are kept as tokens of eight bytes (log steps of about 6 %)
beside totals since it began: 252 bytes. Features of a flow depend on the flows of its sensor known
before it, and on it: they are equal wherever batches end.

The expensive part (order statistics) is done for the flows that `is_due` names: from the fifth flow
of a contact on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.windows.slots import SlotTable, mix
from ids_plugin.windows.sorting import (
    MISSING,
    count_known,
    entropy,
    largest_cluster,
    middle,
    quantile,
    sort_columns,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

WINDOW_FLOWS = 24
"""Flows of a contact that order statistics look at. Measured on real traffic: 10 finds fewer, 64
adds nothing."""
FIRST_SCORED_FLOW = 5
"""A contact is judged from this flow on: with fewer there is no repetition to speak of."""
EVERY_FLOW_UNTIL = 48
"""After so many flows a contact is judged at every `LATER_STRIDE`th flow only."""
LATER_STRIDE = 4
LOG_STEP = 0.065
"""Quantisation: one step is a factor of 1.067."""
LARGEST_BYTE = 250
GAP_UNIT_S = 0.05
DURATION_UNIT_S = 0.01
SIZE_UNIT_B = 8.0
BURST_GAP_S = 5.0
"""Flows closer than this belong to one burst."""
CLUSTER_STEPS = 2
"""Values within so many steps (13 %) count as the same."""
FORGET_AFTER_US = 30 * 86_400_000_000
"""A contact unseen for 30 days begins anew."""
CHUNK_FLOWS = 65_536
"""Limits are enforced at multiples of this count of flows, wherever batches end."""

WEB_PORTS = (80, 443, 8080, 8443)
"""Here the number of peers says how much a user browses, and how small a capture is; so it isn't a
feature."""

FIRST_HIGH_PORT = 1024

NO_REPLY, REFUSED, RESET, REPLIED, COMPLETED = 1, 2, 4, 8, 16
"""Bits of the outcome byte of a token."""

GAP, UP, DOWN, DURATION, OUTCOME, HTTP, TLS, URI = range(8)
"""Bytes of a token."""

HTTP_KNOWN, HTTP_POST, HTTP_ADDRESS, HTTP_NO_AGENT = 1, 2, 4, 8
HTTP_ERROR, HTTP_NO_REFERRER, HTTP_RARE_AGENT, HTTP_TOOL_AGENT = 16, 32, 64, 128
TLS_KNOWN, TLS_NO_NAME, TLS_CERTIFICATE, TLS_SELF_SIGNED = 1, 2, 4, 8
TLS_LONG_VALIDITY, TLS_NAME_MISMATCH, TLS_FAILED, TLS_NO_ALTERNATIVE_NAME = 16, 32, 64, 128
"""Bits of the fact bytes; see facts.py. 0 is a flow without the log."""


@dataclass(frozen=True)
class ContactFlows:
    """Flows of one sensor in known order, as arrays of equal length n."""

    host: Keys
    """hash of the originator's address"""
    peer: Keys
    """hash of the responder's address"""
    port: Ints
    """responder's port"""
    proto: Ints
    """IP protocol number"""
    start_us: Ints
    """time of the first packet, µs"""
    clock_us: Ints
    """sensor's clock when the flow was known, µs; never falls"""
    duration_us: Ints
    """0 where unknown"""
    up: npt.NDArray[np.float64]
    """payload bytes of the originator; NaN where unknown"""
    down: npt.NDArray[np.float64]
    outcome: Bytes
    """bits NO_REPLY … COMPLETED"""
    is_external: Flags
    """the peer is outside the local networks"""
    http: Bytes
    tls: Bytes
    uri: Bytes
    """fact bytes; 0, 0 and MISSING where the logs say nothing"""

    def __len__(self) -> int:
        return len(self.host)

    def part(self, low: int, high: int) -> ContactFlows:
        """The flows from `low` to `high`."""
        return ContactFlows(**{f.name: getattr(self, f.name)[low:high] for f in fields(self)})


@dataclass(frozen=True)
class ContactRows:
    """Profiles of the flows that are due."""

    row: Ints
    """(m) index of the flow in the batch"""
    contact: Keys
    """(m) key of the contact"""
    count: Ints
    """(m) flows of the contact so far, this one included"""
    features: Floats
    """(m, FEATURES); NaN where unknown"""
    peer_hosts: Ints
    """(m) hosts that have dealt with the peer on this port; a prior, not a feature: it tells small
    captures apart"""
    tokens: npt.NDArray[np.uint64]
    """(WINDOW_FLOWS, m) the tokens behind the features, latest last"""


def quantise(values: npt.NDArray[np.floating[Any]], unit: float) -> Bytes:
    """(n) ln(1 + value / unit) in steps of LOG_STEP; MISSING where NaN."""
    with np.errstate(invalid="ignore"):
        steps = np.log1p(np.maximum(values, 0) / unit) / LOG_STEP + 0.5
    steps = np.where(np.isnan(values), MISSING, np.minimum(steps, LARGEST_BYTE))
    return np.asarray(steps.astype(np.uint8))


def dequantise(steps: Floats, unit: float) -> Floats:
    """The value that a (mean of) quantised steps stands for."""
    return np.asarray(np.expm1(steps * LOG_STEP) * unit, np.float32)


_GAP_SECONDS = np.r_[
    dequantise(np.arange(MISSING, dtype=np.float32), GAP_UNIT_S), np.float32(0)
].astype(np.float32)
_DURATION_SECONDS = np.r_[
    dequantise(np.arange(MISSING, dtype=np.float32), DURATION_UNIT_S), np.float32(0)
].astype(np.float32)
_BURST_STEP = int(np.ceil(np.log1p(BURST_GAP_S / GAP_UNIT_S) / LOG_STEP))
PADDING = np.array([[MISSING, MISSING, MISSING, MISSING, 0, 0, 0, MISSING]], np.uint8).view(
    np.uint64
)[0, 0]

FEATURES: tuple[tuple[str, str, str], ...] = (
    ("flows", "log", "flows of the contact since it began"),
    ("span", "log s", "time since the contact began"),
    ("rate", "log 1/h", "flows an hour since the contact began"),
    ("connected", "0-1", "share of the span in which a connection stood"),
    ("mean_up", "log B", "mean bytes sent, since the contact began"),
    ("mean_down", "log B", "mean bytes received, since the contact began"),
    ("no_reply_ever", "0-1", "share of flows without an answer, since the contact began"),
    ("gap_median", "log s", "median gap between flows"),
    ("gap_cv", "ratio", "variation of the gaps"),
    ("gap_mad", "log", "median deviation of the gaps from their median, as a ratio"),
    ("gap_skew", "-1-1", "Bowley skewness of the gaps"),
    ("gap_entropy", "0-1", "entropy of the gaps"),
    ("gap_mode", "0-1", "share of the commonest gap (within 13 %)"),
    ("burst_share", "0-1", "share of gaps of 5 s and more"),
    ("burst_median", "log s", "median of the gaps of 5 s and more"),
    ("burst_spread", "log", "interquartile range of the gaps of 5 s and more, as a ratio"),
    ("burst_mode", "0-1", "share of the commonest among the gaps of 5 s and more"),
    ("up_median", "log B", "median of the bytes sent"),
    ("up_mad", "log", "median deviation of the bytes sent, as a ratio"),
    ("up_mode", "0-1", "share of the commonest size sent (within 13 %)"),
    ("down_median", "log B", "median of the bytes received"),
    ("down_mad", "log", "median deviation of the bytes received, as a ratio"),
    ("down_mode", "0-1", "share of the commonest size received (within 13 %)"),
    ("up_down", "log", "median of the bytes sent over that of the bytes received"),
    ("duration_median", "log s", "median duration"),
    ("duration_spread", "log", "interquartile range of the durations, as a ratio"),
    ("window_connected", "0-1", "share of the window's span in which a connection stood"),
    ("no_reply", "0-1", "share of flows without an answer"),
    ("refused", "0-1", "share of refused flows"),
    ("reset", "0-1", "share of flows ended by a reset"),
    ("replied", "0-1", "share of flows with an answer"),
    ("port_peers", "log", "peers the host contacts on this port; unknown for web ports"),
    (
        "high_ports",
        "log",
        "contacts the host has on ports above 1023 other than web ports; unknown for web ports",
    ),
    ("external", "0-1", "the peer is outside the local networks"),
)
FACTS: tuple[tuple[str, str, str], ...] = (
    ("http_post", "0-1", "share of HTTP flows that post"),
    ("http_address", "0-1", "share of HTTP flows whose Host is an address"),
    ("http_no_agent", "0-1", "share of HTTP flows without a user agent"),
    ("http_error", "0-1", "share of HTTP flows answered by an error or not at all"),
    ("http_no_referrer", "0-1", "share of HTTP flows without a referrer"),
    (
        "http_rare_agent",
        "0-1",
        "share of HTTP flows whose user agent the host uses with this peer alone",
    ),
    ("http_tool_agent", "0-1", "share of HTTP flows whose user agent isn't a browser's"),
    ("tls_no_name", "0-1", "share of TLS flows without a server name"),
    ("tls_self_signed", "0-1", "share of certificates that sign themselves"),
    ("tls_long_validity", "0-1", "share of certificates valid for more than three years"),
    ("tls_name_mismatch", "0-1", "share of certificates that don't fit the server name"),
    ("tls_no_alternative_name", "0-1", "share of certificates without alternative names"),
    ("tls_failed", "0-1", "share of TLS flows whose handshake failed"),
    ("uri_length", "log", "median length of the requested URIs"),
    ("uri_mode", "0-1", "share of the commonest length of URI"),
)
"""name, unit, meaning of each column."""
FEATURE_NAMES: tuple[str, ...] = tuple(name for name, _, _ in FEATURES + FACTS)

_HTTP_FACTS = (
    HTTP_POST,
    HTTP_ADDRESS,
    HTTP_NO_AGENT,
    HTTP_ERROR,
    HTTP_NO_REFERRER,
    HTTP_RARE_AGENT,
    HTTP_TOOL_AGENT,
)
_CERTIFICATE_FACTS = (
    TLS_SELF_SIGNED,
    TLS_LONG_VALIDITY,
    TLS_NAME_MISMATCH,
    TLS_NO_ALTERNATIVE_NAME,
)


def is_due(count: Ints) -> Flags:
    """(n) whether a contact is judged at its `count`th flow."""
    often = (count >= FIRST_SCORED_FLOW) & (count <= EVERY_FLOW_UNTIL)
    return np.asarray(often | ((count > EVERY_FLOW_UNTIL) & (count % LATER_STRIDE == 0)))


class Tallies(NamedTuple):
    """What `DistinctCounts.step` gives for n rows."""

    members: Ints
    """(n) of the row's group, up to and with the row"""
    is_new: Flags
    """(n) whether the row's member is a new one"""
    marked: Ints
    """(n) of the members, those that were marked when they were new"""


class DistinctCounts:
    """How many members each group has had so far, in the order of the rows; a member counts once.

    At multiples of CHUNK_FLOWS rows, wherever batches end, the groups used least recently leave
    with their members: when there are more groups than `limit`, or four times as many members.
    """

    def __init__(self, limit: int = 262_144) -> None:
        self.limit = limit
        self._groups, self._members = SlotTable(), SlotTable()
        self._owner: Keys = np.zeros(0, np.uint64)
        """member → key of its group"""
        self._counts, self._marked = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._used: Ints = np.zeros(0, np.int64)
        """group → number of the latest row"""
        self._seen = 0

    def step(self, group: Keys, member: Keys, is_marked: Flags | None = None) -> Tallies:
        """Counts rows with their members, where nobody else knows which members are new."""
        if is_marked is None:
            is_marked = np.zeros(len(group), np.bool_)
        parts = [
            self._step(group[low:high], member[low:high], is_marked[low:high])
            for low, high in self._parts(len(group))
        ]
        return Tallies(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def add(self, group: Keys, fresh: Flags) -> Ints:
        """(n) members of the row's group up to and with the row, where the caller knows which
        members are new."""
        parts = [
            self._add(group[low:high], fresh[low:high])[0] for low, high in self._parts(len(group))
        ]
        return np.concatenate(parts)

    def _parts(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of a batch that end where groups may leave; at least one."""
        low, high = 0, -1
        while high < rows:
            high = min(rows, low + CHUNK_FLOWS - self._seen % CHUNK_FLOWS)
            yield low, high
            self._seen += high - low
            if high > low and self._seen % CHUNK_FLOWS == 0:
                self._forget()
            low = high

    def _step(self, group: Keys, member: Keys, is_marked: Flags) -> Tallies:
        before = self._members.count
        slots = self._members.slots(mix(group, member))
        is_new = np.zeros(len(group), np.bool_)
        rows = np.flatnonzero(slots >= before)
        is_new[rows[np.unique(slots[rows], return_index=True)[1]]] = True
        self._owner = _grown(self._owner, self._members.count, 0)
        self._owner[slots] = group
        counted, order = self._add(group, is_new)
        marked = self._running(self._marked, group, is_new & is_marked, order)
        return Tallies(counted, is_new, marked)

    def _add(self, group: Keys, fresh: Flags) -> tuple[Ints, Ints]:
        """(n) the count at each row; (n) the rows by group."""
        slots = self._groups.slots(group)
        size = self._groups.count
        self._counts, self._marked = _grown(self._counts, size, 0), _grown(self._marked, size, 0)
        self._used = _grown(self._used, size, 0)
        order = np.argsort(slots, kind="stable")
        self._used[slots[order]] = self._seen + order
        return self._running(self._counts, group, fresh, order), order

    def _running(self, totals: Ints, group: Keys, fresh: Flags, order: Ints) -> Ints:
        """(n) totals of the row's group with all fresh rows so far; `totals` go on."""
        ordered = self._groups.slots(group)[order]
        running = np.cumsum(fresh[order])
        first = _starts(ordered)
        lengths = np.diff(np.r_[first, len(ordered)])
        ahead = running[first] - fresh[order[first]] if len(first) else np.zeros(0, np.int64)
        counted = totals[ordered] + running - np.repeat(ahead, lengths)
        totals[ordered[first + lengths - 1]] = counted[first + lengths - 1]
        result = np.empty(len(group), np.int64)
        result[order] = counted
        return result

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers: the same after the same rows, wherever batches ended."""
        groups, members = self._groups.keys(), self._members.keys()
        return {
            "groups": np.sort(groups),
            "counts": _sorted_by_key(groups, self._counts),
            "marked": _sorted_by_key(groups, self._marked),
            "used": _sorted_by_key(groups, self._used),
            "members": np.sort(members),
            "owner": _sorted_by_key(members, self._owner),
            "seen": self._seen,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self._groups = SlotTable.of(state["groups"])
        self._members = SlotTable.of(state["members"])
        self._counts, self._marked = state["counts"].copy(), state["marked"].copy()
        self._used, self._owner = state["used"].copy(), state["owner"].copy()
        self._seen = int(state["seen"])

    def _forget(self) -> None:
        """Three quarters of the limit stay."""
        size, members = self._groups.count, self._members.count
        if size <= self.limit and members <= 4 * self.limit:
            return
        stay = np.argsort(-self._used[:size])[: self.limit * 3 // 4]
        if members:
            stay = stay[np.cumsum(self._counts[stay]) <= 3 * self.limit]
        self._groups.keep(stay)
        self._counts, self._marked = self._counts[stay], self._marked[stay]
        self._used = self._used[stay]
        alive = np.flatnonzero(self._groups.contains(self._owner[:members]))
        self._members.keep(alive)
        self._owner = self._owner[alive]


@dataclass
class _Batch:
    """A batch in the order of contacts, then time."""

    order: Ints
    """(n) row of the batch"""
    slot: Ints
    """(n)"""
    first: Ints
    """(s) index of the first flow of each segment: flows of one contact without a pause of 30
    days"""
    segment: Ints
    """(n)"""
    continues: Flags
    """(s) the segment goes on with the state of its slot"""
    last: Flags
    """(s) the segment is the last one of its slot"""


_TOTALS = ("count", "first_us", "up", "down", "connected_us", "no_reply")


class Contacts:
    """Profiles of one sensor's contacts; keeps state between batches."""

    def __init__(self, limit: int = 262_144) -> None:
        self.limit = limit
        self.left_early = 0
        self._seen = 0
        self._table = SlotTable()
        self._ports, self._high_ports, self._peers = (
            DistinctCounts(limit),
            DistinctCounts(limit),
            DistinctCounts(limit),
        )
        self._ring: npt.NDArray[np.uint64] = np.zeros((0, WINDOW_FLOWS), np.uint64)
        self._totals = {name: np.zeros(0, np.int64) for name in _TOTALS}
        self._last_start_us: Ints = np.zeros(0, np.int64)
        self._last_clock_us: Ints = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return self._table.count

    def step(self, flows: ContactFlows) -> list[ContactRows]:
        """Profiles of a batch, chunk by chunk; `row` counts from the start of the batch."""
        parts, low = [], 0
        while low < len(flows):
            high = min(len(flows), low + CHUNK_FLOWS - self._seen % CHUNK_FLOWS)
            parts.append(self._chunk(flows.part(low, high), low))
            self._seen += high - low
            low = high
            if self._seen % CHUNK_FLOWS == 0:
                self._forget()
        return parts

    def _chunk(self, flows: ContactFlows, offset: int) -> ContactRows:
        service = flows.port * 256 + flows.proto
        group = mix(flows.host, service.astype(np.uint64))
        keys = mix(group, flows.peer)
        batch, fresh = self._sorted(keys, flows.clock_us)
        port_peers = self._ports.add(group, fresh)
        is_web = np.isin(flows.port, WEB_PORTS)
        high_ports = self._high_ports.add(
            flows.host, fresh & (flows.port >= FIRST_HIGH_PORT) & ~is_web
        )
        peer_hosts = self._peers.add(mix(flows.peer, service.astype(np.uint64)), fresh)
        totals = self._accumulate(batch, flows)
        tokens, position = self._extend(batch, flows)
        due = np.flatnonzero(is_due(totals["count"]))
        window = tokens[position[due][None, :] + np.arange(1 - WINDOW_FLOWS, 1)[:, None]]
        rows = batch.order[due]
        of_row = {name: values[due] for name, values in totals.items()}
        of_row["port_peers"] = np.where(is_web[rows], -1, port_peers[rows])
        of_row["high_ports"] = np.where(is_web[rows], -1, high_ports[rows])
        features = _features(
            window, of_row, flows.start_us[rows], flows.duration_us[rows], flows.is_external[rows]
        )
        sequence = np.argsort(rows)
        rows = rows[sequence]
        return ContactRows(
            rows + offset,
            keys[rows],
            totals["count"][due][sequence],
            features[sequence],
            peer_hosts[rows],
            window[:, sequence],
        )

    def _sorted(self, keys: Keys, clock_us: Ints) -> tuple[_Batch, Flags]:
        """The batch by contact, and (n) whether a row begins a contact."""
        known = self._table.count
        slots = self._table.slots(keys)
        self._make_room()
        order = np.argsort(slots, kind="stable")
        slot, clock = slots[order], clock_us[order]
        opens = np.r_[True, slot[1:] != slot[:-1]]
        before = np.r_[0, clock[:-1]]
        before[opens] = self._last_clock_us[slot[opens]]
        pauses = clock - before > FORGET_AFTER_US
        is_new = opens & (slot >= known)
        first = np.flatnonzero(opens | pauses)
        segment = np.cumsum(opens | pauses) - 1
        continues = ~(is_new | pauses)[first]
        last = np.r_[slot[first][1:] != slot[first][:-1], True]
        fresh = np.zeros(len(keys), np.bool_)
        fresh[order] = is_new
        return _Batch(order, slot, first, segment, continues, last), fresh

    def _accumulate(self, batch: _Batch, flows: ContactFlows) -> dict[str, Ints]:
        """name → (n) total up to and with each flow, in the order of the batch; the state is
        brought up to date."""
        order, first, segment = batch.order, batch.first, batch.segment
        ends = np.r_[first[1:], len(order)] - 1
        slot = batch.slot[first]
        added = {
            "count": np.ones(len(order), np.int64),
            "up": np.nan_to_num(flows.up[order]).astype(np.int64),
            "down": np.nan_to_num(flows.down[order]).astype(np.int64),
            "connected_us": flows.duration_us[order],
            "no_reply": (flows.outcome[order] & NO_REPLY > 0).astype(np.int64),
        }
        totals = {}
        for name, values in added.items():
            running = np.cumsum(values)
            base = (
                np.where(batch.continues, self._totals[name][slot], 0)
                - running[first]
                + values[first]
            )
            totals[name] = running + base[segment]
        start = flows.start_us[order]
        begin = np.where(batch.continues, self._totals["first_us"][slot], start[first])
        totals["first_us"] = begin[segment]
        last = batch.last
        for name, values in totals.items():
            self._totals[name][slot[last]] = values[ends[last]]
        self._last_clock_us[slot[last]] = flows.clock_us[order][ends[last]]
        return totals

    def _extend(self, batch: _Batch, flows: ContactFlows) -> tuple[npt.NDArray[np.uint64], Ints]:
        """Tokens of every segment behind the WINDOW_FLOWS before it, and (n) where each flow's
        token is."""
        order, first, segment = batch.order, batch.first, batch.segment
        slot = batch.slot[first]
        start = flows.start_us[order]
        before = np.r_[0, start[:-1]]
        before[first] = self._last_start_us[slot]
        gap = np.abs(start - before) / 1e6
        gap[first[~batch.continues]] = np.nan
        position = np.arange(len(order)) + WINDOW_FLOWS * (segment + 1)
        tokens = np.empty(len(order) + WINDOW_FLOWS * len(first), np.uint64)
        earlier = np.where(batch.continues[:, None], self._ring[slot], PADDING)
        head = (position[first] - WINDOW_FLOWS)[:, None] + np.arange(WINDOW_FLOWS)
        tokens[head] = earlier
        tokens[position] = _tokens(flows, order, gap)
        ends = np.r_[first[1:], len(order)] - 1
        last = batch.last
        tail = position[ends[last]][:, None] + np.arange(1 - WINDOW_FLOWS, 1)
        self._ring[slot[last]] = tokens[tail]
        self._last_start_us[slot[last]] = start[ends[last]]
        return tokens, position

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers: the same after the same flows, wherever batches ended."""
        keys = self._table.keys()
        return {
            "seen": self._seen,
            "left_early": self.left_early,
            "contacts": np.sort(keys),
            "ring": _sorted_by_key(keys, self._ring),
            "last_start_us": _sorted_by_key(keys, self._last_start_us),
            "last_clock_us": _sorted_by_key(keys, self._last_clock_us),
            "totals": {name: _sorted_by_key(keys, total) for name, total in self._totals.items()},
            "ports": self._ports.state(),
            "high_ports": self._high_ports.state(),
            "peers": self._peers.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self._seen, self.left_early = int(state["seen"]), int(state["left_early"])
        self._table = SlotTable.of(state["contacts"])
        self._ring = state["ring"].copy()
        self._last_start_us = state["last_start_us"].copy()
        self._last_clock_us = state["last_clock_us"].copy()
        self._totals = {name: state["totals"][name].copy() for name in _TOTALS}
        self._ports.restore(state["ports"])
        self._high_ports.restore(state["high_ports"])
        self._peers.restore(state["peers"])

    def _make_room(self) -> None:
        size = self._table.count
        self._totals = {name: _grown(values, size, 0) for name, values in self._totals.items()}
        self._last_start_us = _grown(self._last_start_us, size, 0)
        self._last_clock_us = _grown(self._last_clock_us, size, 0)
        self._ring = _grown(self._ring, size, 0)

    def _forget(self) -> None:
        """Beyond the limit the contacts seen least recently leave, three quarters stay."""
        size = self._table.count
        if size <= self.limit:
            return
        keys = self._table.keys()
        stay = np.sort(np.lexsort((keys, -self._last_clock_us[:size]))[: self.limit * 3 // 4])
        self.left_early += size - len(stay)
        stay = stay[np.argsort(keys[stay])]
        self._table.keep(stay)
        self._totals = {name: values[stay] for name, values in self._totals.items()}
        self._last_start_us, self._last_clock_us = (
            self._last_start_us[stay],
            self._last_clock_us[stay],
        )
        self._ring = self._ring[stay]


def _sorted_by_key(keys: Keys, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[: len(keys)][np.argsort(keys)]


def _grown(values: npt.NDArray[Any], size: int, fill: int) -> npt.NDArray[Any]:
    if len(values) >= size:
        return values
    more = np.full((max(size - len(values), len(values)), *values.shape[1:]), fill, values.dtype)
    return np.concatenate([values, more])


def _starts(ordered: Ints) -> Ints:
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _tokens(
    flows: ContactFlows, order: Ints, gap_s: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint64]:
    """(n) the token of every flow."""
    token = np.empty((len(order), 8), np.uint8)
    token[:, GAP] = quantise(gap_s, GAP_UNIT_S)
    token[:, UP] = quantise(flows.up[order], SIZE_UNIT_B)
    token[:, DOWN] = quantise(flows.down[order], SIZE_UNIT_B)
    token[:, DURATION] = quantise(flows.duration_us[order] / 1e6, DURATION_UNIT_S)
    token[:, OUTCOME] = flows.outcome[order]
    token[:, HTTP], token[:, TLS], token[:, URI] = (
        flows.http[order],
        flows.tls[order],
        flows.uri[order],
    )
    return np.asarray(token.view(np.uint64)[:, 0])


def _features(
    window: npt.NDArray[np.uint64],
    totals: dict[str, Ints],
    start_us: Ints,
    duration_us: Ints,
    external: Flags,
) -> Floats:
    """(m, FEATURE_NAMES) of the windows (WINDOW_FLOWS, m) and the totals of their contacts."""
    planes = np.ascontiguousarray(
        window.view(np.uint8).reshape(WINDOW_FLOWS, -1, 8).transpose(2, 0, 1)
    )
    flows = np.minimum(totals["count"], WINDOW_FLOWS).astype(np.float32)
    columns = _total_columns(totals, start_us, duration_us)
    columns += _rhythm_columns(planes)
    columns += _outcome_columns(planes[OUTCOME], flows)
    for name in ("port_peers", "high_ports"):
        count = totals[name].astype(np.float32)
        columns.append(np.where(count < 0, np.nan, np.log1p(np.maximum(count, 0))))
    columns.append(external.astype(np.float32))
    columns += _fact_columns(planes)
    return np.ascontiguousarray(np.array(columns, np.float32).T)


def without_flows(features: Floats, tokens: npt.NDArray[np.uint64]) -> Floats:
    """(m, FEATURES) as they would be of other windows (m, WINDOW_FLOWS) of the same contacts, such
    as windows in which some flows are `PADDING`; what stands on totals stays."""
    planes = np.ascontiguousarray(
        np.ascontiguousarray(tokens.T)
        .view(np.uint8)
        .reshape(WINDOW_FLOWS, -1, 8)
        .transpose(2, 0, 1)
    )
    flows = (tokens != PADDING).sum(axis=1).astype(np.float32)
    columns = [*_rhythm_columns(planes), *_outcome_columns(planes[OUTCOME], flows)]
    first = FEATURE_NAMES.index("gap_median")
    changed = features.copy()
    changed[:, first : first + len(columns)] = np.array(columns, np.float32).T
    facts = _fact_columns(planes)
    changed[:, len(FEATURES) : len(FEATURES) + len(facts)] = np.array(facts, np.float32).T
    return changed


def _total_columns(totals: dict[str, Ints], start_us: Ints, duration_us: Ints) -> list[Floats]:
    count = totals["count"].astype(np.float64)
    span = np.maximum(start_us - totals["first_us"], 0) / 1e6
    through = span + np.maximum(duration_us / 1e6, 1e-3)
    return [
        np.log1p(count),
        np.log1p(span),
        np.log1p((count - 1) / np.maximum(span, 1.0) * 3600),
        np.minimum(totals["connected_us"] / 1e6 / through, 1.0),
        np.log1p(totals["up"] / count / SIZE_UNIT_B),
        np.log1p(totals["down"] / count / SIZE_UNIT_B),
        totals["no_reply"] / count,
    ]


def _rhythm_columns(planes: Bytes) -> list[Floats]:
    width = planes.shape[2]
    values = planes[:4].transpose(1, 0, 2).reshape(WINDOW_FLOWS, 4 * width)
    ordered = sort_columns(values)
    known = count_known(ordered)
    centre = middle(ordered, known)
    away = np.maximum(values, centre) - np.minimum(values, centre)
    away[values == MISSING] = MISSING
    bursts = np.where(planes[GAP] >= _BURST_STEP, planes[GAP], np.uint8(MISSING))
    second = sort_columns(np.concatenate([away[:, : 3 * width], bursts], axis=1))
    low, half, high = (np.split(quantile(ordered, known, share), 4) for share in (0.25, 0.5, 0.75))
    gaps, sent, received, durations = (slice(i * width, (i + 1) * width) for i in range(4))
    mad = np.split(quantile(second[:, : 3 * width], known[: 3 * width], 0.5) * LOG_STEP, 3)
    mode = np.split(
        largest_cluster(ordered[:, : 3 * width], CLUSTER_STEPS) / np.maximum(known[: 3 * width], 1),
        3,
    )
    seconds = _GAP_SECONDS[planes[GAP]]
    count = np.maximum(known[gaps], 1).astype(np.float32)
    total = _sum(seconds)
    mean = total / count
    spread = np.sqrt(np.maximum(_sum(seconds * seconds) / count - mean * mean, 0))
    quarter = [dequantise(part[GAP], GAP_UNIT_S) for part in (low, half, high)]
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = (quarter[0] + quarter[2] - 2 * quarter[1]) / (quarter[2] - quarter[0])
    skew = np.where(quarter[2] > quarter[0], skew, np.where(known[gaps] > 0, 0, np.nan))
    burst = second[:, durations]
    burst_known = count_known(burst)
    connected = _sum(_DURATION_SECONDS[planes[DURATION]])
    return [
        half[GAP] * LOG_STEP,
        spread / np.maximum(mean, 1e-3),
        mad[GAP],
        skew,
        entropy(ordered[:, gaps], known[gaps], 2),
        mode[GAP],
        burst_known / count,
        quantile(burst, burst_known, 0.5) * LOG_STEP,
        (quantile(burst, burst_known, 0.75) - quantile(burst, burst_known, 0.25)) * LOG_STEP,
        np.where(
            burst_known > 0,
            largest_cluster(burst, CLUSTER_STEPS) / np.maximum(burst_known, 1),
            np.nan,
        ),
        half[UP] * LOG_STEP,
        mad[UP],
        np.where(known[sent] > 0, mode[UP], np.nan),
        half[DOWN] * LOG_STEP,
        mad[DOWN],
        np.where(known[received] > 0, mode[DOWN], np.nan),
        (half[UP] - half[DOWN]) * LOG_STEP,
        half[DURATION] * LOG_STEP,
        (high[DURATION] - low[DURATION]) * LOG_STEP,
        np.minimum(connected / np.maximum(total, 1e-1), 1),
    ]


def _sum(values: Floats) -> Floats:
    """(n) sum of every column, always in the order of the rows: `numpy.sum` has another one where n
    is 1."""
    total = values[0].copy()
    for row in values[1:]:
        total += row
    return np.asarray(total)


def _outcome_columns(outcome: Bytes, flows: Floats) -> list[Floats]:
    return [_share(outcome, bit, flows) for bit in (NO_REPLY, REFUSED, RESET, REPLIED)]


def _share(plane: Bytes, bit: int, of: Floats) -> Floats:
    count = (plane & np.uint8(bit) > 0).sum(axis=0, dtype=np.uint8)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(of > 0, count / of, np.nan), np.float32)


def _fact_columns(planes: Bytes) -> list[Floats]:
    """Shares of the flows whose logs are known; NaN where none is."""
    width = planes.shape[2]
    total = len(_HTTP_FACTS) + 6
    columns = np.full((total + 2, width), np.nan, np.float32)
    http = np.flatnonzero(planes[HTTP].any(axis=0))
    if len(http):
        plane = planes[HTTP][:, http]
        known = (plane > 0).sum(axis=0).astype(np.float32)
        columns[: len(_HTTP_FACTS), http] = [_share(plane, bit, known) for bit in _HTTP_FACTS]
        ordered = sort_columns(planes[URI][:, http])
        seen = count_known(ordered)
        columns[total, http] = quantile(ordered, seen, 0.5) * LOG_STEP
        columns[total + 1, http] = np.where(
            seen > 0, largest_cluster(ordered, 0) / np.maximum(seen, 1), np.nan
        )
    tls = np.flatnonzero(planes[TLS].any(axis=0))
    if len(tls):
        plane = planes[TLS][:, tls]
        known = (plane > 0).sum(axis=0).astype(np.float32)
        certificates = (plane & TLS_CERTIFICATE > 0).sum(axis=0).astype(np.float32)
        first = len(_HTTP_FACTS)
        columns[first, tls] = _share(plane, TLS_NO_NAME, known)
        columns[first + 1 : first + 5, tls] = [
            _share(plane, bit, certificates) for bit in _CERTIFICATE_FACTS
        ]
        columns[first + 5, tls] = _share(plane, TLS_FAILED, known)
    return list(columns)
