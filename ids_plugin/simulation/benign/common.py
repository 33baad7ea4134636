"""What the benign activities share: their type, and how often ordinary connections fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ids_plugin.simulation.contacts import (
    ABORTED,
    HALF_CLOSED_BY_ORIG,
    HALF_CLOSED_BY_RESP,
    MIDSTREAM,
    ONGOING,
    REFUSED,
    RESET,
    SYN_RST,
    UNANSWERED,
    Contacts,
)
from ids_plugin.simulation.draws import F64, Generator
from ids_plugin.simulation.networks import Network

Activity = Callable[[Network, Generator], list[Contacts]]

FAULT_SHARES = {
    UNANSWERED: 0.02,
    REFUSED: 0.008,
    ABORTED: 0.06,
    RESET: 0.03,
    ONGOING: 0.01,
    HALF_CLOSED_BY_ORIG: 0.006,
    HALF_CLOSED_BY_RESP: 0.006,
    MIDSTREAM: 0.004,
    SYN_RST: 0.002,
}
"""How ordinary connections end when not well"""


def fault_odds(network: Network) -> dict[int, float]:
    """How often ordinary connections end so, in this network."""
    return {ending: share * network.fault_factor for ending, share in FAULT_SHARES.items()}


def recording_span(network: Network, n: int) -> tuple[F64, F64]:
    """Begin and end of the recording, for n subjects."""
    return np.zeros(n), np.full(n, network.seconds)
