"""Community ID v1 of flows: https://github.com/corelight/community-id-spec (seed 0)."""

from __future__ import annotations

import base64
import hashlib
import ipaddress

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.icmp import ANSWER_TYPES, ICMP6_PROTOCOL, ICMP_PROTOCOL

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

TCP, UDP, SCTP = 6, 17, 132
"""IP protocol numbers"""
PROTOCOL_NUMBERS = {
    "icmp": ICMP_PROTOCOL,
    "tcp": TCP,
    "udp": UDP,
    "ipv6-icmp": ICMP6_PROTOCOL,
    "icmp6": ICMP6_PROTOCOL,
    "sctp": SCTP,
}
"""IP protocol numbers by the names that stand in `proto`"""

_PROTOCOLS_WITH_PORTS = (TCP, UDP, SCTP)
_SEED = b"\x00\x00"
_IPV4_OFFSET = 12
"""bytes before the IPv4 address in an address of 16 bytes"""


def protocol_number(proto: str, ip_proto: int | None, address: str) -> int | None:
    """IP protocol number of a flow with an endpoint `address`; None where it isn't known."""
    if proto == "icmp" and ":" in address:
        return ICMP6_PROTOCOL
    return PROTOCOL_NUMBERS.get(proto, ip_proto)


def community_id(
    orig_h: str, orig_p: int | None, resp_h: str, resp_p: int | None, protocol: int
) -> str:
    """The Community ID of a flow; for ICMP the ports are type and code.

    Raises:
        ValueError: `orig_h` or `resp_h` is no address.
    """
    source, target = ipaddress.ip_address(orig_h).packed, ipaddress.ip_address(resp_h).packed
    ports, may_swap = _ports(orig_p, resp_p, protocol)
    swap = source > target and (ports is None or may_swap)
    if ports is not None and may_swap and source == target:
        swap = ports[0] > ports[1]
    if swap:
        source, target = target, source
        ports = None if ports is None else (ports[1], ports[0])
    packed = b"" if ports is None else np.array(ports, ">u2").tobytes()
    return _encoded(_SEED + source + target + bytes((protocol, 0)) + packed)


def community_ids(
    low: Bytes, high: Bytes, protocol: Bytes, ports: Bytes, is_ipv4: Bools
) -> list[str]:
    """(n) Community IDs of flows whose ends are in the order that the specification asks for.

    Args:
        low: (n, 16) addresses of the first end; IPv4 addresses in the last 4 bytes.
        high: (n, 16) addresses of the second end.
        protocol: (n) IP protocol numbers.
        ports: (n, 4) both ports, big-endian, in the order of the ends; for ICMP type and
            counterpart. They count where the protocol has ports.
        is_ipv4: (n) the addresses are IPv4.
    """
    seed = np.broadcast_to(np.frombuffer(_SEED, np.uint8), (len(low), len(_SEED)))
    middle = np.stack([protocol, np.zeros_like(protocol)], axis=1)
    has_ports = np.isin(protocol, (*_PROTOCOLS_WITH_PORTS, *ANSWER_TYPES))
    ids = np.full(len(low), "", dtype=object)
    for is_short in (True, False):
        begin = _IPV4_OFFSET if is_short else 0
        packed = np.concatenate([seed, low[:, begin:], high[:, begin:], middle, ports], axis=1)
        for with_ports in (True, False):
            width = packed.shape[1] if with_ports else packed.shape[1] - ports.shape[1]
            rows = np.flatnonzero((is_ipv4 == is_short) & (has_ports == with_ports))
            text = packed[rows, :width].tobytes()
            parts = (text[start : start + width] for start in range(0, len(text), width))
            ids[rows] = [_encoded(part) for part in parts]
    return ids.tolist()


def _ports(
    orig_p: int | None, resp_p: int | None, protocol: int
) -> tuple[tuple[int, int] | None, bool]:
    """The ports that enter the id, None where none do; and whether the two ends may be swapped
    with them: not in ICMP messages that have no counterpart."""
    if orig_p is None or resp_p is None:
        return None, True
    if protocol in _PROTOCOLS_WITH_PORTS:
        return (orig_p, resp_p), True
    if protocol not in ANSWER_TYPES:
        return None, True
    answer = ANSWER_TYPES[protocol].get(orig_p)
    return (orig_p, resp_p if answer is None else answer), answer is not None


def _encoded(data: bytes) -> str:
    """Version and digest of what the specification puts in a row."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()
