"""What the attacks share: their type, their times, who attacks, and how probes of local addresses
end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ids_plugin.simulation.contacts import REFUSED, UNANSWERED, Contacts
from ids_plugin.simulation.draws import F64, I64, Generator, public_addresses
from ids_plugin.simulation.networks import Network

Attack = Callable[[Network, Generator, int, float, float], list[Contacts]]
"""network, draws, the infected or attacking local host, begin and end in seconds"""


def attack_times(rng: Generator, n: int, begin: float, end: float, rate: float) -> F64:
    """n times at about `rate` a second, fewer where the time is short."""
    gaps = (
        rng.exponential(1 / rate, n)
        if rng.random() < 0.5
        else np.full(n, 1 / rate) * rng.uniform(0.8, 1.2, n)
    )
    times = begin + np.cumsum(gaps)
    return times[times < end]


def draw_attacker(rng: Generator, host: int) -> tuple[int, int, float]:
    """Who attacks, with the fewest tries and the lowest rate that make it an attack.

    From inside any does. From outside, fewer than a hundred tries or slower ones are the noise
    every exposed address hears all day, and are labelled so.
    """
    if rng.random() < 0.7:
        return host, 30, 0.0
    return int(public_addresses(rng, 1)[0]), 120, 0.8


def probe_endings(network: Network, target: I64, port: I64, opened: int) -> I64:
    """How probes of local addresses end."""
    exists = np.isin(target, network.hosts) | (target == network.gateway)
    closed = REFUSED if not network.drops_silently else UNANSWERED
    return np.where(network.offers(target, port), opened, np.where(exists, closed, UNANSWERED))
