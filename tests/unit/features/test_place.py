"""Where it went: inside, outside, groups, plumbing, doors that ask for a password."""

from __future__ import annotations

import pytest

from tests.unit.features.factory import of

FLAGS = ("orig_local", "resp_local", "outbound", "to_group", "infrastructure", "login_service")


def flags(**columns: object) -> set[str]:
    found = of(**columns)
    assert {found[name] for name in FLAGS} <= {0.0, 1.0}
    return {name for name in FLAGS if found[name]}


def test_inside_and_outside() -> None:
    assert flags() == {"orig_local", "outbound"}
    assert flags(local_resp=True) == {"orig_local", "resp_local"}
    assert flags(local_orig=False, local_resp=True) == {"resp_local"}
    assert flags(local_orig=None, local_resp=None) == set()


@pytest.mark.parametrize("group", ["224.0.0.251", "239.1.2.3", "255.255.255.255", "ff02::1:2"])
def test_groups_are_not_outside(group: str) -> None:
    assert flags(resp_h=group, proto="udp", resp_p=5000) == {"orig_local", "to_group"}


@pytest.mark.parametrize(
    ("proto", "port", "wanted"),
    [
        ("udp", 53, {"infrastructure"}),
        ("tcp", 53, {"infrastructure"}),
        ("udp", 123, {"infrastructure"}),
        ("icmp", 53, set()),
        ("tcp", 22, {"login_service"}),
        ("tcp", 2323, {"login_service"}),
        ("tcp", 1883, {"login_service"}),
        ("udp", 22, set()),
        ("tcp", 443, set()),
        ("tcp", None, set()),
    ],
)
def test_ports_only_choose_flags(proto: str, port: int | None, wanted: set[str]) -> None:
    assert flags(proto=proto, resp_p=port) - {"orig_local", "outbound"} == wanted
