"""Denial of service: many flows towards one victim, or few flows with very many packets."""

from __future__ import annotations

import numpy as np

from ids_plugin.simulation.attacks.common import attack_times
from ids_plugin.simulation.contacts import (
    ABORTED,
    BAD_CHECKSUM,
    DONE,
    ICMP,
    MIDSTREAM,
    ONGOING,
    PROBED,
    REFUSED,
    RESET,
    SYN_ACK_UNANSWERED,
    UDP,
    UNANSWERED,
    Contacts,
    draw_endings,
    make_contacts,
)
from ids_plugin.simulation.draws import (
    F64,
    I64,
    Generator,
    log_uniform,
    log_uniform_integers,
    log_uniform_value,
    public_addresses,
)
from ids_plugin.simulation.networks import Network


def connection_flood(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """SYN or ACK (forged or not), UDP, ICMP or HTTP, reflected or slow, towards one victim: many
    flows.
    """
    outward = rng.random() < 0.6
    victim = int(public_addresses(rng, 1)[0]) if outward else int(rng.choice(network.hosts))
    style = str(rng.choice(["tcp", "udp", "icmp", "http", "slow"], p=[0.42, 0.3, 0.07, 0.14, 0.07]))
    min_flows, min_rate = (50, 5.0) if style in ("http", "slow") else (150, 20.0)
    until = min(end, begin + log_uniform_value(rng, 10, 1800))
    times = attack_times(
        rng,
        int(log_uniform_integers(rng, min_flows, 30000, 1)[0]),
        begin,
        until,
        log_uniform_value(rng, min_rate, 5000),
    )
    if style == "udp" and not outward and rng.random() < 0.5:
        return [reflection_flood(rng, times, victim)]
    forged = style in ("tcp", "udp") and rng.random() < 0.4
    orig = (
        public_addresses(rng, len(times))
        if forged
        else _flood_originators(rng, host, len(times), outward)
    )
    port = int(rng.choice([80, 443, 53, 22, 25565, int(rng.integers(1, 65535))]))
    make_flood = {
        "tcp": tcp_flood,
        "udp": udp_flood,
        "icmp": icmp_flood,
        "http": http_flood,
        "slow": slow_http_flood,
    }[style]
    return [make_flood(rng, times, orig, victim, port)]


def tcp_flood(rng: Generator, times: F64, orig: I64, victim: int, port: int) -> Contacts:
    """SYNs that find no answer, an answer, a refusal or a sensor that refuses their checksums; or
    stray ACKs.
    """
    ending_styles = (
        {UNANSWERED: 0.97},
        {SYN_ACK_UNANSWERED: 0.9, UNANSWERED: 0.08},
        {REFUSED: 0.9},
        {PROBED: 0.9},
        {BAD_CHECKSUM: 0.97},
    )
    is_ack_flood = rng.random() < 0.2
    ending = draw_endings(
        rng,
        len(times),
        {MIDSTREAM: 0.8, BAD_CHECKSUM: 0.1}
        if is_ack_flood
        else ending_styles[rng.integers(0, len(ending_styles))],
    )
    return make_contacts(
        rng,
        "ack_flood" if is_ack_flood else "syn_flood",
        times,
        orig,
        victim,
        port,
        ending=np.where(ending == DONE, UNANSWERED, ending),
        syn_option_bytes=int(rng.choice([0, 4, 20])),
        attempts=1 if rng.random() < 0.7 else 2,
        orig_port=rng.integers(1024, 65535, len(times)),
        label="flood",
    )


def udp_flood(rng: Generator, times: F64, orig: I64, victim: int, port: int) -> Contacts:
    """UDP to one port or to all."""
    n, scattered = len(times), rng.random() < 0.4
    packets = np.maximum(
        log_uniform_integers(rng, 1, log_uniform_value(rng, 2, 400), n)
        * (rng.random(n) < rng.random()),
        1,
    )
    return make_contacts(
        rng,
        "udp_flood",
        times,
        orig,
        victim,
        rng.integers(1, 65535, n) if scattered else port,
        proto=UDP,
        orig_bytes=log_uniform_value(rng, 1, 1400) * packets,
        data_packets=packets,
        ending=UNANSWERED,
        duration=(packets - 1) * log_uniform_value(rng, 1e-5, 0.05) * rng.uniform(0.7, 1.4, n),
        label="flood",
    )


def icmp_flood(rng: Generator, times: F64, orig: I64, victim: int, port: int) -> Contacts:
    """ICMP echo requests, answered or not."""
    n, size = len(times), int(rng.integers(8, 1400))
    packets = log_uniform_integers(rng, 1, log_uniform_value(rng, 2, 5000), n)
    return make_contacts(
        rng,
        "icmp_flood",
        times,
        orig,
        victim,
        0,
        proto=ICMP,
        orig_port=8,
        orig_bytes=packets * size,
        resp_bytes=packets * size,
        data_packets=packets,
        ending=DONE if rng.random() < 0.5 else UNANSWERED,
        duration=(packets - 1) * log_uniform_value(rng, 1e-5, 0.05) * rng.uniform(0.7, 1.4, n),
        label="flood",
    )


def http_flood(rng: Generator, times: F64, orig: I64, victim: int, port: int) -> Contacts:
    """Whole HTTP requests, alike, more than the server can bear."""
    n = len(times)
    return make_contacts(
        rng,
        "http_flood",
        times,
        orig,
        victim,
        port,
        service="http",
        orig_bytes=log_uniform_value(rng, 60, 900) * rng.uniform(0.9, 1.1, n),
        resp_bytes=log_uniform_value(rng, 100, 40000) * (rng.random(n) < 0.9),
        duration=log_uniform_value(rng, 0.01, 8) * rng.uniform(0.5, 1.5, n),
        ending=draw_endings(
            rng, n, {RESET: 0.15, ABORTED: 0.15, UNANSWERED: log_uniform_value(rng, 0.01, 0.5)}
        ),
        label="flood",
    )


def reflection_flood(rng: Generator, times: F64, victim: int) -> Contacts:
    """Answers that a victim never asked for, from many servers that were asked in its name."""
    n, servers = len(times), public_addresses(rng, int(log_uniform_integers(rng, 20, 5000, 1)[0]))
    packets = np.maximum(log_uniform_integers(rng, 1, log_uniform_value(rng, 2, 100), n), 1)
    return make_contacts(
        rng,
        "reflection",
        times,
        servers[rng.integers(0, len(servers), n)],
        victim,
        rng.integers(1024, 65535, n) if rng.random() < 0.5 else int(rng.choice([80, 443])),
        proto=UDP,
        orig_port=int(rng.choice([53, 123, 1900, 389, 11211, 19])),
        orig_bytes=packets * log_uniform_value(rng, 100, 1400),
        data_packets=packets,
        duration=(packets - 1) * log_uniform_value(rng, 1e-4, 0.5),
        ending=UNANSWERED,
        label="flood",
    )


def slow_http_flood(rng: Generator, times: F64, orig: I64, victim: int, port: int) -> Contacts:
    """A web server's places taken by requests that never end."""
    times, orig = times[:2500], orig[:2500]
    n, rounds = len(times), int(rng.integers(2, 60))
    return make_contacts(
        rng,
        "slow_flood",
        times,
        orig,
        victim,
        port,
        service="http",
        orig_bytes=rounds * log_uniform_value(rng, 4, 60) * rng.uniform(0.8, 1.2, n),
        resp_bytes=log_uniform_value(rng, 1, 400) * (rng.random(n) < 0.3),
        duration=log_uniform_value(rng, 30, 900) * rng.uniform(0.6, 1.3, n),
        data_packets=rounds,
        ending=rng.choice(
            [ONGOING, RESET, ABORTED, UNANSWERED, DONE], n, p=[0.35, 0.3, 0.1, 0.15, 0.1]
        ),
        label="flood",
    )


def _flood_originators(rng: Generator, host: int, n: int, outward: bool) -> I64:
    """Originators of a flood that aren't forged."""
    if outward:
        return np.full(n, host, dtype=np.int64)
    crowd = public_addresses(rng, int(log_uniform_integers(rng, 1, 300, 1)[0]))
    return crowd[rng.integers(0, len(crowd), n)]


def packet_flood(
    network: Network, rng: Generator, host: int, begin: float, end: float
) -> list[Contacts]:
    """A flood whose packets share addresses and ports: one flow or a few, with very many
    packets.
    """
    outward = rng.random() < 0.75
    victim = int(public_addresses(rng, 1)[0]) if outward else int(rng.choice(network.hosts))
    orig = host if outward else int(public_addresses(rng, 1)[0])
    n = int(log_uniform_integers(rng, 1, 120, 1)[0])
    times = np.sort(
        rng.uniform(begin, max(begin + 1, min(end, begin + log_uniform_value(rng, 5, 1200))), n)
    )
    packets = log_uniform_integers(rng, log_uniform_value(rng, 400, 8000), 200000, n)
    span = np.clip(packets / log_uniform(rng, 100, 20000, n), 0.5, 600)
    style = int(rng.integers(0, 4))
    proto, port = (
        (UDP, 0, ICMP, 0)[style],
        int(rng.choice([80, 443, 53, int(rng.integers(1, 65535))])),
    )
    up = packets * int(rng.integers(1, 1400)) if proto != 0 else 0
    return [
        make_contacts(
            rng,
            "packet_flood",
            times,
            orig,
            victim,
            0 if proto == ICMP else port,
            proto=proto,
            orig_port=8 if proto == ICMP else rng.integers(1024, 65535, n),
            orig_bytes=up,
            data_packets=packets,
            attempts=packets,
            duration=span,
            ending=(UNANSWERED, UNANSWERED, UNANSWERED, MIDSTREAM)[style],
            syn_option_bytes=int(rng.choice([0, 4, 20])),
            label="flood",
        )
    ]
