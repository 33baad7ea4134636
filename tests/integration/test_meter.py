"""The capture reader against what a real Zeek logged for the same captures."""

from __future__ import annotations

from tests.bench.meter import cases, compare, summary
from tests.support.shared_data import shared


def test_agrees_with_a_real_zeek() -> None:
    shared("zeek-8.0.8")
    total = summary([compare(*case) for case in cases()])
    assert total["matched_share"] == 1
    assert total["equal_share"] >= 0.9999
    assert {name for name, count in total["unequal"].items() if count} <= {"service"}
