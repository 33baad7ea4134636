"""Verdicts and alerts → proposals for the allow-list, each with what it would have hidden.

Nothing is applied here.

```python
ruled, unknown = rule(verdicts, cases)
proposals = propose(ruled, expires)
look_back(proposals, cases_of_the_last_days)
text = render(proposals, days)
```
A proposal is as narrow as the alert that led to it: its host in its role, its class, and its peer
and port where it had but one. One that might hide any flow of an alert that was judged true is
withheld.
"""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from ids_plugin.alerts.allow_list import Entry, parse
from ids_plugin.feedback.case import Case, Hidden, hides
from ids_plugin.schema.verdict import BENIGN, FALSE, TRUE, Verdict

NAMED_ALERTS = 3
"""alerts that a comment names"""
_MAX_LINE_LENGTH = 160
"""characters of what others wrote in one line of ours"""
_NEVER = datetime.min.replace(tzinfo=UTC)
_WORDS = {TRUE: "true", FALSE: "a false alarm", BENIGN: "benign but unusual"}


class Ruled(NamedTuple):
    """An alert and the verdict that holds for it."""

    case: Case
    verdict: Verdict
    overruled: tuple[Verdict, ...]
    """older verdicts that say something else, newest first"""


def rule(
    verdicts: Iterable[Verdict], cases: Mapping[str, Case]
) -> tuple[list[Ruled], list[Verdict]]:
    """The verdict that holds for each judged alert, and the verdicts on alerts that aren't among
    `cases`.

    `cases`: `event.id` of any document → its alert. The newest verdict holds; of two at one time
    the one read later, and one without a time is older than all others.
    """
    by_group: dict[str, list[Verdict]] = {}
    unknown = []
    for verdict in sorted(verdicts, key=lambda entry: entry.time or _NEVER):
        if verdict.alert in cases:
            by_group.setdefault(cases[verdict.alert].group, []).append(verdict)
        else:
            unknown.append(verdict)
    ruled = []
    for of_alert in by_group.values():
        last = of_alert[-1]
        overruled = tuple(entry for entry in reversed(of_alert) if entry.verdict != last.verdict)
        ruled.append(Ruled(cases[last.alert], last, overruled))
    return sorted(ruled, key=lambda entry: (entry.case.first, entry.case.group)), unknown


class _Seen(NamedTuple):
    """An alert of the last days that a proposal touches."""

    hidden: Hidden
    case: Case


@dataclass
class Proposal:
    """An entry for the allow-list."""

    table: dict[str, Any]
    """keys and values as in the file"""
    entry: Entry
    led_by: tuple[Ruled, ...]
    """the judged alerts it is made for, all of them false or benign"""
    against: tuple[Ruled, ...]
    """alerts judged true that it might hide flows of: with any it is withheld"""
    touched: dict[str, _Seen] = field(default_factory=dict, repr=False)
    """alert group → how much of it"""

    def see(self, case: Case) -> None:
        """Takes note of an alert; both documents of one group may come, in any order."""
        hidden = hides(self.entry, case)
        known = self.touched.get(case.group)
        if known is None and hidden == "none":
            return
        if known is None:
            self.touched[case.group] = _Seen(hidden, case)
        else:
            whole = case.merged(known.case)
            self.touched[case.group] = _Seen(hides(self.entry, whole), whole)

    @property
    def hidden(self) -> list[Case]:
        """Alerts of which no flow would have been left, oldest first."""
        return self._touched("whole")

    @property
    def reduced(self) -> list[Case]:
        """Alerts of which some flows would, or might, have been hidden."""
        return self._touched("part")

    @property
    def unjudged(self) -> list[Case]:
        """Of these and those the ones that nobody has judged, whole ones first."""
        judged = {ruled.case.group for ruled in self.led_by}
        return [case for case in (*self.hidden, *self.reduced) if case.group not in judged]

    def effect(self) -> dict[str, Any]:
        """JSON-able: what it would have hidden."""
        return {
            **counts(self.hidden),
            "in_part": len(self.reduced),
            "unjudged": len(self.unjudged),
            "examples": [_named(case) for case in (*self.unjudged, *self.hidden)[:NAMED_ALERTS]],
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "entry": self.table,
            "led_by": [
                _named(ruled.case) | {"verdict": ruled.verdict.description} for ruled in self.led_by
            ],
            "would_have_hidden": self.effect(),
            "against": [
                _named(ruled.case) | {"verdict": ruled.verdict.description}
                for ruled in self.against
            ],
        }

    def _touched(self, how: Hidden) -> list[Case]:
        cases = [seen.case for seen in self.touched.values() if seen.hidden == how]
        return sorted(cases, key=lambda case: (case.first, case.group))


def look_back(proposals: Sequence[Proposal], cases: Iterable[Case]) -> None:
    """Has every proposal see the cases that it could have to do with."""
    by_host: dict[tuple[str, str], list[Proposal]] = {}
    for proposal in proposals:
        by_host.setdefault((proposal.entry.kind or "", proposal.entry.host or ""), []).append(
            proposal
        )
    for case in cases:
        for host in {case.subject, *case.peers}:
            for proposal in by_host.get((case.kind, host), ()):
                proposal.see(case)
        if not case.every_peer:
            for proposal in proposals:
                if proposal.entry.role != case.role and proposal.entry.host not in (
                    case.subject,
                    *case.peers,
                ):
                    proposal.see(case)


