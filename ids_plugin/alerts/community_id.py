"""Community ID v1 of a flow: https://github.com/corelight/community-id-spec (seed 0)."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import struct

NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "icmp6": 58, "sctp": 132}
"""IP protocol numbers by the names that stand in `proto`"""

_WITH_PORTS = (6, 17, 132)
_ANSWERS = {
    1: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17},
    58: {128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135, 130: 131, 131: 130, 144: 145, 145: 144,
         139: 140, 140: 139},
}  # fmt: skip
"""ICMP protocol → type → type of the message that answers it, as Zeek pairs them"""


def number(proto: str, ip_proto: int | None, address: str) -> int | None:
    """IP protocol number of a flow; None where it isn't known."""
    if proto == "icmp" and ":" in address:
        return 58
    return NUMBERS.get(proto, ip_proto)


def community_id(
    orig_h: str, orig_p: int | None, resp_h: str, resp_p: int | None, protocol: int
) -> str:
    """The Community ID of a flow; for ICMP the ports are type and code.

    Raises:
        ValueError: an address is none.
    """
    source, target = ipaddress.ip_address(orig_h).packed, ipaddress.ip_address(resp_h).packed
    ports: tuple[int, int] | None = None
    swap = source > target
    if orig_p is not None and resp_p is not None:
        answer = _ANSWERS.get(protocol, {}).get(orig_p)
        if protocol in _WITH_PORTS:
            ports = (orig_p, resp_p)
        elif protocol in _ANSWERS:
            ports = (orig_p, resp_p if answer is None else answer)
            swap = swap and answer is not None
        if (
            ports is not None
            and source == target
            and (answer is not None or protocol in _WITH_PORTS)
        ):
            swap = ports[0] > ports[1]
    if swap:
        source, target = target, source
        ports = None if ports is None else (ports[1], ports[0])
    data = struct.pack("!H", 0) + source + target + struct.pack("!BB", protocol, 0)
    if ports is not None:
        data += struct.pack("!HH", *ports)
    return "1:" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
