"""What is said of an alert beside what folding really does with the entry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_plugin.alerts import parse
from ids_plugin.feedback.case import Case, case, hides
from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES
from tests.support.factories import Row, alerts_of, behaviour, flow, fold, frame, scores

_CASES = {name: case(alerts_of(name)[-1]) for name in CLASSES[1:]}


def of(documents: list[Document]) -> Case:
    opened, closed = documents
    return case(closed).merged(case(opened))


def test_both_documents_of_a_fold_are_one_case() -> None:
    documents = alerts_of("brute_force")
    for order in (documents, documents[::-1]):
        found = case(order[0]).merged(case(order[1]))
        assert found.alert == documents[0]["event"]["id"]
        assert (found.count, found.closed, found.severity) == (60, True, "high")
        assert (found.peers, found.every_peer, found.ports, found.every_port) == (
            ("10.0.0.2",),
            True,
            (22,),
            True,
        )
        assert len(found.evidence) == len({one["uid"] for one in found.evidence}) >= 6


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("brute_force", 'host = "10.0.0.66"', "whole"),
        ("brute_force", 'host = "10.0.0.66"\nrole = "target"', "none"),
        ("brute_force", 'host = "10.0.0.2"\nrole = "target"\nport = 22', "whole"),
        ("brute_force", 'host = "10.0.0.66"\nport = 23', "none"),
        ("brute_force", 'host = "10.0.0.66"\nclass = "scan"', "none"),
        ("brute_force", 'host = "10.0.0.66"\nexpires = 2026-03-01', "none"),
        ("scan", 'host = "10.0.0.66"\ncidr = "10.0.0.0/8"', "part"),
        ("scan", 'host = "10.0.0.66"\nport = 22', "part"),
        ("scan", 'host = "10.0.0.66"\nport = 80', "none"),
        ("scan", 'host = "10.0.1.249"', "part"),
        ("scan", 'host = "10.0.1.249"\nrole = "actor"', "none"),
        ("flood", 'host = "10.0.0.7"\nrole = "target"', "whole"),
        ("flood", 'host = "10.0.0.8"\nrole = "target"\nclass = "flood"', "none"),
        ("flood", 'host = "203.0.113.5"\nclass = "flood"', "part"),
        ("inbound_noise", 'cidr = "192.0.2.0/24"\nclass = "inbound_noise"', "part"),
        ("other", 'host = "10.0.0.12"\nport = 0', "none"),
        ("other", 'class = "other"', "whole"),
    ],
)
def test_how_much_of_an_alert_an_entry_hides(name: str, entry: str, expected: str) -> None:
    assert hides(parse(f"[[allow]]\n{entry}", "allow.toml").entries[0], _CASES[name]) == expected


def test_flows_without_a_port_are_part_of_a_fold_too() -> None:
    rows = [flow(0, resp_p=22), flow(1, proto="icmp", orig_p=8, resp_p=0)]
    found = of(fold(frame(rows), scores(["scan"] * 2, [0.9] * 2))[0])
    assert found.ports == (22, None)
    entry = parse('[[allow]]\nhost = "10.0.0.5"\nport = 22', "allow.toml").entries[0]
    assert hides(entry, found) == "part"


@st.composite
def entries(draw: st.DrawFn) -> str:
    host = draw(
        st.sampled_from(
            [None, "10.0.0.66", "10.0.0.7", "10.0.0.31", "10.0.0.80", "10.0.1.3", "192.0.2.77"]
        )
    )
    cidr = draw(
        st.sampled_from([None, None, "10.0.0.0/16", "10.0.1.0/29", "192.0.2.0/25", "198.51.3.0/24"])
    )
    keys = {
        "host": host,
        "cidr": cidr,
        "role": draw(st.sampled_from([None, "actor", "target"])) if host or cidr else None,
        "port": draw(st.sampled_from([None, None, 22, 23, 80, 443])),
        "class": draw(st.sampled_from([None, *CLASSES[1:]])),
    }
    said = {key: value for key, value in keys.items() if value is not None} or {"port": 22}
    return "\n".join(["[[allow]]", *(f"{key} = {value!r}" for key, value in said.items())])


@given(entries(), st.sampled_from(CLASSES[1:]), st.integers(1, 60))
def test_what_is_said_is_what_folding_does(entry: str, name: str, count: int) -> None:
    rows: list[Row] = behaviour(name)[:count]
    flows, scored = frame(rows), scores([name] * len(rows), [0.9] * len(rows))
    before, _ = fold(flows, scored)
    after, ledger = fold(flows, scored, allow=parse(entry, "allow.toml"))
    said = hides(parse(entry, "allow.toml").entries[0], of(before))
    if said == "whole":
        assert after == []
    elif said == "none":
        assert after == before
    if after == before:
        assert said != "whole"
        assert ledger.total.value("suppressed") == 0


@pytest.mark.parametrize("damage", ["ids_plugin", "event", "observer"])
def test_what_is_no_alert_is_refused(damage: str) -> None:
    document = {name: value for name, value in alerts_of("scan")[0].items() if name != damage}
    with pytest.raises(ValueError, match="no alert document of ours"):
        case(document)
