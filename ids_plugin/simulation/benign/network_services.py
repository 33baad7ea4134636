"""What keeps a network running: DNS, NTP, DHCP, discovery, IPv6 neighbours, pings."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.benign.common import recording_span
from ids_plugin.simulation.contacts import (
    DONE,
    ICMP,
    UDP,
    UNANSWERED,
    V6_GROUP,
    V6_LINK,
    Contacts,
    draw_endings,
    make_contacts,
)
from ids_plugin.simulation.draws import (
    Generator,
    log_uniform,
    log_uniform_value,
    periodic_times,
    public_addresses,
    spread_bits,
)
from ids_plugin.simulation.networks import Network


def name_lookups(network: Network, rng: Generator, batches: list[Contacts]) -> list[Contacts]:
    """DNS lookups before contacts with the outside, and a share that stays unanswered."""
    some = [contacts for contacts in batches if len(contacts.time)]
    times, orig, resp = (
        np.concatenate([getattr(contacts, name) for contacts in some])
        for name in ("time", "orig", "resp")
    )
    local = network.sensor.is_local(orig)
    lookup = np.flatnonzero(
        local
        & ~network.sensor.is_local(resp)
        & (resp < V6_LINK)
        & (rng.random(len(times)) < rng.choice([0.1, 0.3, 0.6]))
    )
    if len(lookup) == 0:
        return []
    n = len(lookup)
    is_lost = rng.random(n) < rng.choice([0.002, 0.02, 0.2])
    size = 22 + spread_bits(resp[lookup], 5) % 40
    return [
        make_contacts(
            rng,
            "name_lookup",
            np.maximum(times[lookup] - rng.uniform(0.005, 0.3, n), 0),
            orig[lookup],
            network.resolver,
            53,
            proto=UDP,
            service="dns",
            ending=np.where(is_lost, UNANSWERED, DONE),
            orig_bytes=size * np.where(is_lost, 1 + rng.integers(0, 2, n), 1),
            resp_bytes=size + rng.integers(0, 300, n),
            data_packets=np.where(is_lost & (rng.random(n) < 0.5), 2, 1),
            duration=np.where(is_lost, 5.0, 0.0) * rng.uniform(0.99, 1.01, n),
        )
    ]


def time_synchronisation(network: Network, rng: Generator) -> list[Contacts]:
    """NTP: every device its servers and rhythm."""
    hosts = network.hosts[rng.random(len(network.hosts)) < 0.8]
    servers = public_addresses(rng, 4)
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        np.exp2(rng.integers(6, 12, len(hosts)).astype(np.float64)),
        rng.choice([0.0, 0.02, 0.1], len(hosts)),
    )
    n, packets = len(subject), rng.choice([1, 1, 1, 4, 6], len(hosts))[subject]
    orig_port = np.where(spread_bits(hosts, 3)[subject] % 2 == 0, 123, rng.integers(1024, 65535, n))
    return [
        make_contacts(
            rng,
            "time",
            times,
            hosts[subject],
            servers[rng.integers(0, 4, n)],
            123,
            proto=UDP,
            service="ntp",
            orig_bytes=48 * packets,
            resp_bytes=48 * packets,
            data_packets=packets,
            ending=draw_endings(rng, n, {UNANSWERED: float(rng.choice([0.005, 0.05, 0.3]))}),
            orig_port=orig_port,
            duration=(packets - 1) * 2.0,
        )
    ]


def dhcp_leases(network: Network, rng: Generator) -> list[Contacts]:
    """DHCP."""
    hosts = network.hosts
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 1800, 43200, len(hosts)),
        np.full(len(hosts), 0.05),
    )
    is_broadcast, n = rng.random(len(subject)) < 0.2, len(subject)
    return [
        make_contacts(
            rng,
            "dhcp",
            times,
            hosts[subject],
            np.where(is_broadcast, 0xFFFFFFFF, network.gateway),
            67,
            proto=UDP,
            service="dhcp",
            orig_port=68,
            orig_bytes=rng.integers(250, 400, n),
            resp_bytes=rng.integers(250, 400, n),
            ending=np.where(is_broadcast, UNANSWERED, DONE),
        )
    ]


def discovery(network: Network, rng: Generator) -> list[Contacts]:
    """mDNS, SSDP, LLMNR and NetBIOS: said to everybody, answered by nobody."""
    announcers = network.hosts[rng.random(len(network.hosts)) < 0.5]
    groups = np.array(
        [
            0xE00000FB,
            0xEFFFFFFA,
            0xE00000FC,
            V6_GROUP + 0xFB,
            network.first_address + network.width - 1,
        ]
    )
    ports = np.array([5353, 1900, 5355, 5353, 137])
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(announcers)),
        log_uniform(rng, 60, 3600, len(announcers)),
        np.full(len(announcers), 0.5),
    )
    group, n = rng.integers(0, 5, len(subject)), len(subject)
    packets = rng.integers(1, 8, n)
    return [
        make_contacts(
            rng,
            "discovery",
            times,
            np.where(group == 3, V6_LINK + (announcers[subject] & 0xFFFF), announcers[subject]),
            groups[group],
            ports[group],
            proto=UDP,
            service=np.where(ports[group] == 1900, "", "dns"),
            ending=UNANSWERED,
            orig_port=ports[group],
            data_packets=packets,
            orig_bytes=packets * rng.integers(40, 400, n),
        )
    ]


def neighbours(network: Network, rng: Generator) -> list[Contacts]:
    """IPv6 neighbour and router solicitations, multicast reports."""
    hosts = network.hosts[rng.random(len(network.hosts)) < 0.5]
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 120, 7200, len(hosts)),
        np.full(len(hosts), 0.8),
    )
    icmp_types, n = (
        np.array([[135, 136], [133, 134], [143, 0]])[rng.integers(0, 3, len(subject))],
        len(subject),
    )
    return [
        make_contacts(
            rng,
            "neighbours",
            times,
            V6_LINK + (hosts[subject] & 0xFFFF),
            V6_GROUP + rng.integers(1, 30, n),
            icmp_types[:, 1],
            proto=ICMP,
            ending=UNANSWERED,
            orig_port=icmp_types[:, 0],
            data_packets=rng.integers(1, 8, n),
            orig_bytes=rng.choice([0, 24, 72], n),
        )
    ]


def pings(network: Network, rng: Generator) -> list[Contacts]:
    """Devices that ping the gateway or something outside to see whether they are connected."""
    hosts = network.hosts[rng.random(len(network.hosts)) < 0.15]
    target = np.where(
        rng.random(len(hosts)) < 0.5, network.gateway, public_addresses(rng, len(hosts))
    )
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 30, 3600, len(hosts)),
        np.full(len(hosts), 0.05),
    )
    packets, size = (
        rng.integers(1, 6, len(hosts))[subject],
        rng.choice([8, 32, 56, 56], len(hosts))[subject],
    )
    return [
        make_contacts(
            rng,
            "ping",
            times,
            hosts[subject],
            target[subject],
            0,
            proto=ICMP,
            orig_port=8,
            orig_bytes=size * packets,
            resp_bytes=size * packets,
            data_packets=packets,
            duration=packets - 1.0,
            ending=draw_endings(rng, len(subject), {UNANSWERED: 0.05}),
        )
    ]


def resolving(network: Network, rng: Generator) -> list[Contacts]:
    """A recursive resolver asks many servers outside; a public one is asked by many."""
    batches = []
    for host in network.of_type("nameserver", "directory")[:3]:
        for inwards in (False, True):
            _, times = periodic_times(
                rng,
                np.zeros(1),
                np.full(1, network.seconds),
                np.full(1, log_uniform_value(rng, 1, 30)),
                np.ones(1),
            )
            n = len(times)
            others = public_addresses(rng, 300)[
                np.minimum((rng.pareto(0.7, n) * 4).astype(np.int64), 299)
            ]
            size = rng.integers(25, 70, n)
            batches.append(
                make_contacts(
                    rng,
                    "resolving",
                    times,
                    others if inwards else host,
                    host if inwards else others,
                    53,
                    proto=UDP,
                    service="dns",
                    orig_bytes=size,
                    resp_bytes=size + rng.integers(0, 600, n),
                    ending=draw_endings(rng, n, {UNANSWERED: 0.06}),
                )
            )
    return batches
