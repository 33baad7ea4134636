"""The ledger balances, adds up, and says what doesn't."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ids_plugin.errors import LedgerError
from ids_plugin.schema.ledger import Ledger, tally

BALANCED: dict[str, Any] = {
    "read": 110,
    "parsed": 100,
    "rejected": {"bad_json": 7, "cut_off": 3},
    "duplicate": 2,
    "replaced": 3,
    "out_of_scope": {"dns.log": 5},
    "scored": 90,
    "delayed": 4,
    "over_threshold": 20,
    "opened": 2,
    "folded": 12,
    "suppressed": {"port 22": 6},
    "documents": 4,
    "delivered": 2,
    "refused": {"mapper_parsing": 1},
    "pending": 1,
}


def ledger(**changes: Any) -> Ledger:
    whole = Ledger()
    counts = whole.of("zeek", "gateway")
    for name, value in (BALANCED | changes).items():
        setattr(counts, name, value)
    return whole


def test_a_balanced_ledger_passes() -> None:
    ledger().check()
    Ledger().check()


@pytest.mark.parametrize(
    ("name", "value", "equation"),
    [
        ("read", 111, "111 read are not 100 parsed + 10 rejected"),
        ("scored", 89, "100 parsed are not 89 scored + 2 duplicate + 3 replaced + 5 out_of_scope"),
        ("suppressed", {}, "20 over_threshold are not 2 opened + 12 folded + 0 suppressed"),
        ("pending", 0, "4 documents are not 2 delivered + 1 refused + 0 pending"),
    ],
)
def test_a_ledger_that_fails_names_the_equation_and_where(
    name: str, value: Any, equation: str
) -> None:
    broken = ledger(**{name: value})
    with pytest.raises(LedgerError, match="balance") as caught:
        broken.check()
    assert f"zeek of sensor gateway: {equation}" in str(caught.value)
    assert broken.to_dict()["balanced"] is False


def test_counts_that_only_balance_because_one_is_negative_fail() -> None:
    assert ledger(
        delivered=4, refused={}, pending=0, folded=21, suppressed={"x": -3}
    ).problems() == ["zeek of sensor gateway: negative: suppressed"]


def test_what_one_sensor_lacks_another_cannot_lend() -> None:
    both = ledger(scored=89)
    for name, value in (BALANCED | {"scored": 91}).items():
        setattr(both.of("zeek", "branch"), name, value)
    assert len(both.problems()) == 2


def test_stages_add_up() -> None:
    stage = {
        "read": 110,
        "parsed": 100,
        "rejected": {"bad_json": 7, "cut_off": 3},
        "out_of_scope": {"dns.log": 5},
    }
    read, scored = Ledger(), Ledger()
    for name, value in BALANCED.items():
        setattr((read if name in stage else scored).of("zeek", "gateway"), name, value)
    assert read.problems()
    assert read + scored == ledger()
    assert (ledger() + ledger()).total.rejected == {"bad_json": 14, "cut_off": 6}


def test_adding_changes_neither() -> None:
    one, other = ledger(), ledger()
    one.notes["local_networks"] = ["10.0.0.0/8"]
    both = one + other
    tally(both.of("zeek", "gateway").rejected, "bad_json", 5)
    assert other == ledger()
    assert one.of("zeek", "gateway").rejected == {"bad_json": 7, "cut_off": 3}
    assert both.notes == {"local_networks": ["10.0.0.0/8"]}


def test_it_reads_what_it_writes() -> None:
    whole = ledger()
    whole.notes["x"] = 1
    written = json.loads(json.dumps(whole.to_dict()))
    assert written["balanced"] is True
    assert written["sources"] == [{"source": "zeek", "sensor": "gateway", **BALANCED}]
    assert written["total"] == BALANCED
    assert Ledger.from_dict(written) == whole
