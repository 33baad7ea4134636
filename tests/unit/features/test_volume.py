"""How much went each way: known numbers, and null where the source can't know."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from ids_plugin.features import volume
from tests.unit.features.factory import of

NAMES = [feature.name for feature in volume.PLUGIN.features]
COLUMNS = ("orig_bytes", "resp_bytes", "orig_pkts", "resp_pkts", "orig_ip_bytes", "resp_ip_bytes")


def test_known_numbers() -> None:
    found = of()
    wanted = {
        "orig_payload": math.log1p(300),
        "resp_payload": math.log1p(1200),
        "orig_volume": math.log1p(612),
        "resp_volume": math.log1p(1460),
        "orig_packets": math.log1p(6),
        "resp_packets": math.log1p(5),
        "lasted": math.log1p(500),
        "orig_bytes_per_packet": math.log1p(102),
        "resp_bytes_per_packet": math.log1p(292),
        "upload_share": 612 / 2072,
        "packet_rate": math.log1p(11 / 0.51),
    }
    assert {name: found[name] for name in NAMES} == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("column", "unknown"),
    [
        ("orig_bytes", {"orig_payload"}),
        ("resp_bytes", {"resp_payload"}),
        ("orig_pkts", {"orig_packets", "orig_bytes_per_packet", "packet_rate"}),
        ("resp_pkts", {"resp_packets", "resp_bytes_per_packet", "packet_rate"}),
        ("orig_ip_bytes", {"orig_volume", "orig_bytes_per_packet", "upload_share"}),
        ("resp_ip_bytes", {"resp_volume", "resp_bytes_per_packet", "upload_share"}),
    ],
)
def test_what_a_source_cannot_know_is_null_and_nothing_else(column: str, unknown: set[str]) -> None:
    found = of(**{column: None})
    assert {name for name in NAMES if found[name] is None} == unknown


def test_a_single_packet_has_no_duration_and_no_rate() -> None:
    found = of(duration=None, orig_pkts=1, resp_pkts=0, resp_ip_bytes=0)
    assert (found["lasted"], found["packet_rate"], found["resp_bytes_per_packet"]) == (0, 0, 0)
    assert found["upload_share"] == 1


def test_nothing_sent_at_all_has_no_share() -> None:
    assert of(orig_ip_bytes=0, resp_ip_bytes=0)["upload_share"] is None


def test_huge_numbers_stay_finite() -> None:
    found = of(**dict.fromkeys(COLUMNS, 2**62), duration=timedelta(days=3650))
    assert all(math.isfinite(found[name] or 0.0) for name in NAMES)
