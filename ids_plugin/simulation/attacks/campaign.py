"""Which attacks a network suffers, when, and from which host."""

from __future__ import annotations

from ids_plugin.simulation.attacks.common import Attack
from ids_plugin.simulation.attacks.control import beacon, dead_controller, lasting_control
from ids_plugin.simulation.attacks.floods import connection_flood, packet_flood
from ids_plugin.simulation.attacks.intrusion import brute_force, covert_tunnel, exfiltration, worm
from ids_plugin.simulation.attacks.scans import host_scan, internet_scan, port_scan
from ids_plugin.simulation.contacts import Contacts
from ids_plugin.simulation.draws import I64, Generator, log_uniform_value
from ids_plugin.simulation.networks import Network

ATTACKS: dict[str, tuple[Attack, ...]] = {
    "scan": (port_scan, host_scan, internet_scan),
    "brute_force": (brute_force,),
    "flood": (connection_flood, packet_flood),
    "command_and_control": (beacon, beacon, lasting_control, dead_controller),
    "exfiltration": (exfiltration, covert_tunnel),
    "spreading": (worm,),
}

STAGES = ("scan", "brute_force", "spreading", "command_and_control", "flood", "exfiltration")
"""The order in which the stages of one infection follow each other, where several do"""

STAGE_ODDS = (0.2, 0.17, 0.13, 0.26, 0.13, 0.11)


def campaign(network: Network, rng: Generator, active: I64) -> list[Contacts]:
    """All attacks of a network, in one stretch of at most half of its time (controllers may be kept
    until its end); none in three networks of ten. Who attacks from inside or is infected is one of
    `active`."""
    if rng.random() < 0.3:
        return []
    begin = 0.0 if rng.random() < 0.2 else rng.uniform(0, 0.5) * network.seconds
    end = begin + rng.uniform(0.2, 0.5) * network.seconds
    last = network.seconds if rng.random() < 0.4 else end
    batches: list[Contacts] = []
    chained = rng.random() < 0.4
    names = [
        str(c) for c in rng.choice(STAGES, int(rng.integers(*network.ranges.attacks)), p=STAGE_ODDS)
    ]
    names = sorted(names, key=STAGES.index) if chained else names
    host = int(rng.choice(active))
    for i, name in enumerate(names):
        options = ATTACKS[name]
        attack = options[rng.integers(0, len(options))]
        start = begin + (end - begin) * (i / len(names) if chained else rng.uniform(0, 0.6))
        until = (
            last
            if name == "command_and_control"
            else min(end, start + log_uniform_value(rng, 60, 14400))
        )
        batches += attack(network, rng, host if chained else int(rng.choice(active)), start, until)
    return batches
