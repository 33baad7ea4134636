"""Tables (Markdown) of what judges are worth on public captures of real networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.bench.support.real_captures import (
    ATTACK_CAPTURE,
    SEVERITIES,
    Case,
    FalseAlert,
    Verdict,
    any_class,
    found,
    median_delay_s,
)

CLASSES = {
    "scan": "scan",
    "brute_force": "brute force",
    "flood": "flood",
    "command_and_control": "control",
    "exfiltration": "exfiltration, DNS tunnels",
    "spreading": "spreading",
    "inbound_noise": "noise",
}
NOISE = "inbound_noise"


class Judged(NamedTuple):
    """A judge's title and what it is worth."""

    title: str
    verdict: Verdict


def side_by_side(judged: Sequence[Judged]) -> Iterator[str]:
    """A line for each judge: found in class, false alerts a day, alerts of a wrong class."""
    yield (
        f"| judge | {' | '.join(CLASSES.values())} | all | false a benign day | of these high or "
        "critical | false in attack captures a day | wrong class |"
    )
    yield "|---" * (len(CLASSES) + 6) + "|"
    for title, verdict in judged:
        counts = [_share(verdict.of_class(name)) for name in CLASSES]
        benign, days = verdict.false_in_benign, verdict.benign_days
        rates = [
            f"{len(benign) / days:.1f}",
            f"{len(_severe(benign)) / days:.1f}",
            f"{(len(verdict.false) - len(benign)) / (verdict.hours[ATTACK_CAPTURE] / 24):.1f}",
        ]
        cells = [*counts, _share(verdict.cases), *rates, str(verdict.wrong.total())]
        yield f"| {title} | {' | '.join(cells)} |"


def by_class(verdict: Verdict, easy: Verdict) -> Iterator[str]:
    """A line for each class; `easy` is the verdict of the plain lookup: what it finds in class is
    easy."""
    is_easy = {(case.capture, case.host, case.label) for case in easy.cases if case.found}
    yield (
        "| class | cases | found in class | in any | missed | median delay | sources found in "
        "| without the lookup's finds |"
    )
    yield "|---" * 8 + "|"
    for name, title in (*CLASSES.items(), (None, "all")):
        yield _class_line(title, verdict.of_class(name), is_easy)
    rest = [case for case in verdict.cases if case.label != NOISE]
    yield _class_line("all but noise", rest, is_easy)


def _class_line(title: str, cases: Sequence[Case], is_easy: set[tuple[str, str, str]]) -> str:
    delay_s = median_delay_s(cases)
    sources = {_source(case) for case in cases}
    hit = {_source(case) for case in cases if case.found}
    hard = [case for case in cases if (case.capture, case.host, case.label) not in is_easy]
    cells = (
        len(cases), found(cases), any_class(cases), len(cases) - any_class(cases),
        "–" if delay_s is None else f"{delay_s:,.1f} s",
        f"{len(hit)} of {len(sources)}", _share(hard),
    )  # fmt: skip
    return f"| {title} | {' | '.join(map(str, cells))} |"


def _source(case: Case) -> str:
    return case.capture.split("__", 1)[0]


def false_alerts(verdict: Verdict) -> Iterator[str]:
    """A line for each kind of network: hours and false alerts by severity; then each of them."""
    yield f"| kind of network | hours | false alerts | {' | '.join(SEVERITIES)} |"
    yield "|---" * (len(SEVERITIES) + 3) + "|"
    for kind, hours in sorted(verdict.hours.items(), key=lambda pair: -pair[1]):
        of_kind = [alert for alert in verdict.false if alert.kind == kind]
        counts = (sum(alert.severity == name for alert in of_kind) for name in SEVERITIES)
        yield f"| {kind} | {hours:,.1f} | {len(of_kind)} | {' | '.join(map(str, counts))} |"
    if verdict.false:
        yield ""
    for alert in verdict.false:
        yield (
            f"- {alert.capture}: {alert.subject} {alert.label}, {alert.severity}, "
            f"{alert.flows} flows"
        )


def missed(verdict: Verdict) -> Iterator[str]:
    """The cases that were not found in class, noise left out."""
    for case in verdict.cases:
        if not case.found and case.label != NOISE:
            seen = f"called {', '.join(case.classes)}" if case.classes else "nothing said"
            yield f"- {CLASSES[case.label]}: {case.capture} {case.host}, {case.flows} flows: {seen}"


def sweep(verdicts: Mapping[float, Verdict]) -> Iterator[str]:
    """Factor of the counters' thresholds → what they find and say falsely."""
    names = [name for name in CLASSES if name != "command_and_control"]
    titles = " | ".join(CLASSES[name] for name in names)
    yield f"| thresholds times | {titles} | false in benign | in attack captures | wrong class |"
    yield "|---" * (len(names) + 4) + "|"
    for factor, verdict in sorted(verdicts.items()):
        counts = [_share(verdict.of_class(name)) for name in names]
        benign = len(verdict.false_in_benign)
        numbers = (benign, len(verdict.false) - benign, verdict.wrong.total())
        yield f"| {factor:g} | {' | '.join([*counts, *map(str, numbers)])} |"


def _share(cases: Sequence[Case]) -> str:
    return f"{found(cases)} of {len(cases)}" if cases else "–"


def _severe(alerts: Sequence[FalseAlert]) -> list[FalseAlert]:
    return [alert for alert in alerts if alert.severity in ("critical", "high")]
