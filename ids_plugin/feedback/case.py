"""A case: what an alert's documents say of its group, and how much of it an entry of an allow-list
would hide.

A document names the ten commonest peers and ports of a group, not which went with which, nor the
others. So the answer is "whole" only where it is certain, and "part" wherever some of its flows
might be hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Any, Literal

import numpy as np

from ids_plugin.alerts.allow_list import Entry
from ids_plugin.alerts.group_rule import QUIET_GAP_US
from ids_plugin.alerts.policy import FlaggedFlows
from ids_plugin.alerts.totals import SUMS, Flows
from ids_plugin.schema.alert import SEVERITIES, TARGET
from ids_plugin.schema.score import CLASSES

Hidden = Literal["none", "part", "whole"]

_SEVERITY_NAMES = {number: name for name, number in SEVERITIES.items()}


@dataclass(frozen=True)
class Case:
    """One alert. Times in µs since the epoch."""

    group: str
    """`ids_plugin.fold.id`"""
    alert: str
    """`event.id` of the document it was read from: the alert's own where that was read"""
    sensor: str
    subject: str
    role: str
    kind: str
    """class"""
    severity: str
    message: str
    first: int
    last: int
    count: int
    peers: tuple[str, ...]
    """those that are named"""
    every_peer: bool
    """there are no others"""
    ports: tuple[int | None, ...]
    """those that are named; None is a flow without one, as ICMP's"""
    every_port: bool
    closed: bool
    """its totals are those of the whole group"""
    bundle: str
    """id of the bundle that raised it"""
    evidence: tuple[Mapping[str, Any], ...] = ()
    """flows, as documents have them"""

    def merged(self, other: Case) -> Case:
        """Both documents of one group as one case: totals of the closed one, id of the open one,
        evidence of both."""
        total, opening = (self, other) if self.closed else (other, self)
        known = {flow.get("uid"): flow for flow in (*opening.evidence, *total.evidence)}
        return replace(
            total, alert=opening.alert, message=opening.message, evidence=tuple(known.values())
        )


def case(document: Mapping[str, Any]) -> Case:
    """The case of an alert document, open or closed.

    Raises:
        ValueError: it is no alert document; the message names what is missing.
    """
    try:
        return _case(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no alert document of ours: {error}") from error


def _case(document: Mapping[str, Any]) -> Case:
    details, event = document["ids_plugin"], document["event"]
    totals = details["fold"]
    if details["label"] not in CLASSES:
        raise ValueError(f"no alert document of ours: class {details['label']!r}")
    ports: tuple[int | None, ...] = tuple(entry["port"] for entry in totals["top_ports"])
    flows_with_port = sum(entry["count"] for entry in totals["top_ports"])
    named = len(ports) == totals["ports"]
    if named and flows_with_port < totals["count"]:
        ports += (None,)
    return Case(
        group=totals["id"],
        alert=event["id"],
        sensor=document["observer"]["name"],
        subject=totals["subject"],
        role=totals["role"],
        kind=details["label"],
        severity=_SEVERITY_NAMES.get(event["severity"], str(event["severity"])),
        message=document.get("message", ""),
        first=_micros(totals["first"]),
        last=_micros(totals["last"]),
        count=totals["count"],
        peers=tuple(entry["ip"] for entry in totals["top_peers"]),
        every_peer=totals["peers_relation"] == "eq" and totals["peers"] == len(totals["top_peers"]),
        ports=ports,
        every_port=named,
        closed=totals["state"] == "closed",
        bundle=details["bundle"]["id"],
        evidence=tuple(details.get("evidence", {}).get("flows", ())),
    )


def _micros(text: str) -> int:
    return int(
        np.datetime64(datetime.fromisoformat(text).replace(tzinfo=None), "us").astype(np.int64)
    )


def hides(entry: Entry, case: Case) -> Hidden:
    """How much of the case the entry would have hidden."""
    if entry.kind not in (None, case.kind):
        return "none"
    if entry.host not in (None, case.subject, *case.peers) and case.every_peer:
        return "none"
    somebody = () if case.every_peer else (_SOMEBODY[":" in case.subject],)
    some_port = () if case.every_port else (_SOME_PORT,)
    fits = entry.fits(_flows(case, (*case.peers, *somebody), (*case.ports, *some_port)))
    if fits.all():
        return "whole"
    return "part" if fits.any() or _might_fit(entry, case) else "none"


_SOMEBODY = ("255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
"""stands for peers that aren't named: no entry but the widest says that it knows it"""
_SOME_PORT = -1


def _might_fit(entry: Entry, case: Case) -> bool:
    """Whether it hides a flow with a peer or a port that isn't named: those it names itself are
    tried."""
    if case.every_peer and case.every_port:
        return False
    named = (entry.host, None if entry.cidr is None else str(entry.cidr.network_address))
    peers = () if case.every_peer else tuple(address for address in named if address is not None)
    ports = () if case.every_port else (entry.port,)
    return bool(entry.fits(_flows(case, (*case.peers, *peers), (*case.ports, *ports))).any())


def _flows(case: Case, peers: Sequence[str], ports: Sequence[int | None]) -> FlaggedFlows:
    """One flow between the subject and each of the peers to each of the ports, as the allow-list
    sees flows."""
    pairs = list(product(peers, ports))
    acted_upon = case.role == TARGET
    subject, others = [case.subject] * len(pairs), [peer for peer, _ in pairs]
    rows = np.arange(len(pairs))
    known = np.full(len(pairs), case.last)
    return FlaggedFlows(
        rows=rows,
        clock=known,
        score=np.ones(len(pairs)),
        source=[""] * len(pairs),
        orig_h=others if acted_upon else subject,
        resp_h=subject if acted_upon else others,
        is_target=np.full(len(pairs), acted_upon),
        label=np.full(len(pairs), CLASSES.index(case.kind)),
        flows=Flows(
            ts=known,
            known=known,
            uid=[None] * len(pairs),
            peer=others,
            port=[port for _, port in pairs],
            sums=np.zeros((len(pairs), len(SUMS)), np.int64),
            has=np.zeros((len(pairs), len(SUMS)), np.bool_),
            open=np.zeros(len(pairs), np.bool_),
            replaces=np.zeros(len(pairs), np.bool_),
        ),
        doubt=np.zeros(len(rows), np.int64),
        quiet_us=np.full(len(pairs), QUIET_GAP_US, np.int64),
    )
