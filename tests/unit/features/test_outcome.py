"""How the connection went: which states fail, are refused, complete; what isn't known isn't a
failure."""

from __future__ import annotations

import pytest

from tests.unit.features.factory import of

STATES = {
    "S0": {"failed"}, "SH": {"failed"},
    "REJ": {"failed", "refused"}, "RSTOS0": {"failed", "refused"}, "RSTRH": {"failed", "refused"},
    "SHR": {"failed", "refused"},
    "SF": {"completed"}, "S1": {"completed"}, "S2": {"completed"}, "S3": {"completed"},
    "RSTO": {"completed", "reset"}, "RSTR": {"completed", "reset"},
    "OTH": set(), None: set(),
}  # fmt: skip
FLAGS = ("failed", "refused", "completed", "reset")


def flags(**columns: object) -> set[str]:
    found = of(**columns)
    assert {found[name] for name in FLAGS} <= {0.0, 1.0}
    return {name for name in FLAGS if found[name]}


@pytest.mark.parametrize("state", STATES)
def test_states_of_tcp(state: str | None) -> None:
    assert flags(conn_state=state) == STATES[state]


@pytest.mark.parametrize("proto", ["tcp", "udp", "icmp", "unknown_transport"])
def test_one_transport_at_a_time(proto: str) -> None:
    found = of(proto=proto)
    assert {name for name in ("tcp", "udp", "icmp") if found[name]} == {proto} & {
        "tcp",
        "udp",
        "icmp",
    }


def test_datagrams_nobody_answers_fail() -> None:
    assert flags(proto="udp", conn_state="S0", resp_pkts=0) == {"failed"}
    assert flags(proto="udp", conn_state="SF", resp_pkts=1) == {"completed"}
    assert flags(proto="icmp", conn_state="OTH", orig_p=8, resp_p=0, resp_pkts=0) == {"failed"}
    assert flags(proto="icmp", conn_state="OTH", orig_p=3, resp_p=1, resp_pkts=0) == set()


@pytest.mark.parametrize(
    "group", ["224.0.0.251", "239.255.255.250", "255.255.255.255", "10.0.0.255", "ff02::fb"]
)
def test_groups_need_not_answer(group: str) -> None:
    assert "failed" not in flags(proto="udp", conn_state="S0", resp_pkts=0, resp_h=group)


def test_an_answer_nobody_counted_is_no_failure() -> None:
    uncounted = {"resp_pkts": None, "resp_ip_bytes": None, "resp_bytes": None}
    assert flags(proto="udp", conn_state="SF", **uncounted) == {"completed"}
    assert flags(proto="udp", conn_state="SF", resp_pkts=None, resp_ip_bytes=80) == {"completed"}
    assert flags(proto="udp", conn_state="S0", resp_pkts=None, resp_ip_bytes=0) == {"failed"}


def test_a_connection_that_goes_on_has_not_failed() -> None:
    assert of(open=True, conn_state="S0")["still_open"] == 1
    assert flags(open=True, conn_state="S0") == set()
    assert of(open=None)["still_open"] == 0
