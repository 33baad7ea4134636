"""External originators that try what is exposed: the background noise that every public address
receives.
"""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.contacts import (
    ABORTED,
    BACKSCATTER,
    DONE,
    ICMP,
    PROBED,
    REFUSED,
    RESET,
    TCP,
    UDP,
    UNANSWERED,
    Contacts,
    draw_endings,
    make_contacts,
)
from ids_plugin.simulation.draws import (
    I64,
    Generator,
    burst_times,
    log_uniform,
    log_uniform_integers,
    log_uniform_value,
    periodic_times,
    public_addresses,
    spread_bits,
)
from ids_plugin.simulation.networks import Network


def inbound_noise(network: Network, rng: Generator) -> list[Contacts]:
    """External originators that try what is exposed: one or few ports each, ssh logins, UDP probes,
    pings, stray answers.
    """
    exposed = network.hosts if network.is_public else np.array([network.gateway])
    if not network.is_public and rng.random() < 0.6:
        return []
    exposed = exposed[:16]
    busiest = 1200 if network.is_public else 250
    originator_count = int(
        min(log_uniform_integers(rng, 20, busiest, 1)[0] * max(1.0, network.seconds / 7200), 6000)
    )
    ports = rng.choice(
        [22, 23, 80, 443, 445, 3389, 8080, 5555, 2323, 3306, 6379, 1433, 8443, 5900, 21, 25],
        originator_count,
    )
    ports = np.where(
        rng.random(originator_count) < 0.4, rng.integers(1, 65536, originator_count), ports
    )
    address, start = (
        public_addresses(rng, originator_count),
        rng.uniform(0, network.seconds, originator_count),
    )
    tries = np.minimum(rng.geometric(0.4, originator_count), 12)
    sweep = rng.random(originator_count) < 0.3
    originator, times = burst_times(rng, start, tries, log_uniform_value(rng, 5, 600))
    n = len(originator)
    port = np.where(sweep[originator], rng.integers(1, 10000, n), ports[originator])
    target = rng.choice(exposed, originator_count)[originator]
    opened = network.offers(target, port)
    kind = rng.random(originator_count)[originator]
    udp, ping = kind < 0.1, (kind >= 0.1) & (kind < 0.2)
    closed = UNANSWERED if network.drops_silently else REFUSED
    tcp = np.where(
        opened,
        rng.choice([PROBED, DONE, ABORTED, RESET], n),
        np.where(rng.random(n) < 0.05, BACKSCATTER, closed),
    )
    ending = np.where(udp, UNANSWERED, np.where(ping, DONE, tcp))
    payload_bytes = np.where(
        udp,
        rng.integers(8, 200, n),
        np.where(
            ping,
            rng.choice([8, 16, 56], n),
            opened * (rng.random(n) < 0.6) * log_uniform(rng, 20, 2000, n),
        ),
    )
    probes = make_contacts(
        rng,
        "stranger",
        times,
        address[originator],
        target,
        np.where(ping, 0, np.where(udp, rng.choice([53, 123, 161, 1900, 5060, 11211], n), port)),
        proto=np.where(udp, UDP, np.where(ping, ICMP, 0)),
        orig_port=np.where(ping, 8, rng.integers(1024, 65535, n)),
        orig_bytes=payload_bytes,
        resp_bytes=np.where(udp, 0, np.where(ping, payload_bytes, payload_bytes * 2)),
        ending=ending,
        syn_option_bytes=rng.choice([0, 4, 20, -1], originator_count)[originator],
        data_packets=1,
        attempts=1,
        label="inbound_noise",
    )
    further_activities = (_persistent_originators, _ssh_login_attempts, _volleys, _surveys)
    return [
        probes,
        *(
            batches
            for activity in further_activities
            for batches in activity(network, rng, exposed)
        ),
    ]


