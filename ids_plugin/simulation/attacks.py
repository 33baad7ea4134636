"""Attacks, each with parameters of its own, from modest to violent. Every flow of one carries its class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ids_plugin.simulation.networks import (
    Draw,
    Network,
    beats,
    bursts,
    cloud,
    ends,
    log_uniform,
    one,
    whole,
)
from ids_plugin.simulation.records import (
    ABORTED,
    DONE,
    F64,
    GHOST,
    HALF_R,
    I64,
    ICMP,
    MIDSTREAM,
    ONGOING,
    PROBED,
    REFUSED,
    RESET,
    UDP,
    UNACKED,
    UNANSWERED,
    Batch,
    batch,
)

Attack = Callable[[Network, Draw, int, float, float], list[Batch]]
"""network, draws, the infected or attacking local host, begin and end in seconds"""

LOGINS = (
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


def _steady(rng: Draw, n: int, begin: float, end: float, rate: float) -> F64:
    """n times at about `rate` a second, fewer where the time is short."""
    gaps = (
        rng.exponential(1 / rate, n)
        if rng.random() < 0.5
        else np.full(n, 1 / rate) * rng.uniform(0.8, 1.2, n)
    )
    t = begin + np.cumsum(gaps)
    return t[t < end]


def _attacker(net: Network, rng: Draw, host: int) -> tuple[int, int, float]:
    """Who attacks, with the fewest tries and the lowest rate that make it an attack.

    From inside any does. From outside, fewer than a hundred tries or slower ones are the noise every exposed
    address hears all day, and are labelled so.
    """
    if rng.random() < 0.7:
        return host, 30, 0.0
    return int(cloud(rng, 1)[0]), 120, 0.8


def _answers(net: Network, rng: Draw, target: I64, port: I64, opened: int) -> I64:
    """How probes of local addresses end."""
    there = np.isin(target, net.hosts) | (target == net.gateway)
    closed = REFUSED if not net.drops else UNANSWERED
    return np.where(net.offers(target, port), opened, np.where(there, closed, UNANSWERED))


def scan_ports(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """Many ports of one or few hosts, by SYN, connect or UDP."""
    attacker, few, slow = _attacker(net, rng, host)
    count = int(whole(rng, few, 8000, 1)[0])
    rate = max(slow, one(rng, *net.ranges.rate))
    t = _steady(rng, count, begin, end, rate)
    n = len(t)
    targets = rng.choice(net.hosts, min(len(net.hosts), int(rng.integers(1, 4))), replace=False)
    ports = rng.permutation(65535)[:n] + 1 if rng.random() < 0.5 else np.arange(n) % 65535 + 1
    target = targets[rng.integers(0, len(targets), n)]
    style = rng.choice(["syn", "connect", "udp"], p=[0.5, 0.35, 0.15])
    if style == "udp":
        back = rng.random(n) < 0.02
        return [
            batch(
                rng,
                "port_scan_udp",
                t,
                attacker,
                target,
                ports,
                proto=UDP,
                ending=np.where(back, DONE, UNANSWERED),
                up=rng.integers(0, 60, n),
                down=int(rng.integers(8, 200)),
                orig_port=int(rng.integers(1024, 65535)),
                rounds=1,
                label="scan",
            )
        ]
    opened = PROBED if style == "syn" else int(rng.choice([ABORTED, DONE]))
    ending = _answers(net, rng, target, ports, opened)
    again = 1 if style == "syn" and rng.random() < 0.6 else 0
    source = int(rng.integers(1024, 65535)) if style == "syn" else rng.integers(32768, 61000, n)
    return [
        batch(
            rng,
            f"port_scan_{style}",
            t,
            attacker,
            target,
            ports,
            ending=ending,
            syn=int(rng.choice([0, 4, 4])) if style == "syn" else -1,
            attempts=again,
            orig_port=source,
            label="scan",
        )
    ]


def scan_hosts(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """Few ports of many local addresses, or a ping sweep."""
    attacker, few, slow = _attacker(net, rng, host)
    t = _steady(
        rng, int(whole(rng, few, 4000, 1)[0]), begin, end, max(slow, one(rng, *net.ranges.rate))
    )
    n = len(t)
    target = net.base + 1 + np.arange(n) % (net.width - 2)
    target = rng.permutation(target) if rng.random() < 0.5 else target
    if rng.random() < 0.2:
        alive = np.isin(target, net.hosts)
        return [
            batch(
                rng,
                "ping_sweep",
                t,
                attacker,
                target,
                0,
                proto=ICMP,
                orig_port=8,
                up=int(rng.choice([8, 32, 56])),
                down=56,
                ending=np.where(alive, DONE, UNANSWERED),
                rounds=1,
                label="scan",
            )
        ]
    ports = rng.choice(
        [22, 23, 80, 443, 445, 3389, 8080, 1883, 5555, 554, 21, 161],
        int(rng.integers(1, 6)),
        replace=False,
    )
    port = (
        ports[(np.arange(n) // max(1, net.width - 2)) % len(ports)]
        if rng.random() < 0.5
        else rng.choice(ports, n)
    )
    connect = rng.random() < 0.5
    ending = _answers(
        net, rng, target, port, int(rng.choice([ABORTED, DONE])) if connect else PROBED
    )
    return [
        batch(
            rng,
            "host_scan",
            t,
            attacker,
            target,
            port,
            ending=ending,
            syn=-1 if connect else int(rng.choice([0, 4, 20])),
            attempts=0 if connect else 1,
            label="scan",
        )
    ]


def scan_outside(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """An infected device tries random addresses of the internet on one to five ports."""
    t = _steady(rng, int(whole(rng, 40, 12000, 1)[0]), begin, end, one(rng, 0.05, 2000))
    n = len(t)
    ports = rng.choice(
        [23, 2323, 80, 8080, 5555, 7547, 37215, 52869, 22, 81, 9000, int(rng.integers(1, 65535))],
        int(rng.integers(1, 6)),
        replace=False,
    )
    port = np.where(rng.random(n) < 0.8, ports[0], rng.choice(ports, n))
    answered = one(rng, 0.002, 0.06)
    ending = ends(
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
        batch(
            rng,
            "internet_scan",
            t,
            host,
            cloud(rng, n),
            port,
            ending=ending,
            syn=int(rng.choice([0, 4, 20])) if raw else -1,
            attempts=1 if raw else 0,
            orig_port=fixed,
            label="scan",
        )
    ]


def brute_force(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """One or few doors, many tries alike: ssh, telnet, ftp, mqtt, rdp, http and others; slow to fast."""
    attacker, few, slow = _attacker(net, rng, host)
    port, service = LOGINS[rng.integers(0, len(LOGINS))]
    inside = attacker != host or rng.random() < 0.75
    doors = (
        rng.choice(net.hosts, min(len(net.hosts), int(rng.integers(1, 4))), replace=False)
        if inside
        else cloud(rng, int(rng.integers(1, 3)))
    )
    t = _steady(rng, int(whole(rng, few / 2, 4000, 1)[0]), begin, end, max(slow, one(rng, 0.1, 50)))
    n = len(t)
    up, down, spread = (
        one(rng, *net.ranges.size),
        one(rng, *net.ranges.size),
        float(rng.choice([0.01, 0.05, 0.2])),
    )
    odds = {
        RESET: one(rng, 0.005, 0.5),
        ABORTED: one(rng, 0.005, 0.3),
        REFUSED: one(rng, 0.001, 0.1),
        UNANSWERED: one(rng, 0.001, 0.06),
    }
    tries = int(rng.choice([1, 1, 3, 6]))
    return [
        batch(
            rng,
            f"{service or 'telnet'}_logins",
            t,
            attacker,
            doors[rng.integers(0, len(doors), n)],
            port,
            service=service,
            ending=ends(rng, n, odds),
            up=tries * up * np.exp(spread * rng.standard_normal(n)),
            down=tries * down * np.exp(spread * rng.standard_normal(n)),
            span=one(rng, 0.05, 40) * rng.uniform(0.7, 1.3, n),
            rounds=int(rng.integers(0, 8)) * tries,
            label="brute_force",
        )
    ]


def flood(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """SYN or ACK (forged or not), UDP, ICMP or HTTP, reflected or slow, towards one victim: many flows."""
    outward = rng.random() < 0.6
    victim = int(cloud(rng, 1)[0]) if outward else int(rng.choice(net.hosts))
    style = str(rng.choice(["tcp", "udp", "icmp", "http", "slow"], p=[0.42, 0.3, 0.07, 0.14, 0.07]))
    few, slow = (50, 5.0) if style in ("http", "slow") else (150, 20.0)
    until = min(end, begin + one(rng, 10, 1800))
    t = _steady(rng, int(whole(rng, few, 30000, 1)[0]), begin, until, one(rng, slow, 5000))
    if style == "udp" and not outward and rng.random() < 0.5:
        return [reflection(rng, t, victim)]
    forged = style in ("tcp", "udp") and rng.random() < 0.4
    orig = cloud(rng, len(t)) if forged else _bots(rng, host, len(t), outward)
    port = int(rng.choice([80, 443, 53, 22, 25565, int(rng.integers(1, 65535))]))
    make = {
        "tcp": segments,
        "udp": datagrams,
        "icmp": echoes,
        "http": requests,
        "slow": slow_requests,
    }[style]
    return [make(rng, t, orig, victim, port)]


def segments(rng: Draw, t: F64, orig: I64, victim: int, port: int) -> Batch:
    """SYNs that find no answer, an answer, a refusal or a sensor that refuses their checksums; or stray ACKs."""
    styles = (
        {UNANSWERED: 0.97},
        {UNACKED: 0.9, UNANSWERED: 0.08},
        {REFUSED: 0.9},
        {PROBED: 0.9},
        {GHOST: 0.97},
    )
    ack = rng.random() < 0.2
    ending = ends(
        rng, len(t), {MIDSTREAM: 0.8, GHOST: 0.1} if ack else styles[rng.integers(0, len(styles))]
    )
    return batch(
        rng,
        "ack_flood" if ack else "syn_flood",
        t,
        orig,
        victim,
        port,
        ending=np.where(ending == DONE, UNANSWERED, ending),
        syn=int(rng.choice([0, 4, 20])),
        attempts=1 if rng.random() < 0.7 else 2,
        orig_port=rng.integers(1024, 65535, len(t)),
        label="flood",
    )


def datagrams(rng: Draw, t: F64, orig: I64, victim: int, port: int) -> Batch:
    """UDP to one port or to all."""
    n, scattered = len(t), rng.random() < 0.4
    packets = np.maximum(whole(rng, 1, one(rng, 2, 400), n) * (rng.random(n) < rng.random()), 1)
    return batch(
        rng,
        "udp_flood",
        t,
        orig,
        victim,
        rng.integers(1, 65535, n) if scattered else port,
        proto=UDP,
        up=one(rng, 1, 1400) * packets,
        rounds=packets,
        ending=UNANSWERED,
        span=(packets - 1) * one(rng, 1e-5, 0.05) * rng.uniform(0.7, 1.4, n),
        label="flood",
    )


def echoes(rng: Draw, t: F64, orig: I64, victim: int, port: int) -> Batch:
    """ICMP echo requests, answered or not."""
    n, size = len(t), int(rng.integers(8, 1400))
    packets = whole(rng, 1, one(rng, 2, 5000), n)
    return batch(
        rng,
        "icmp_flood",
        t,
        orig,
        victim,
        0,
        proto=ICMP,
        orig_port=8,
        up=packets * size,
        down=packets * size,
        rounds=packets,
        ending=DONE if rng.random() < 0.5 else UNANSWERED,
        span=(packets - 1) * one(rng, 1e-5, 0.05) * rng.uniform(0.7, 1.4, n),
        label="flood",
    )


def requests(rng: Draw, t: F64, orig: I64, victim: int, port: int) -> Batch:
    """Whole HTTP requests, alike, more than the server can bear."""
    n = len(t)
    return batch(
        rng,
        "http_flood",
        t,
        orig,
        victim,
        port,
        service="http",
        up=one(rng, 60, 900) * rng.uniform(0.9, 1.1, n),
        down=one(rng, 100, 40000) * (rng.random(n) < 0.9),
        span=one(rng, 0.01, 8) * rng.uniform(0.5, 1.5, n),
        ending=ends(rng, n, {RESET: 0.15, ABORTED: 0.15, UNANSWERED: one(rng, 0.01, 0.5)}),
        label="flood",
    )


def reflection(rng: Draw, t: F64, victim: int) -> Batch:
    """Answers that a victim never asked for, from many servers that were asked in its name."""
    n, servers = len(t), cloud(rng, int(whole(rng, 20, 5000, 1)[0]))
    packets = np.maximum(whole(rng, 1, one(rng, 2, 100), n), 1)
    return batch(
        rng,
        "reflection",
        t,
        servers[rng.integers(0, len(servers), n)],
        victim,
        rng.integers(1024, 65535, n) if rng.random() < 0.5 else int(rng.choice([80, 443])),
        proto=UDP,
        orig_port=int(rng.choice([53, 123, 1900, 389, 11211, 19])),
        up=packets * one(rng, 100, 1400),
        rounds=packets,
        span=(packets - 1) * one(rng, 1e-4, 0.5),
        ending=UNANSWERED,
        label="flood",
    )


def slow_requests(rng: Draw, t: F64, orig: I64, victim: int, port: int) -> Batch:
    """A web server's places taken by requests that never end."""
    t, orig = t[:2500], orig[:2500]
    n, rounds = len(t), int(rng.integers(2, 60))
    return batch(
        rng,
        "slow_flood",
        t,
        orig,
        victim,
        port,
        service="http",
        up=rounds * one(rng, 4, 60) * rng.uniform(0.8, 1.2, n),
        down=one(rng, 1, 400) * (rng.random(n) < 0.3),
        span=one(rng, 30, 900) * rng.uniform(0.6, 1.3, n),
        rounds=rounds,
        ending=rng.choice(
            [ONGOING, RESET, ABORTED, UNANSWERED, DONE], n, p=[0.35, 0.3, 0.1, 0.15, 0.1]
        ),
        label="flood",
    )


