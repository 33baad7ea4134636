"""Community IDs: those of single flows and of arrays are the same, and those of the reference."""

from __future__ import annotations

import ipaddress

import communityid
import numpy as np
import pytest

from ids_plugin.schema.community_id import community_id, community_ids
from ids_plugin.schema.icmp import ANSWER_TYPES, answer_table

ADDRESSES = (
    ("10.0.0.5", "10.0.0.9"),
    ("10.0.0.9", "10.0.0.5"),
    ("10.0.0.5", "10.0.0.5"),
    ("fe80::1", "ff02::16"),
    ("ff02::16", "fe80::1"),
)
PORTS = ((8, 0), (0, 8), (130, 131), (131, 130), (143, 0), (49152, 443))


@pytest.mark.parametrize("protocol", [1, 6, 17, 58, 47])
@pytest.mark.parametrize(("orig_h", "resp_h"), ADDRESSES)
def test_arrays_and_single_flows_give_the_ids_of_the_reference(
    orig_h: str, resp_h: str, protocol: int
) -> None:
    reference = communityid.CommunityID()
    for orig_p, resp_p in PORTS:
        if protocol in ANSWER_TYPES and orig_p > 255:
            continue
        single = community_id(orig_h, orig_p, resp_h, resp_p, protocol)
        ports = (None, None) if protocol == 47 else (orig_p, resp_p)
        expected = reference.calc(communityid.FlowTuple(protocol, orig_h, resp_h, *ports))
        assert single == expected
        assert single in ids_in_both_orders(orig_h, orig_p, resp_h, resp_p, protocol)


def ids_in_both_orders(
    orig_h: str, orig_p: int, resp_h: str, resp_p: int, protocol: int
) -> list[str]:
    """Ids of the arrays with one end first, and with the other end first."""
    ends = [ipaddress.ip_address(host).packed.rjust(16, b"\0") for host in (orig_h, resp_h)]
    low = np.array([list(ends[0]), list(ends[1])], np.uint8)
    answer = ANSWER_TYPES.get(protocol, {}).get(orig_p, resp_p)
    ports = np.array([[orig_p, answer], [answer, orig_p]]).astype(">u2").view(np.uint8)
    is_ipv4 = np.full(2, ":" not in orig_h)
    return community_ids(low, low[::-1], np.full(2, protocol, np.uint8), ports, is_ipv4)


def test_every_icmp_type_that_answers_is_answered() -> None:
    for answers in ANSWER_TYPES.values():
        assert all(answers[answer] == request for request, answer in answers.items())
    table = answer_table()
    assert (table[1, 130], table[1, 131], table[0, 130]) == (131, 130, -1)
