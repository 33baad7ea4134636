"""Port scans, host scans and ping sweeps, and infected devices that scan the Internet."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.attacks.common import attack_times, draw_attacker, probe_endings
from ids_plugin.simulation.contacts import (
    ABORTED,
    DONE,
    ICMP,
    PROBED,
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
    log_uniform_integers,
    log_uniform_value,
    public_addresses,
)
from ids_plugin.simulation.networks import Network


def port_scan(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """Many ports of one or few hosts, by SYN, connect or UDP."""
    attacker, min_tries, min_rate = draw_attacker(rng, host)
    count = int(log_uniform_integers(rng, min_tries, 8000, 1)[0])
    rate = max(min_rate, log_uniform_value(rng, *network.ranges.rate))
    times = attack_times(rng, count, begin, end, rate)
    n = len(times)
    targets = rng.choice(
        network.hosts, min(len(network.hosts), int(rng.integers(1, 4))), replace=False
    )
    ports = rng.permutation(65535)[:n] + 1 if rng.random() < 0.5 else np.arange(n) % 65535 + 1
    target = targets[rng.integers(0, len(targets), n)]
    style = rng.choice(["syn", "connect", "udp"], p=[0.5, 0.35, 0.15])
    if style == "udp":
        is_answered = rng.random(n) < 0.02
        return [
            make_contacts(
                rng,
                "port_scan_udp",
                times,
                attacker,
                target,
                ports,
                proto=UDP,
                ending=np.where(is_answered, DONE, UNANSWERED),
                orig_bytes=rng.integers(0, 60, n),
                resp_bytes=int(rng.integers(8, 200)),
                orig_port=int(rng.integers(1024, 65535)),
                data_packets=1,
                label="scan",
            )
        ]
    opened = PROBED if style == "syn" else int(rng.choice([ABORTED, DONE]))
    ending = probe_endings(network, target, ports, opened)
    attempts = 1 if style == "syn" and rng.random() < 0.6 else 0
    source = int(rng.integers(1024, 65535)) if style == "syn" else rng.integers(32768, 61000, n)
    return [
        make_contacts(
            rng,
            f"port_scan_{style}",
            times,
            attacker,
            target,
            ports,
            ending=ending,
            syn_option_bytes=int(rng.choice([0, 4, 4])) if style == "syn" else -1,
            attempts=attempts,
            orig_port=source,
            label="scan",
        )
    ]


def host_scan(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """Few ports of many local addresses, or a ping sweep."""
    attacker, min_tries, min_rate = draw_attacker(rng, host)
    times = attack_times(
        rng,
        int(log_uniform_integers(rng, min_tries, 4000, 1)[0]),
        begin,
        end,
        max(min_rate, log_uniform_value(rng, *network.ranges.rate)),
    )
    n = len(times)
    target = network.first_address + 1 + np.arange(n) % (network.width - 2)
    target = rng.permutation(target) if rng.random() < 0.5 else target
    if rng.random() < 0.2:
        alive = np.isin(target, network.hosts)
        return [
            make_contacts(
                rng,
                "ping_sweep",
                times,
                attacker,
                target,
                0,
                proto=ICMP,
                orig_port=8,
                orig_bytes=int(rng.choice([8, 32, 56])),
                resp_bytes=56,
                ending=np.where(alive, DONE, UNANSWERED),
                data_packets=1,
                label="scan",
            )
        ]
    ports = rng.choice(
        [22, 23, 80, 443, 445, 3389, 8080, 1883, 5555, 554, 21, 161],
        int(rng.integers(1, 6)),
        replace=False,
    )
    port = (
        ports[(np.arange(n) // max(1, network.width - 2)) % len(ports)]
        if rng.random() < 0.5
        else rng.choice(ports, n)
    )
    connect = rng.random() < 0.5
    ending = probe_endings(
        network, target, port, int(rng.choice([ABORTED, DONE])) if connect else PROBED
    )
    return [
        make_contacts(
            rng,
            "host_scan",
            times,
            attacker,
            target,
            port,
            ending=ending,
            syn_option_bytes=-1 if connect else int(rng.choice([0, 4, 20])),
            attempts=0 if connect else 1,
            label="scan",
        )
    ]


def internet_scan(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """An infected device tries random addresses of the internet on one to five ports."""
    times = attack_times(
        rng,
        int(log_uniform_integers(rng, 40, 12000, 1)[0]),
        begin,
        end,
        log_uniform_value(rng, 0.05, 2000),
    )
    n = len(times)
    ports = rng.choice(
        [23, 2323, 80, 8080, 5555, 7547, 37215, 52869, 22, 81, 9000, int(rng.integers(1, 65535))],
        int(rng.integers(1, 6)),
        replace=False,
    )
    port = np.where(rng.random(n) < 0.8, ports[0], rng.choice(ports, n))
    answered = log_uniform_value(rng, 0.002, 0.06)
    ending = draw_endings(
        rng,
        n,
        {
            REFUSED: answered,
            PROBED: answered / 2,
            RESET: answered / 4,
            UNANSWERED: 1 - 1.75 * answered,
        },
    )
    raw = rng.random() < 0.6
    fixed = int(rng.integers(1024, 65535)) if raw else rng.integers(32768, 61000, n)
    return [
        make_contacts(
            rng,
            "internet_scan",
            times,
            host,
            public_addresses(rng, n),
            port,
            ending=ending,
            syn_option_bytes=int(rng.choice([0, 4, 20])) if raw else -1,
            attempts=1 if raw else 0,
            orig_port=fixed,
            label="scan",
        )
    ]
