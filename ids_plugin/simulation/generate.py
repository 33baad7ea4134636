"""Labelled flows of simulated networks, as `ids-plugin simulate` makes them.

Hours and days of many networks at the level of flow records, which the packet lab's minutes can't
give. The same seed gives the same flows. What is simulated, from which ranges, and what this can't
be: docs/lab-simulated.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ids_plugin.simulation.attacks.campaign import campaign
from ids_plugin.simulation.attacks.inbound_noise import inbound_noise
from ids_plugin.simulation.benign.catalogue import ACTIVITIES, LOOKALIKES
from ids_plugin.simulation.benign.network_services import name_lookups
from ids_plugin.simulation.draws import log_uniform_value
from ids_plugin.simulation.flow_records import render_flows
from ids_plugin.simulation.networks import Ranges, draw_network
from ids_plugin.simulation.visibility import (
    as_sensor_sees,
    begun_before,
    with_refused_checksums,
    without_self_contacts,
)

BENIGN_FLOWS_RANGE = (2000, 15000)
"""Fewest and most benign flows of one network; a recording ends when it has as many as drawn"""


def simulate_network(
    seed: int, number: int, hours: float, ranges: Ranges, name: str
) -> pl.DataFrame:
    """Flow frame of one network, in known order. Depends on its arguments alone."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
    network = draw_network(rng, name, hours, seed % 4096 * 4096 + number % 4096, ranges)
    batches = [
        contacts for activity in (*ACTIVITIES, *LOOKALIKES) for contacts in activity(network, rng)
    ]
    sorted_times = np.sort(np.concatenate([contacts.time for contacts in batches]))
    flow_budget = int(log_uniform_value(rng, *BENIGN_FLOWS_RANGE))
    network.seconds = float(
        min(network.seconds, sorted_times[min(flow_budget, len(sorted_times) - 1)])
    )
    batches = [begun_before(contacts, network.seconds) for contacts in batches]
    if rng.random() < 0.1:
        batches = [with_refused_checksums(network, rng, contacts) for contacts in batches]
    active_hosts = np.intersect1d(
        network.hosts, np.concatenate([contacts.orig for contacts in batches])
    )
    attack_batches = campaign(network, rng, active_hosts)
    lookups = name_lookups(network, rng, [*batches, *attack_batches])
    visible = [
        without_self_contacts(contacts)
        for contacts in as_sensor_sees(
            network, rng, [*batches, *attack_batches, *lookups, *inbound_noise(network, rng)]
        )
    ]
    return render_flows(
        rng, [contacts for contacts in visible if len(contacts.time)], network.sensor
    )


def simulate_networks(
    seed: int, count: int, hours: float, ranges: Ranges, prefix: str
) -> Iterator[pl.DataFrame]:
    """Flow frames of `count` networks, each a sensor of its own."""
    for number in range(count):
        yield simulate_network(seed, number, hours, ranges, f"{prefix}-{number:03d}")
