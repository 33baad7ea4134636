"""The allow-list hides what its entries say, no more, until they expire; and says so."""

from __future__ import annotations

from typing import Any

import pytest

from ids_plugin.alerts import parse
from ids_plugin.errors import ConfigError
from ids_plugin.schema.ledger import Ledger
from tests.support.factories import flow, fold, frame, scores


def hidden(entry: str, label: str = "scan", **columns: Any) -> bool:
    """Whether one flow with these columns is hidden by one entry."""
    return ledger(entry, label, **columns).total.opened == 0


def ledger(entries: str, label: str = "scan", **columns: Any) -> Ledger:
    allow = parse(entries, "allow.toml")
    return fold(frame([flow(0, **columns)]), scores([label], [0.9]), allow=allow)[1]


@pytest.mark.parametrize(
    ("entry", "columns", "expected"),
    [
        ('host = "10.0.0.5"', {}, True),
        ('host = "10.0.0.9"', {}, True),
        ('host = "10.0.0.6"', {}, False),
        ('host = "10.0.0.5"\nrole = "actor"', {}, True),
        ('host = "10.0.0.5"\nrole = "target"', {}, False),
        ('host = "10.0.0.9"\nrole = "target"', {}, True),
        ('cidr = "10.0.0.0/29"', {}, True),
        ('cidr = "10.0.0.0/29"\nrole = "target"', {}, False),
        ('cidr = "192.0.2.0/24"', {}, False),
        ('host = "10.0.0.5"\ncidr = "10.0.0.8/29"', {}, True),
        ('host = "10.0.0.9"\ncidr = "10.0.0.0/29"', {}, True),
        ('host = "10.0.0.5"\ncidr = "10.0.0.0/29"', {}, False),
        ('host = "10.0.0.9"\ncidr = "10.0.0.0/29"\nrole = "actor"', {}, False),
        ('host = "2001:DB8:0::1"', {"orig_h": "2001:db8::1", "local_orig": True}, True),
        ('cidr = "2001:db8::/32"', {"resp_h": "2001:db8::7"}, True),
        ('cidr = "0.0.0.0/0"', {"orig_h": "2001:db8::1", "resp_h": "2001:db8::7"}, False),
        ("port = 443", {}, True),
        ("port = 22", {}, False),
        ("port = 3", {"proto": "icmp", "orig_p": 3, "resp_p": 3}, False),
        ("port = 443", {"resp_p": None}, False),
        ('class = "scan"', {}, True),
        ('class = "flood"', {}, False),
        ('class = "inbound_noise"', {"orig_h": "8.8.8.8"}, True),
        ('host = "10.0.0.5"\nport = 22', {}, False),
    ],
)
def test_all_that_an_entry_says_must_fit(
    entry: str, columns: dict[str, Any], expected: bool
) -> None:
    assert hidden(f"[[allow]]\n{entry}", **columns) is expected


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("2026-03-02", True),
        ("2026-03-01", False),
        ('"2026-03-02"', True),
        ("2026-03-02T09:00:00Z", False),
        ("2026-03-02T09:00:01", True),
        ('"2026-03-02T10:00:01+01:00"', True),
        ("2026-03-02T10:00:00+01:00", False),
    ],
)
def test_an_entry_expires_by_the_time_of_the_flow(expires: str, expected: bool) -> None:
    assert hidden(f'[[allow]]\nhost = "10.0.0.5"\nexpires = {expires}') is expected


def test_the_ledger_says_which_entry_hid_how_much() -> None:
    text = """
    [[allow]]
    host = "10.0.0.66"
    class = "scan"
    note = "inventory"
    [[allow]]
    port = 22
    """
    rows = (
        [flow(s, "10.0.0.66", resp_p=22) for s in range(5)]
        + [flow(s, resp_p=22) for s in range(3)]
        + [flow(9)]
    )
    documents, counts = fold(
        frame(rows), scores(["scan"] * 9, [0.9] * 9), allow=parse(text, "allow.toml")
    )
    assert counts.total.suppressed == {"host 10.0.0.66, class scan: inventory": 5, "port 22": 3}
    assert (counts.total.over_threshold, counts.total.opened, len(documents)) == (9, 1, 2)


def test_hidden_flows_are_not_in_the_totals() -> None:
    rows = [flow(0), flow(1, resp_p=22), flow(2)]
    allow = parse("[[allow]]\nport = 22", "allow.toml")
    closed = fold(frame(rows), scores(["scan"] * 3, [0.9] * 3), allow=allow)[0][-1]
    assert closed["ids_plugin"]["fold"]["count"] == 2


def test_an_empty_list_hides_nothing() -> None:
    assert parse("", "allow.toml").entries == ()
    assert not hidden("allow = []")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "allow = 3",
            "allow.toml: `allow` is no list of entries (write [[allow]] before each entry)",
        ),
        ("[[allow", "allow.toml: not TOML: "),
        ("[[alow]]\nport = 1", "allow.toml: unknown key 'alow' (did you mean allow?)"),
        (
            '[[allow]]\nhots = "10.0.0.1"',
            "allow.toml: entry 1: unknown key 'hots' (did you mean host?)",
        ),
        (
            "[[allow]]\nport = 1\n[[allow]]\nzzz = 1",
            "allow.toml: entry 2: unknown key 'zzz' (one of host, cidr, ",
        ),
        (
            '[[allow]]\nnote = "x"',
            "allow.toml: entry 1: it would hide everything (give a host, cidr, port or class)",
        ),
        (
            '[[allow]]\nport = 1\nrole = "actor"',
            "allow.toml: entry 1: role says nothing without a host or cidr",
        ),
        (
            '[[allow]]\nclass = "scann"',
            "allow.toml: entry 1: class can't be 'scann' (did you mean scan?)",
        ),
        ('[[allow]]\nclass = "benign"', "allow.toml: entry 1: class can't be 'benign'"),
        (
            '[[allow]]\nhost = "10.0.0.1"\nrole = "both"',
            "allow.toml: entry 1: role can't be 'both' (one of actor, target)",
        ),
        (
            '[[allow]]\nhost = "10.0.0.0/8"',
            "allow.toml: entry 1: host is no address: '10.0.0.0/8' (a network goes into cidr)",
        ),
        ("[[allow]]\nhost = 10", "allow.toml: entry 1: host is no text: 10"),
        (
            '[[allow]]\ncidr = "10.0.0.1/8"',
            "allow.toml: entry 1: cidr is no network: 10.0.0.1/8 has host bits set",
        ),
        (
            "[[allow]]\nport = 70000",
            "allow.toml: entry 1: port is no number from 0 to 65535: 70000",
        ),
        ("[[allow]]\nport = true", "allow.toml: entry 1: port is no number from 0 to 65535: True"),
        (
            '[[allow]]\nport = 1\nexpires = "soon"',
            "allow.toml: entry 1: expires is no date: 'soon' (write 2027-01-31)",
        ),
        (
            "[[allow]]\nport = 1\nexpires = 7",
            "allow.toml: entry 1: expires is no date: 7 (write 2027-01-31)",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "allow.toml")
    assert str(caught.value).startswith(message)
