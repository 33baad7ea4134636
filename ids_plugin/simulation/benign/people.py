"""What people do: browsing, lasting connections, file sharing, updates, video calls."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.benign.common import fault_odds, recording_span
from ids_plugin.simulation.contacts import (
    ABORTED,
    ONGOING,
    REFUSED,
    RESET,
    UDP,
    UNANSWERED,
    Contacts,
    draw_endings,
    make_contacts,
)
from ids_plugin.simulation.draws import (
    F64,
    Bool,
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


def is_awake(rng: Generator, network: Network, times: F64) -> Bool:
    """Which times survive the day's rhythm of people."""
    hour = (times / 3600 + network.start_hour) % 24
    return np.asarray(
        rng.random(len(times)) < 0.15 + 0.85 * np.exp(-((np.abs(hour - 15)) ** 2) / 40)
    )


def browsing(network: Network, rng: Generator) -> list[Contacts]:
    """People: sessions of pages, pages of many connections to many peers; QUIC; some fail, some
    linger.
    """
    hosts = network.of_type("workstation", "phone", "tv", "console")
    if len(hosts) == 0:
        return []
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 600, 9000, len(hosts)) / network.activity,
        np.ones(len(hosts)),
    )
    is_active = is_awake(rng, network, times)
    subject, times = subject[is_active], times[is_active]
    page, times = burst_times(rng, times, 1 + rng.geometric(0.15, len(times)), 180.0)
    subject = subject[page]
    part, times = burst_times(rng, times, rng.geometric(0.22, len(times)), 1.5)
    subject = subject[part]
    n = len(times)
    popular = public_addresses(rng, 400)
    peer = np.where(
        rng.random(n) < 0.7,
        popular[np.minimum((rng.pareto(0.8, n) * 5).astype(np.int64), 399)],
        public_addresses(rng, n),
    )
    is_quic, is_http = rng.random(n) < rng.choice([0.0, 0.15, 0.4]), rng.random(n) < 0.12
    is_lingering = rng.random(n) < 0.06
    span = np.where(is_lingering, log_uniform(rng, 60, 3600, n), log_uniform(rng, 0.05, 90, n))
    return [
        make_contacts(
            rng,
            "browsing",
            times,
            hosts[subject],
            peer,
            np.where(is_http & ~is_quic, 80, 443),
            proto=np.where(is_quic, UDP, 0),
            service=np.where(is_quic, "quic", np.where(is_http, "http", "ssl")),
            orig_bytes=log_uniform(rng, 300, 12000, n),
            resp_bytes=log_uniform(rng, 300, 2e6, n),
            duration=span,
            data_packets=np.where(is_lingering, 1 + span / 45, 0),
            ending=draw_endings(
                rng,
                n,
                fault_odds(network)
                | {UNANSWERED: 0.02 * network.fault_factor, ABORTED: 0.14, RESET: 0.06},
            ),
        )
    ]


def lasting_connections(network: Network, rng: Generator) -> list[Contacts]:
    """Connections that last for hours with keep-alives: push services, VPN, remote desktops,
    shells, chat.
    """
    hosts = network.of_type("workstation", "phone", "server", "hub", "tv", "console", "nas")
    hosts = hosts[rng.random(len(hosts)) < 0.5]
    port_and_proto = np.array(
        [
            [5223, 0],
            [5228, 0],
            [443, 0],
            [51820, 1],
            [1194, 1],
            [22, 0],
            [3389, 0],
            [6697, 0],
            [6667, 0],
            [8443, 0],
        ]
    )
    names = np.array(["ssl", "ssl", "ssl", "", "", "ssh", "rdp", "ssl", "irc", "ssl"])
    kind = rng.choice(10, len(hosts), p=[0.2, 0.2, 0.2, 0.08, 0.04, 0.1, 0.06, 0.04, 0.03, 0.05])
    peer_to_peer = public_addresses(rng, len(hosts))
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 900, 28800, len(hosts)),
        np.full(len(hosts), 0.7),
    )
    n, service = len(subject), kind[subject]
    life = np.minimum(log_uniform(rng, 60, 28800, n), network.seconds)
    messages = 1 + life / log_uniform(rng, 10, 600, len(hosts))[subject]
    return [
        make_contacts(
            rng,
            "lasting_connection",
            times,
            hosts[subject],
            peer_to_peer[subject],
            port_and_proto[service, 0],
            proto=port_and_proto[service, 1],
            service=names[service],
            duration=life,
            data_packets=messages,
            orig_bytes=messages * rng.integers(30, 400, n),
            resp_bytes=messages * rng.integers(30, 900, n),
            ending=draw_endings(rng, n, fault_odds(network) | {ONGOING: 0.2, RESET: 0.15}),
        )
    ]


