"""Brute force, worms, and data that leaves the network."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.attacks.common import attack_times, draw_attacker
from ids_plugin.simulation.contacts import (
    ABORTED,
    DONE,
    ICMP,
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
    Generator,
    burst_times,
    log_uniform_integers,
    log_uniform_value,
    public_addresses,
)
from ids_plugin.simulation.networks import Network

LOGIN_SERVICES = (
    (22, "ssh"),
    (23, ""),
    (2323, ""),
    (21, "ftp"),
    (1883, "mqtt"),
    (3389, "rdp"),
    (80, "http"),
    (8080, "http"),
    (445, "smb"),
    (5900, ""),
    (3306, "mysql"),
)


def brute_force(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """One or few services, many similar tries: ssh, telnet, ftp, mqtt, rdp, http and others; slow
    to fast.
    """
    attacker, min_tries, min_rate = draw_attacker(rng, host)
    port, service = LOGIN_SERVICES[rng.integers(0, len(LOGIN_SERVICES))]
    inside = attacker != host or rng.random() < 0.75
    targets = (
        rng.choice(network.hosts, min(len(network.hosts), int(rng.integers(1, 4))), replace=False)
        if inside
        else public_addresses(rng, int(rng.integers(1, 3)))
    )
    times = attack_times(
        rng,
        int(log_uniform_integers(rng, min_tries / 2, 4000, 1)[0]),
        begin,
        end,
        max(min_rate, log_uniform_value(rng, 0.1, 50)),
    )
    n = len(times)
    up, down, size_spread = (
        log_uniform_value(rng, *network.ranges.size),
        log_uniform_value(rng, *network.ranges.size),
        float(rng.choice([0.01, 0.05, 0.2])),
    )
    odds = {
        RESET: log_uniform_value(rng, 0.005, 0.5),
        ABORTED: log_uniform_value(rng, 0.005, 0.3),
        REFUSED: log_uniform_value(rng, 0.001, 0.1),
        UNANSWERED: log_uniform_value(rng, 0.001, 0.06),
    }
    tries = int(rng.choice([1, 1, 3, 6]))
    return [
        make_contacts(
            rng,
            f"{service or 'telnet'}_logins",
            times,
            attacker,
            targets[rng.integers(0, len(targets), n)],
            port,
            service=service,
            ending=draw_endings(rng, n, odds),
            orig_bytes=tries * up * np.exp(size_spread * rng.standard_normal(n)),
            resp_bytes=tries * down * np.exp(size_spread * rng.standard_normal(n)),
            duration=log_uniform_value(rng, 0.05, 40) * rng.uniform(0.7, 1.3, n),
            data_packets=int(rng.integers(0, 8)) * tries,
            label="brute_force",
        )
    ]


def exfiltration(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """Data that leaves: in one piece, in several, or as a trickle; over TLS, FTP, ssh, plain
    TCP.
    """
    style = int(rng.integers(0, 3))
    n = (
        int(rng.integers(1, 3)),
        int(rng.integers(3, 40)),
        int(log_uniform_integers(rng, 30, 800, 1)[0]),
    )[style]
    size = (
        log_uniform_value(rng, 3e6, 3e9),
        log_uniform_value(rng, 1e6, 5e7),
        log_uniform_value(rng, 3e3, 5e5),
    )[style]
    times = (
        np.sort(rng.uniform(begin, end, n))
        if style != 2
        else begin + np.arange(n) * ((end - begin) / n) * rng.uniform(0.9, 1.0, n)
    )
    port, service = (
        (443, "ssl"),
        (21, "ftp"),
        (22, "ssh"),
        (80, "http"),
        (int(rng.integers(1024, 65535)), ""),
    )[rng.integers(0, 5)]
    up = size * rng.lognormal(0, float(rng.choice([0.02, 0.3, 1.0])), n)
    peer_to_peer = public_addresses(rng, int(rng.integers(1, 3)))
    return [
        make_contacts(
            rng,
            ("upload", "uploads", "trickle")[style],
            times,
            host,
            peer_to_peer[rng.integers(0, len(peer_to_peer), n)],
            port,
            service=service,
            orig_bytes=up,
            resp_bytes=200 + up * log_uniform_value(rng, 1e-4, 0.02),
            duration=np.minimum(
                up / log_uniform_value(rng, 2e4, 2e7) + 0.2, 14400 * rng.uniform(0.5, 1, n)
            ),
            ending=draw_endings(rng, n, {ABORTED: 0.08, RESET: 0.08, ONGOING: 0.02}),
            label="exfiltration",
        )
    ]


def covert_tunnel(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """Data that leaves in DNS queries or ICMP echoes: many, long, to one server outside or through
    the resolver.
    """
    dns = rng.random() < 0.75
    times = attack_times(
        rng,
        int(log_uniform_integers(rng, 60, 4000, 1)[0]),
        begin,
        end,
        log_uniform_value(rng, 0.02, 30),
    )
    n = len(times)
    peer = network.resolver if dns and rng.random() < 0.6 else int(public_addresses(rng, 1)[0])
    size = rng.uniform(0.7, 1.0, n) * log_uniform_value(rng, 90, 240 if dns else 1300)
    packets = np.ones(n) if dns else log_uniform_integers(rng, 1, 200, n)
    return [
        make_contacts(
            rng,
            "dns_tunnel" if dns else "icmp_tunnel",
            times,
            host,
            peer,
            53 if dns else 0,
            proto=UDP if dns else ICMP,
            service="dns" if dns else "",
            orig_port=None if dns else 8,
            orig_bytes=size * packets,
            resp_bytes=size * packets if not dns else size + rng.integers(20, 300),
            data_packets=packets,
            ending=draw_endings(rng, n, {UNANSWERED: 0.02}),
            label="exfiltration",
        )
    ]


def worm(network: Network, rng: Generator, host: int, begin: float, end: float) -> list[Contacts]:
    """A worm: logins and exploits at many hosts, near and far, of which some let it in and fetch a
    copy.
    """
    port, service = (
        (23, ""),
        (2323, ""),
        (22, "ssh"),
        (5555, ""),
        (445, "smb"),
        (80, "http"),
        (8080, "http"),
    )[rng.integers(0, 7)]
    times = attack_times(
        rng,
        int(log_uniform_integers(rng, 40, 4000, 1)[0]),
        begin,
        end,
        log_uniform_value(rng, 0.03, 200),
    )
    inside_share = float(rng.choice([0.0, 0.5, 1.0], p=[0.35, 0.3, 0.35]))
    is_inside = rng.random(len(times)) < inside_share
    target = np.where(
        is_inside,
        np.where(
            rng.random(len(times)) < 0.6,
            rng.choice(network.hosts, len(times)),
            network.unused_addresses(rng, len(times)),
        ),
        public_addresses(rng, len(times)),
    )
    is_admitted = (rng.random(len(times)) < log_uniform_value(rng, 0.05, 0.6)) & (
        ~is_inside | np.isin(target, network.hosts)
    )
    tries = np.where(is_admitted, rng.geometric(0.35, len(times)), 1)
    attempt, login_times = burst_times(rng, times, tries, log_uniform_value(rng, 0.5, 20))
    n = len(attempt)
    refused = draw_endings(rng, n, {REFUSED: log_uniform_value(rng, 0.02, 0.4)})
    talk = draw_endings(rng, n, {RESET: 0.15, ABORTED: 0.15})
    entry = make_contacts(
        rng,
        "worm_logins",
        login_times,
        host,
        target[attempt],
        port,
        service=service,
        ending=np.where(is_admitted[attempt], talk, np.where(refused == DONE, UNANSWERED, refused)),
        orig_bytes=log_uniform_value(rng, 40, 1200) * rng.uniform(0.8, 1.3, n),
        resp_bytes=log_uniform_value(rng, 40, 1500) * rng.uniform(0.8, 1.3, n),
        duration=log_uniform_value(rng, 0.2, 30) * rng.uniform(0.6, 1.4, n),
        data_packets=0,
        label="spreading",
    )
    copying = np.flatnonzero(is_admitted & (rng.random(len(times)) < 0.3))
    source = np.where(is_inside[copying] & (rng.random() < 0.5), public_addresses(rng, 1)[0], host)
    copies = make_contacts(
        rng,
        "worm_copy",
        times[copying] + log_uniform_value(rng, 2, 60) * rng.uniform(0.5, 1.5, len(copying)),
        target[copying],
        source,
        int(rng.choice([80, 8080, 69, int(rng.integers(1024, 65535))])),
        service="http",
        orig_bytes=int(rng.integers(80, 400)) + rng.integers(0, 3, len(copying)),
        resp_bytes=log_uniform_value(rng, 2e4, 3e6),
        duration=log_uniform_value(rng, 0.2, 20) * rng.uniform(0.7, 1.5, len(copying)),
        label="spreading",
    )
    return [entry, copies]
