"""ICMP messages that answer each other, as Zeek and the Community ID specification pair them.

Zeek writes an ICMP flow's message type as the originator's port. The responder's port is the type
that answers it; where no type does, it is the message's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

ICMP_PROTOCOL, ICMP6_PROTOCOL = 1, 58
"""IP protocol numbers"""

_ICMP_PAIRS = ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18))
"""echo, timestamp, information, router solicitation, address mask"""
_ICMP6_PAIRS = ((128, 129), (133, 134), (135, 136), (130, 131), (144, 145), (139, 140))
"""echo, router and neighbour solicitation, multicast listener, home agent, node information"""


def _both_ways(pairs: tuple[tuple[int, int], ...]) -> Mapping[int, int]:
    answers = dict(pairs) | {answer: request for request, answer in pairs}
    return MappingProxyType(answers)


ANSWER_TYPES: Mapping[int, Mapping[int, int]] = MappingProxyType(
    {ICMP_PROTOCOL: _both_ways(_ICMP_PAIRS), ICMP6_PROTOCOL: _both_ways(_ICMP6_PAIRS)}
)
"""IP protocol number → message type → type of its counterpart"""


def answer_table() -> npt.NDArray[np.int64]:
    """(2, 256) type of the counterpart of each message type, -1 where there is none; row 0 is
    ICMP, row 1 is ICMPv6."""
    table = np.full((2, 256), -1, dtype=np.int64)
    for row, protocol in enumerate((ICMP_PROTOCOL, ICMP6_PROTOCOL)):
        answers = ANSWER_TYPES[protocol]
        table[row, list(answers)] = list(answers.values())
    return table