def peer_to_peer(network: Network, rng: Generator) -> list[Contacts]:
    """Games and file sharing: many peers on odd ports, many of them gone."""
    hosts = network.of_type("workstation", "console")
    hosts = hosts[rng.random(len(hosts)) < 0.12]
    batches = []
    for host in hosts[:3]:
        begin = rng.uniform(0, network.seconds * 0.8)
        _, times = periodic_times(
            rng,
            np.array([begin]),
            np.array([min(network.seconds, begin + log_uniform_value(rng, 300, 10800))]),
            np.full(1, log_uniform_value(rng, 0.5, 20)),
            np.ones(1),
        )
        n = len(times)
        swarm = public_addresses(rng, int(log_uniform_integers(rng, 30, 1500, 1)[0]))
        peer = rng.integers(0, len(swarm), n)
        udp = rng.random(n) < rng.uniform(0.4, 0.95)
        ending = np.where(
            udp,
            draw_endings(rng, n, {UNANSWERED: 0.4}),
            draw_endings(rng, n, {UNANSWERED: 0.4, REFUSED: 0.1, RESET: 0.1, ABORTED: 0.1}),
        )
        size = np.where(
            rng.random(n) < 0.1, log_uniform(rng, 1e4, 1e7, n), log_uniform(rng, 60, 2000, n)
        )
        port = 1024 + spread_bits(swarm, 11)[peer] % 60000
        is_inbound = udp & (rng.random(n) < 0.3)
        local_port = int(rng.integers(10000, 60000))
        batches.append(
            make_contacts(
                rng,
                "peer_to_peer",
                times,
                np.where(is_inbound, swarm[peer], host),
                np.where(is_inbound, host, swarm[peer]),
                np.where(is_inbound, local_port, port),
                proto=np.where(udp, UDP, 0),
                orig_port=np.where(
                    is_inbound, port, np.where(udp, local_port, rng.integers(32768, 61000, n))
                ),
                orig_bytes=size * rng.uniform(0.2, 1, n),
                resp_bytes=size,
                duration=log_uniform(rng, 0.1, 120, n),
                ending=ending,
            )
        )
    return batches


def updates(network: Network, rng: Generator) -> list[Contacts]:
    """Software updates and media: few large downloads from well-connected peers."""
    hosts = network.hosts
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 3600, 86400, len(hosts)),
        np.ones(len(hosts)),
    )
    part, times = burst_times(rng, times, rng.geometric(0.3, len(times)), 20.0)
    subject, n = subject[part], len(times)
    servers, size = public_addresses(rng, 12), log_uniform(rng, 1e5, 8e8, len(times))
    return [
        make_contacts(
            rng,
            "update",
            times,
            hosts[subject],
            servers[rng.integers(0, 12, n)],
            rng.choice([80, 443], n),
            service="http",
            orig_bytes=rng.integers(200, 2000, n),
            resp_bytes=size,
            duration=size / log_uniform(rng, 3e5, 3e7, n),
            ending=draw_endings(rng, n, fault_odds(network)),
        )
    ]


def video_calls(network: Network, rng: Generator) -> list[Contacts]:
    """Video calls: many datagrams both ways for minutes to hours, a few streams at once."""
    hosts = network.of_type("workstation", "phone", "tv")
    subject, times = periodic_times(
        rng,
        *recording_span(network, len(hosts)),
        log_uniform(rng, 7200, 86400, len(hosts)),
        np.ones(len(hosts)),
    )
    is_active = is_awake(rng, network, times)
    stream, times = burst_times(
        rng, times[is_active], rng.integers(1, 4, int(is_active.sum())), 2.0
    )
    subject, n = subject[is_active][stream], len(times)
    life = log_uniform(rng, 30, 5400, n)
    rate, port = (
        log_uniform(rng, 4e3, 4e5, n),
        np.array([3478, 8801, 10000, 19305])[rng.integers(0, 4, n)],
    )
    return [
        make_contacts(
            rng,
            "meeting",
            times,
            hosts[subject],
            public_addresses(rng, n),
            port,
            proto=UDP,
            orig_bytes=life * rate,
            resp_bytes=life * rate * rng.uniform(0.2, 5, n),
            data_packets=life * 40,
            duration=life,
        )
    ]
