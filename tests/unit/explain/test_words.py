"""Numbers as an analyst reads them, and sentences that name hosts, counts, times and the
comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ids_plugin.explain.wording import amount, natural, phrase, sentence
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Feature
from ids_plugin.windows import spec
from tests.support.factories import earlier, flow

ATTACKS = CLASSES[1:]


@pytest.mark.parametrize(
    ("unit", "value", "wanted"),
    [
        ("log flows", math.log1p(412), 412),
        ("log flows", math.log1p(2.5), 2.5),
        ("log B", math.log1p(1_234_567), 1_234_567),
        ("ratio", 0.12345, 0.123),
        ("0/1", 1.0, 1),
        ("log s", math.nan, None),
        ("0-1", math.nan, None),
    ],
)
def test_numbers_leave_the_log_scale(unit: str, value: float, wanted: float | None) -> None:
    assert natural(Feature("any", unit, "any"), value) == wanted


def test_what_a_model_saw_in_float32_is_a_whole_number_again() -> None:
    for count in (1, 2, 7, 9, 10, 84, 1000, 65_535):
        assert (
            natural(Feature("any", "log flows", "any"), float(np.log1p(np.float32(count)))) == count
        )


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (None, "log B", "unknown"),
        (1, "0/1", "yes"),
        (0, "0/1", "no"),
        (0.256, "0-1", "26 %"),
        (999, "log B", "999 B"),
        (1_200_000, "log B", "1.2 MB"),
        (48e9, "log B", "48 GB"),
        (0, "log B", "0 B"),
        (0.5, "log s", "0.5 s"),
        (90, "log s", "1.5 min"),
        (7200, "log s", "2 h"),
        (172_800, "log s", "2 d"),
        (500, "log ms", "0.5 s"),
        (65_535, "log flows", "65,535"),
        (2, "log flows", "2"),
        (2.54, "log flows", "2.5"),
    ],
)
def test_amounts_carry_their_unit(value: float | None, unit: str, wanted: str) -> None:
    assert amount(value, unit) == wanted


def test_a_phrase_compares_what_was_seen_with_what_is_usual() -> None:
    feature = Feature("failed", "log flows", "failed flows in 10 min")
    assert phrase(feature, 412, 2) == "failed flows in 10 min: 412, usually 2"
    assert phrase(feature, 412, None) == "failed flows in 10 min: 412"
    assert phrase(feature, None, 2) == "failed flows in 10 min: unknown, usually 2"


@pytest.mark.parametrize("label", ATTACKS)
def test_a_sentence_names_both_hosts_a_count_a_time_and_the_comparison(label: str) -> None:
    row = flow(0, "10.0.0.66", "10.0.0.2", resp_p=22)
    values: dict[str, float | None] = {feature.name: 345.0 for feature in spec().table}
    usual: dict[str, float | None] = {feature.name: 3.0 for feature in spec().table}
    said = sentence(label, earlier(row, 0), values, usual)
    assert "10.0.0.66" in said
    assert "10.0.0.2" in said
    assert "345" in said
    assert " in 10 min" in said or " in 1 h" in said or " in 1 min" in said
    assert said.endswith(".")
    assert "\n" not in said
    if label != "inbound_noise":  # strangers knock everywhere: nothing to compare with
        assert "normal traffic" in said
        assert " 3" in said


@pytest.mark.parametrize("label", ATTACKS)
def test_a_sentence_stands_where_little_is_known(label: str) -> None:
    row = flow(0, "2001:db8::66", "2001:db8::2", resp_p=None, orig_p=None, proto="icmp")
    said = sentence(label, earlier(row, 0), {}, {})
    assert "2001:db8::66" in said
    assert "None" not in said
    assert "nan" not in said


def test_vertical_and_horizontal_scans_are_told_apart() -> None:
    seen = earlier(flow(0, "10.0.0.66", "10.0.0.2", resp_p=22), 0)
    vertical = {"pair_failed_ports_600s": 1000.0, "orig_acts_failed_peers_600s": 1.0}
    assert "1,000 ports of 10.0.0.2" in sentence("scan", seen, dict(vertical), {})
    horizontal = {"orig_acts_failed_peers_600s": 254.0, "orig_acts_failed_services_600s": 508.0}
    assert "508 services of 254 hosts" in sentence("scan", seen, dict(horizontal), {})