def _bots(rng: Draw, host: int, n: int, outward: bool) -> I64:
    """Originators of a flood that aren't forged."""
    if outward:
        return np.full(n, host, dtype=np.int64)
    crowd = cloud(rng, int(whole(rng, 1, 300, 1)[0]))
    return crowd[rng.integers(0, len(crowd), n)]


def flood_in_few(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """A flood whose packets share addresses and ports: one flow or a few, with very many packets."""
    outward = rng.random() < 0.75
    victim = int(cloud(rng, 1)[0]) if outward else int(rng.choice(net.hosts))
    orig = host if outward else int(cloud(rng, 1)[0])
    n = int(whole(rng, 1, 120, 1)[0])
    t = np.sort(rng.uniform(begin, max(begin + 1, min(end, begin + one(rng, 5, 1200))), n))
    packets = whole(rng, one(rng, 400, 8000), 200000, n)
    span = np.clip(packets / log_uniform(rng, 100, 20000, n), 0.5, 600)
    style = int(rng.integers(0, 4))
    proto, port = (
        (UDP, 0, ICMP, 0)[style],
        int(rng.choice([80, 443, 53, int(rng.integers(1, 65535))])),
    )
    up = packets * int(rng.integers(1, 1400)) if proto != 0 else 0
    return [
        batch(
            rng,
            "packet_flood",
            t,
            orig,
            victim,
            0 if proto == ICMP else port,
            proto=proto,
            orig_port=8 if proto == ICMP else rng.integers(1024, 65535, n),
            up=up,
            rounds=packets,
            attempts=packets,
            span=span,
            ending=(UNANSWERED, UNANSWERED, UNANSWERED, MIDSTREAM)[style],
            syn=int(rng.choice([0, 4, 20])),
            label="flood",
        )
    ]


def _with_pauses(rng: Draw, t: F64, begin: float, end: float) -> F64:
    """Times of a controller's client that now and then sleeps for a while."""
    if rng.random() < 0.7:
        return t
    phase, cycle, duty = (
        rng.random(),
        one(rng, 300, max(600, (end - begin) / 2)),
        rng.uniform(0.3, 0.8),
    )
    return t[((t - begin) / cycle + phase) % 1 < duty]


def beacon(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """A controller that answers: short connections every so often, over plain TCP, TLS, HTTP, IRC or DNS."""
    style = rng.choice(["tcp", "ssl", "http", "irc", "dns"], p=[0.34, 0.2, 0.2, 0.14, 0.12])
    port = {
        "tcp": int(rng.integers(1, 65535)),
        "ssl": int(rng.choice([443, 443, 8443, 4443])),
        "http": int(rng.choice([80, 80, 8080, 8000])),
        "irc": int(rng.choice([6667, 6666, 7000, int(rng.integers(1024, 65535))])),
        "dns": 53,
    }[str(style)]
    period = one(
        rng,
        net.ranges.period[0],
        min(net.ranges.period[1], max(net.ranges.period[0] * 2, (end - begin) / 6)),
    )
    _, t = beats(
        rng,
        np.array([begin]),
        np.array([end]),
        np.array([period]),
        np.array([rng.uniform(*net.ranges.jitter)]),
    )
    t = _with_pauses(rng, t, begin, end)[:6000]
    n, peers = len(t), cloud(rng, int(rng.choice([1, 1, 1, 2, 5])))
    peer = peers[
        np.minimum(
            (np.linspace(0, len(peers), n, endpoint=False) + (rng.random(n) < 0.1)).astype(
                np.int64
            ),
            len(peers) - 1,
        )
    ]
    up, down, spread = (
        one(rng, 20, 1500),
        one(rng, 20, 2500),
        float(rng.choice([0.0, 0.01, 0.1, 0.3])),
    )
    habit = int(rng.choice([DONE, DONE, RESET, HALF_R, ABORTED]))
    other = ends(
        rng,
        n,
        {
            UNANSWERED: one(rng, 0.01, 0.4),
            RESET: one(rng, 0.01, 0.15),
            REFUSED: one(rng, 0.005, 0.15),
        },
    )
    ending = np.where(other == DONE, habit, other)
    if style == "dns":
        ending = np.where(ending == DONE, DONE, UNANSWERED) if habit == DONE else np.full(n, DONE)
    command = np.where(rng.random(n) < 0.04, log_uniform(rng, 2, 60, n), 1.0)
    return [
        batch(
            rng,
            f"beacon_{style}",
            t,
            host,
            peer,
            port,
            proto=UDP if style == "dns" else 0,
            service="" if style == "tcp" else str(style),
            ending=ending,
            up=up * np.exp(spread * rng.standard_normal(n)),
            down=down * command * np.exp(spread * rng.standard_normal(n)),
            span=one(rng, 0.05, 60) * rng.uniform(0.8, 1.2, n) if style != "dns" else 0.0,
            label="command_and_control",
        )
    ]


def lasting_control(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """Connections to a controller that stay open for minutes to hours with keep-alives, and come back after resets."""
    mean = one(rng, 60, 20000)
    _, t = beats(
        rng,
        np.array([begin]),
        np.array([end]),
        np.array([mean]),
        np.array([float(rng.choice([0.1, 1.0]))]),
    )
    n = len(t)
    life = np.minimum(np.append(np.diff(t), end - begin) * rng.uniform(0.6, 1.0, n), mean * 3)
    pings = 1 + life / one(rng, 5, 300)
    peer, port = (
        int(cloud(rng, 1)[0]),
        int(
            rng.choice(
                [
                    23,
                    443,
                    6667,
                    6697,
                    48101,
                    int(rng.integers(1, 65535)),
                    int(rng.integers(1024, 65535)),
                ]
            )
        ),
    )
    kept = batch(
        rng,
        "lasting_control",
        t,
        host,
        peer,
        port,
        service={6667: "irc", 443: "ssl"}.get(port, ""),
        span=life,
        up=pings * rng.integers(2, 120) + 40,
        down=pings * rng.integers(2, 160) + 60,
        rounds=pings,
        ending=ends(rng, n, {RESET: 0.3, HALF_R: 0.2, ABORTED: 0.1, ONGOING: 0.2}),
        label="command_and_control",
    )
    lost = rng.random(n) < 0.4
    _, again = bursts(
        rng, t[lost] + life[lost], rng.geometric(0.25, int(lost.sum())), one(rng, 1, 60)
    )
    return [
        kept,
        batch(
            rng,
            "reconnecting",
            again,
            host,
            peer,
            port,
            ending=rng.choice([UNANSWERED, UNANSWERED, REFUSED, RESET], len(again)),
            up=0,
            label="command_and_control",
        ),
    ]


def orphaned(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """The controller is gone, and the device keeps trying it for hours, evenly and without growing tired."""
    period = one(rng, 2, 300)
    _, t = beats(
        rng,
        np.array([begin]),
        np.array([end]),
        np.array([period]),
        np.array([rng.uniform(*net.ranges.jitter)]),
    )
    t = t[:5000]
    n = len(t)
    peers = cloud(rng, int(rng.integers(1, 3)))
    ports = rng.choice(
        [23, 80, 443, 6667, int(rng.integers(1, 1024)), int(rng.integers(1024, 65535))], len(peers)
    )
    which = np.where(rng.random(n) < 0.9, 0, rng.integers(0, len(peers), n))
    gone = REFUSED if rng.random() < 0.2 else UNANSWERED
    alive = (rng.random(n) < one(rng, 1e-4, 0.6)) & (gone == UNANSWERED)
    return [
        batch(
            rng,
            "dead_controller",
            t,
            host,
            peers[which],
            ports[which],
            ending=np.where(alive, HALF_R, gone),
            up=one(rng, 20, 400),
            down=one(rng, 20, 400),
            attempts=int(rng.choice([0, 0, 1, 3])),
            span=0.0,
            label="command_and_control",
        )
    ]


def exfiltrate(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """Data that leaves: in one piece, in several, or as a trickle; over TLS, FTP, ssh, plain TCP."""
    style = int(rng.integers(0, 3))
    n = (int(rng.integers(1, 3)), int(rng.integers(3, 40)), int(whole(rng, 30, 800, 1)[0]))[style]
    size = (one(rng, 3e6, 3e9), one(rng, 1e6, 5e7), one(rng, 3e3, 5e5))[style]
    t = (
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
    peers = cloud(rng, int(rng.integers(1, 3)))
    return [
        batch(
            rng,
            ("upload", "uploads", "trickle")[style],
            t,
            host,
            peers[rng.integers(0, len(peers), n)],
            port,
            service=service,
            up=up,
            down=200 + up * one(rng, 1e-4, 0.02),
            span=np.minimum(up / one(rng, 2e4, 2e7) + 0.2, 14400 * rng.uniform(0.5, 1, n)),
            ending=ends(rng, n, {ABORTED: 0.08, RESET: 0.08, ONGOING: 0.02}),
            label="exfiltration",
        )
    ]


def tunnel_out(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """Data that leaves in DNS queries or ICMP echoes: many, long, to one server outside or through the resolver."""
    dns = rng.random() < 0.75
    t = _steady(rng, int(whole(rng, 60, 4000, 1)[0]), begin, end, one(rng, 0.02, 30))
    n = len(t)
    peer = net.resolver if dns and rng.random() < 0.6 else int(cloud(rng, 1)[0])
    size = rng.uniform(0.7, 1.0, n) * one(rng, 90, 240 if dns else 1300)
    times = np.ones(n) if dns else whole(rng, 1, 200, n)
    return [
        batch(
            rng,
            "dns_tunnel" if dns else "icmp_tunnel",
            t,
            host,
            peer,
            53 if dns else 0,
            proto=UDP if dns else ICMP,
            service="dns" if dns else "",
            orig_port=None if dns else 8,
            up=size * times,
            down=size * times if not dns else size + rng.integers(20, 300),
            rounds=times,
            ending=ends(rng, n, {UNANSWERED: 0.02}),
            label="exfiltration",
        )
    ]


def spread(net: Network, rng: Draw, host: int, begin: float, end: float) -> list[Batch]:
    """A worm: logins and exploits at many hosts, near and far, of which some let it in and fetch a copy."""
    port, service = (
        (23, ""),
        (2323, ""),
        (22, "ssh"),
        (5555, ""),
        (445, "smb"),
        (80, "http"),
        (8080, "http"),
    )[rng.integers(0, 7)]
    t = _steady(rng, int(whole(rng, 40, 4000, 1)[0]), begin, end, one(rng, 0.03, 200))
    share = float(rng.choice([0.0, 0.5, 1.0], p=[0.35, 0.3, 0.35]))
    inside = rng.random(len(t)) < share
    target = np.where(
        inside,
        np.where(rng.random(len(t)) < 0.6, rng.choice(net.hosts, len(t)), net.dead(rng, len(t))),
        cloud(rng, len(t)),
    )
    lets = (rng.random(len(t)) < one(rng, 0.05, 0.6)) & (~inside | np.isin(target, net.hosts))
    tries = np.where(lets, rng.geometric(0.35, len(t)), 1)
    who, when = bursts(rng, t, tries, one(rng, 0.5, 20))
    n = len(who)
    refused = ends(rng, n, {REFUSED: one(rng, 0.02, 0.4)})
    talk = ends(rng, n, {RESET: 0.15, ABORTED: 0.15})
    entry = batch(
        rng,
        "worm_logins",
        when,
        host,
        target[who],
        port,
        service=service,
        ending=np.where(lets[who], talk, np.where(refused == DONE, UNANSWERED, refused)),
        up=one(rng, 40, 1200) * rng.uniform(0.8, 1.3, n),
        down=one(rng, 40, 1500) * rng.uniform(0.8, 1.3, n),
        span=one(rng, 0.2, 30) * rng.uniform(0.6, 1.4, n),
        rounds=0,
        label="spreading",
    )
    taken = np.flatnonzero(lets & (rng.random(len(t)) < 0.3))
    source = np.where(inside[taken] & (rng.random() < 0.5), cloud(rng, 1)[0], host)
    copies = batch(
        rng,
        "worm_copy",
        t[taken] + one(rng, 2, 60) * rng.uniform(0.5, 1.5, len(taken)),
        target[taken],
        source,
        int(rng.choice([80, 8080, 69, int(rng.integers(1024, 65535))])),
        service="http",
        up=int(rng.integers(80, 400)) + rng.integers(0, 3, len(taken)),
        down=one(rng, 2e4, 3e6),
        span=one(rng, 0.2, 20) * rng.uniform(0.7, 1.5, len(taken)),
        label="spreading",
    )
    return [entry, copies]


ATTACKS: dict[str, tuple[Attack, ...]] = {
    "scan": (scan_ports, scan_hosts, scan_outside),
    "brute_force": (brute_force,),
    "flood": (flood, flood_in_few),
    "command_and_control": (beacon, beacon, lasting_control, orphaned),
    "exfiltration": (exfiltrate, tunnel_out),
    "spreading": (spread,),
}
CHAIN = ("scan", "brute_force", "spreading", "command_and_control", "flood", "exfiltration")
"""The order in which the stages of one infection follow each other, where several do"""
ODDS = (0.2, 0.17, 0.13, 0.26, 0.13, 0.11)


def campaign(net: Network, rng: Draw, active: I64) -> list[Batch]:
    """All attacks of a network, in one stretch of at most half of its time (controllers may be kept until its end);
    none in three networks of ten. Who attacks from inside or is infected is one of `active`."""
    if rng.random() < 0.3:
        return []
    begin = 0.0 if rng.random() < 0.2 else rng.uniform(0, 0.5) * net.seconds
    end = begin + rng.uniform(0.2, 0.5) * net.seconds
    last = net.seconds if rng.random() < 0.4 else end
    made: list[Batch] = []
    chained = rng.random() < 0.4
    names = [str(c) for c in rng.choice(CHAIN, int(rng.integers(*net.ranges.attacks)), p=ODDS)]
    names = sorted(names, key=CHAIN.index) if chained else names
    host = int(rng.choice(active))
    for i, name in enumerate(names):
        options = ATTACKS[name]
        attack = options[rng.integers(0, len(options))]
        start = begin + (end - begin) * (i / len(names) if chained else rng.uniform(0, 0.6))
        until = last if name == "command_and_control" else min(end, start + one(rng, 60, 14400))
        made += attack(net, rng, host if chained else int(rng.choice(active)), start, until)
    return made
