"""The tables of docs/detection.md, made of the rules and columns themselves.

`python -m tests.support.detection_page` writes them anew between their marks;
`tests/contract/test_detection_page.py` says when the page and the code differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ids_plugin.bundle import find, read
from ids_plugin.detectors.contact_profile.model import COLUMNS
from ids_plugin.detectors.counters import with_thresholds
from ids_plugin.detectors.counting.catalogue import CONN_COUNTERS
from ids_plugin.detectors.counting.facts import GUESSES
from ids_plugin.detectors.counting.rules import DETECTORS, TARGET, Rule
from ids_plugin.explain.wording import amount
from ids_plugin.schema.flow import FACT_COLUMNS

PAGE = Path(__file__).parents[2] / "docs/detection.md"
SPANS = {10: "10 s", 60: "1 min", 600: "10 min", 3_600: "1 h", 86_400: "24 h"}
"""seconds of a horizon → how the page writes it"""
BYTE_VALUES = frozenset({"up", "down", "resp_ip"})
"""what a counter sums, where that is bytes"""
MAXIMUM = 4
"""position of the maximum among the numbers of a baseline"""
REASONS: Mapping[tuple[str, str], str] = {
    ("scan", "ports of one host"): "Software knows its port. Several are tried at once by peer-to-"
    "peer programs and by discovery, but few of them.",
    ("scan", "one port of many hosts"): "Hosts that answered may be at most half of those that "
    "failed, with four tries a host at most. Outside hosts' web ports need five times as many (the "
    "way out may be down), other high ports outside ten times (peer-to-peer); over a day neither "
    "counts.",
    ("scan", "local services"): "Host and port together: a few ports of several local hosts. At "
    "least as many fail as answer.",
    ("scan", "datagrams to many hosts"): "UDP is often unanswered; so many hosts on one port are "
    "not.",
    ("scan", "pings"): "Monitoring pings hosts that answer: 40 of any kind, or 10 that stay "
    "silent.",
    ("brute_force", "guesses"): "No person types six passwords in ten seconds. Software that comes "
    "back often (SMB, RPC, databases, MQTT, mail) has the larger numbers. There is no rule over a "
    "day: a regular job looks the same.",
    ("brute_force", "one password for many hosts"): "SSH, FTP, Telnet, RDP and VNC alone: software "
    "visits many file servers.",
    ("flood", "one service"): "At least half of what reaches the victim brings nothing.",
    ("flood", "unproductive connections"): "The same from any sources, with ten connections a port "
    "or more: fewer are a scan.",
    ("flood", "many sources"): "Forged sources: each tries once, on whatever port.",
    ("flood", "datagrams full of data"): "At least 200 B of payload a datagram, none answered: a "
    "scan's datagrams are empty or short.",
    ("flood", "connections"): "Ten connections a port or more, at most half of them answered: no "
    "busy server.",
    ("flood", "held open"): "Sessions of 5 s or more with at most 2 kB each way: slow floods hold "
    "a server's places.",
    ("flood", "answers nobody asked for"): "The subject answers what the victim never asked.",
    ("flood", "amplified answers"): "The same in bytes, from services whose answers are larger "
    "than the question (DNS, NTP, SSDP, …).",
    ("flood", "one flow"): "Packets of a single flow that nobody answered: at least 1,000 a second "
    "in UDP (a camera's stream stays below), 100 in TCP and ICMP.",
    ("spreading", "one entrance of many hosts"): "One port through which worms enter. The host got "
    "in at two others in the same hour, or somebody got in here on the same port.",
    (
        "inbound_noise",
        "external originators",
    ): "External originators that nobody inside has contacted for a "
    "day; in three minutes or more, or on five ports.",
    (
        "inbound_noise",
        "one external originator, many ports",
    ): "A port scan from outside: every exposed host has them.",
    (
        "inbound_noise",
        "one external originator, again and again",
    ): "The same for one external originator that keeps trying.",
    (
        "inbound_noise",
        "one external originator, several hosts",
    ): "Too few tries at each host to be noise there. The subject is the external originator.",
    ("exfiltration", "DNS tunnel, questions"): "At least 60 B a question: names of ordinary hosts "
    "are shorter.",
    ("exfiltration", "DNS tunnel, answers"): "At least 200 B an answer and 20 questions.",
    ("exfiltration", "nothing but uploads"): "Flows of 10 kB or more with four times what came "
    "back, 500 kB in all, nine in ten of the contact's flows, most of the day's bytes: backups and "
    "cameras send all day.",
    ("exfiltration", "uploads nobody answered"): "Flows of 10 kB or more without a byte back, "
    "100 kB in all.",
    ("exfiltration", "far more than usual"): "Ten times the host's usual hour, which is known "
    "after three hours, and four times what came back.",
    ("exfiltration", "files by FTP"): "Sessions with an outside FTP server, and a file sent in "
    "one of them at least.",
}
"""(class, rule) → why its threshold and its condition are as they are"""
AGAIN: Mapping[tuple[str, str], str] = {
    ("brute_force", "guesses"): " of SMB, RPC, databases, MQTT or mail",
}
"""(class, rule) → what differs where it has several thresholds over one horizon"""


def tables() -> dict[str, str]:
    """Name of a mark in the page → the table that belongs there."""
    return {"rules": rules(), "guesses": guesses(), "profile": profile(), "facts": facts()}


def rules() -> str:
    """Every rule of the default bundle: its threshold, and what benign flows show."""
    bundle = read(find("default"))
    entry = next(entry for entry in bundle.manifest.detectors if entry.kind == "counters")
    content = json.loads(bundle.file(entry.document["file"]))
    detectors = with_thresholds(DETECTORS, content["thresholds"])
    lines = [
        "| class | rule | what is counted, and from how many on | benign | why |",
        "|---|---|---|---|---|",
    ]
    for detector in detectors:
        for name in dict.fromkeys(rule.name for rule in detector.rules):
            same = [rule for rule in detector.rules if rule.name == name]
            lines.append(_rule_row(detector.label, name, same, content["baselines"]))
    return "\n".join(lines)


def guesses() -> str:
    """Login services: ports, and how large a session may be that is a guess."""
    lines = ["| service | ports | at most sent, received |", "|---|---|---|"]
    for name, guess in GUESSES.items():
        ports = ", ".join(str(port) for port in guess.ports)
        recognised = f", or where the sensor says `{guess.recognised}`" if guess.recognised else ""
        sizes = f"{guess.most_up:,} B, {guess.most_down:,} B"
        lines.append(f"| {name} | {ports}{recognised} | {sizes} |")
    return "\n".join(lines)


def profile() -> str:
    """Every column that the models of contacts see."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {unit} | {meaning} |" for name, unit, meaning in COLUMNS]
    return "\n".join(lines)