def counts(cases: Sequence[Case]) -> dict[str, Any]:
    """JSON-able: how many alerts, and flows in them, by class and severity."""
    return {
        "alerts": len(cases),
        "flows": sum(case.count for case in cases),
        "by_class": dict(sorted(Counter(case.kind for case in cases).items())),
        "by_severity": dict(sorted(Counter(case.severity for case in cases).items())),
    }


def _named(case: Case) -> dict[str, Any]:
    return {"event.id": case.alert, "severity": case.severity, "message": case.message}


def propose(ruled: Sequence[Ruled], expires: date) -> list[Proposal]:
    """The proposals for all alerts judged false or benign, in the order of their first alerts."""
    grouped: dict[str, tuple[dict[str, Any], list[Ruled]]] = {}
    for alert in ruled:
        if alert.verdict.verdict != TRUE:
            table = _narrowest(alert.case)
            grouped.setdefault(json.dumps(table), (table, []))[1].append(alert)
    true = [alert for alert in ruled if alert.verdict.verdict == TRUE]
    return [_proposal(table, led_by, true, expires) for table, led_by in grouped.values()]


def _narrowest(case: Case) -> dict[str, Any]:
    table: dict[str, Any] = {"host": case.subject, "role": case.role}
    if case.every_peer and len(case.peers) == 1:
        table["cidr"] = str(ipaddress.ip_network(case.peers[0]))
    if case.every_port and len(case.ports) == 1 and case.ports[0] is not None:
        table["port"] = case.ports[0]
    return {**table, "class": case.kind}


def _proposal(
    table: dict[str, Any], led_by: list[Ruled], true: Sequence[Ruled], expires: date
) -> Proposal:
    newest = max((alert.verdict for alert in led_by), key=lambda verdict: verdict.time or _NEVER)
    whole = {**table, "note": _line(newest.description), "expires": expires}
    entry = parse("\n".join(_toml(whole)), "proposal").entries[0]
    against = tuple(alert for alert in true if hides(entry, alert.case) != "none")
    return Proposal({**whole, "expires": expires.isoformat()}, entry, tuple(led_by), against)


def _toml(table: Mapping[str, Any]) -> list[str]:
    return ["[[allow]]", *(f"{key} = {_value(value)}" for key, value in table.items())]


def _value(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)


def _line(text: str) -> str:
    """What others wrote, as part of one line of ours: no line break or escape of theirs gets
    through."""
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return clean if len(clean) <= _MAX_LINE_LENGTH else clean[: _MAX_LINE_LENGTH - 1] + "…"


def render(proposals: Sequence[Proposal], days: float) -> str:
    """The text of an allow-list with every proposal, those that are withheld as comments."""
    parts = [
        "# Proposals from analysts' verdicts, for a person to read. "
        "Nothing is hidden by this file until it is given",
        "# to `ids-plugin scan --allow FILE` or, as detect.allow, to `ids-consumer detect`.",
    ]
    for proposal in proposals:
        lines = _toml({**proposal.table, "expires": date.fromisoformat(proposal.table["expires"])})
        commented = [*_why(proposal), *_effect(proposal, days)]
        if proposal.against:
            commented = [*_withheld(proposal), *commented, *lines]
            lines = []
        parts += ["", *(f"# {line}" for line in commented), *lines]
    return "\n".join(parts) + "\n"


def _why(proposal: Proposal) -> list[str]:
    kinds = sorted(Counter(ruled.verdict.verdict for ruled in proposal.led_by).items())
    reasons = " and ".join(f"{_alerts(count)} judged {_WORDS[verdict]}" for verdict, count in kinds)
    lines = [f"Because of {reasons}:"]
    lines += [
        f"  {_alert(ruled.case)} ({_line(ruled.verdict.description)})"
        for ruled in proposal.led_by[:NAMED_ALERTS]
    ]
    more = len(proposal.led_by) - NAMED_ALERTS
    return lines + ([f"  and {more:,} more"] if more > 0 else [])


def _effect(proposal: Proposal, days: float) -> list[str]:
    effect = proposal.effect()
    severities = ", ".join(f"{count:,} {name}" for name, count in effect["by_severity"].items())
    alerts = f"{_alerts(effect['alerts'])} of class {proposal.table['class']}"
    alerts += f" ({severities})" if severities else ""
    lines = [
        f"In the last {days:g} days it would have hidden {alerts}, "
        f"{effect['flows']:,} flows in them."
    ]
    if effect["in_part"]:
        lines.append(f"Of {effect['in_part']:,} more it would have hidden some of the flows.")
    if effect["unjudged"]:
        lines.append(f"WARNING: nobody has judged {effect['unjudged']:,} of these, such as:")
        lines += [f"  {_alert(case)}" for case in proposal.unjudged[:NAMED_ALERTS]]
    return lines


def _withheld(proposal: Proposal) -> list[str]:
    lines = ["WITHHELD: it might hide what was judged true:"]
    return lines + [
        f"  {_alert(ruled.case)} ({_line(ruled.verdict.description)})"
        for ruled in proposal.against[:NAMED_ALERTS]
    ]


def _alerts(count: int) -> str:
    return "1 alert" if count == 1 else f"{count:,} alerts"


def _alert(case: Case) -> str:
    return f"{_line(case.alert)} {_line(case.severity)}: {_line(case.message)}"