def _volleys(network: Network, rng: Generator, exposed: I64) -> list[Contacts]:
    """Single external originators that try one service a few dozen times in a row.

    Telephony, name and time servers are among the targets. It is as fast as the beginning of a
    flood, and over before it is one.
    """
    count = int(rng.poisson(min(network.seconds / 3600, 24) * rng.choice([0.2, 1.0])))
    address, victim = public_addresses(rng, count), rng.choice(exposed, count)
    originator, times = burst_times(
        rng,
        rng.uniform(0, network.seconds, count),
        log_uniform_integers(rng, 8, 59, count),
        log_uniform_value(rng, 0.5, 40),
    )
    is_udp = (spread_bits(address, 21) % 2 == 0)[originator]
    udp_ports = np.array([5060, 53, 123, 389])[spread_bits(address, 22) % 4]
    port = np.where(is_udp, udp_ports[originator], 80 + spread_bits(address, 23)[originator] % 9000)
    opened = ~is_udp & network.offers(victim[originator], port)
    closed = np.where(is_udp | network.drops_silently, UNANSWERED, REFUSED)
    return [
        make_contacts(
            rng,
            "volley",
            times,
            address[originator],
            victim[originator],
            port,
            proto=np.where(is_udp, UDP, TCP),
            orig_bytes=np.where(is_udp, 20 + spread_bits(address, 24)[originator] % 600, 0),
            data_packets=np.where(is_udp, 1 + spread_bits(address, 25)[originator] % 4, 1),
            ending=np.where(opened, PROBED, closed),
            attempts=1,
            label="inbound_noise",
        )
    ]


def _surveys(network: Network, rng: Generator, exposed: I64) -> list[Contacts]:
    """Measuring organisations: a hundred addresses of one block, each a probe or two, within
    minutes.
    """
    count = int(rng.poisson(min(network.seconds / 7200, 12) * rng.choice([0.1, 1.0])))
    block, victim, begin = (
        public_addresses(rng, count) & ~255,
        rng.choice(exposed, count),
        rng.uniform(0, network.seconds, count),
    )
    organisation, times = burst_times(
        rng, begin, log_uniform_integers(rng, 20, 300, count), log_uniform_value(rng, 10, 400)
    )
    n, port = len(organisation), rng.integers(1, 65536, len(organisation))
    opened = network.offers(victim[organisation], port)
    ending = np.where(opened, PROBED, UNANSWERED if network.drops_silently else REFUSED)
    return [
        make_contacts(
            rng,
            "survey",
            times,
            block[organisation] + rng.integers(1, 255, n),
            victim[organisation],
            port,
            ending=ending,
            data_packets=1,
            attempts=1,
            syn_option_bytes=4,
            label="inbound_noise",
        )
    ]


def _persistent_originators(network: Network, rng: Generator, exposed: I64) -> list[Contacts]:
    """External originators that come back all day: to one closed port, or to another port each
    time.
    """
    originator_count = int(rng.integers(0, 12))
    address, keeps_port = (
        public_addresses(rng, originator_count),
        rng.random(originator_count) < 0.4,
    )
    port, target = rng.integers(1, 65536, originator_count), rng.choice(exposed, originator_count)
    originator, times = periodic_times(
        rng,
        rng.uniform(0, network.seconds * 0.3, originator_count),
        np.full(originator_count, network.seconds),
        log_uniform(rng, 15, 3600, originator_count),
        np.ones(originator_count),
    )
    n = len(originator)
    port = np.where(keeps_port[originator], port[originator], rng.integers(1, 65536, n))
    opened = network.offers(target[originator], port)
    ending = np.where(opened, PROBED, UNANSWERED if network.drops_silently else REFUSED)
    return [
        make_contacts(
            rng,
            "stubborn_stranger",
            times,
            address[originator],
            target[originator],
            port,
            ending=ending,
            data_packets=1,
            attempts=1,
            syn_option_bytes=rng.choice([0, 4, -1], originator_count)[originator],
            label="inbound_noise",
        )
    ]


def _ssh_login_attempts(network: Network, rng: Generator, exposed: I64) -> list[Contacts]:
    ssh_hosts = exposed[network.offers(exposed, np.full(len(exposed), 22))]
    if len(ssh_hosts) == 0:
        return []
    originator_count = int(log_uniform_integers(rng, 2, 40, 1)[0])
    address = public_addresses(rng, originator_count)
    begin, period = (
        rng.uniform(0, network.seconds, originator_count),
        log_uniform(rng, 4, 3600, originator_count),
    )
    until = np.minimum(
        begin + period * log_uniform_integers(rng, 2, 400, originator_count), network.seconds
    )
    originator, times = periodic_times(rng, begin, until, period, np.ones(originator_count))
    n = len(originator)
    style = spread_bits(address, 17)[originator] % 3
    return [
        make_contacts(
            rng,
            "stranger_login",
            times,
            address[originator],
            rng.choice(ssh_hosts, n),
            22,
            service="ssh",
            orig_bytes=np.array([900, 1700, 2100])[style] + rng.integers(0, 60, n),
            resp_bytes=np.array([1200, 1600, 2300])[style] + rng.integers(0, 60, n),
            duration=log_uniform(rng, 0.5, 12, n),
            ending=draw_endings(rng, n, {ABORTED: 0.15, RESET: 0.05}),
            label="inbound_noise",
        )
    ]