def facts() -> str:
    """Every column of the Flow frame that another log fills."""
    lines = ["| column | meaning |", "|---|---|"]
    lines += [f"| `{column.name}` | {column.text} |" for column in FACT_COLUMNS]
    return "\n".join(lines)


def _rule_row(
    label: str, name: str, same: Sequence[Rule], baselines: Mapping[str, Sequence[float]]
) -> str:
    """The rules of one name: they differ in what they count or over how long."""
    words: dict[str, list[str]] = {}
    horizons: list[int] = []
    for rule in same:
        text, unit = _counted(rule)
        span = f" in {SPANS[rule.horizon_s]}" if rule.horizon_s else ""
        again = AGAIN.get((label, name), "") if rule.horizon_s in horizons else ""
        horizons.append(rule.horizon_s)
        words.setdefault(f"{text}{again}", []).append(f"{amount(rule.threshold, unit)}{span}")
    counted = "; ".join(f"{text}: {', '.join(numbers)}" for text, numbers in words.items())
    subject = " (of the victim)" if same[0].subject == TARGET else ""
    seen = [baselines[rule.column][MAXIMUM] for rule in same if rule.column in baselines]
    benign = f"≤ {amount(max(seen), _counted(same[0])[1])}" if seen else "–"
    return f"| {label} | {name}{subject} | {counted} | {benign} | {REASONS[label, name]} |"


def _counted(rule: Rule) -> tuple[str, str]:
    """What a rule's number is of, and its unit."""
    for counter in CONN_COUNTERS:
        if any(counter.column(horizon) == rule.column for horizon in counter.horizons):
            return counter.text, "B" if counter.value in BYTE_VALUES else ""
    return "packets in one flow", ""


def with_tables(page: str) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: the page has no place for one of them.
    """
    for name, table in tables().items():
        mark = f"<!-- {name}: python -m tests.support.detection_page -->\n"
        before, has_mark, rest = page.partition(mark)
        _, has_end, after = rest.partition(f"<!-- end of {name} -->")
        if not (has_mark and has_end):
            raise ValueError(f"docs/detection.md has no place for the table {name!r}")
        page = f"{before}{mark}{table}\n<!-- end of {name} -->{after}"
    return page


def main() -> None:
    """Writes the page."""
    PAGE.write_text(with_tables(PAGE.read_text()))


if __name__ == "__main__":
    main()
