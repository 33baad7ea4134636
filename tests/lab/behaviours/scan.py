"""Scans: who has what open (ATT&CK T1046; T1595 from outside)."""

from __future__ import annotations

import random
import socket
from contextlib import AbstractContextManager, suppress

from tests.lab import wire
from tests.lab.network import GATE, Host
from tests.lab.stage import Stage


def _label(
    stage: Stage,
    name: str,
    me: Host,
    resp: list[Host | str],
    proto: str | None,
    ports: list[int] | None = None,
) -> AbstractContextManager[None]:
    technique = "T1595.001" if me.role == "outside" else "T1046"
    return stage.activity("scan", technique, name, [me], resp, proto, ports)


def _victims(stage: Stage, me: Host, rng: random.Random, number: int) -> list[Host]:
    hosts = [host for host in stage.local() if host is not me]
    return rng.sample(hosts, min(number, len(hosts)))


def nmap(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    kind: str = "-sS",
    ports: int = 200,
    targets: int = 1,
    rate: int = 100,
    limit: float = 60.0,
) -> None:
    """nmap against the most common ports of some hosts: -sS, -sT, -sU, -sF, -sX, -sA, -sV."""
    victims = _victims(stage, me, rng, targets)
    command = [
        "nmap",
        "-n",
        "-Pn",
        *kind.split(),
        "--top-ports",
        str(ports),
        "--max-rate",
        str(rate),
    ]
    command += [
        "--max-retries",
        "1",
        "--host-timeout",
        f"{limit:.0f}s",
        *(host.address for host in victims),
    ]
    proto = None if "-sU" in kind else "tcp"
    with _label(stage, f"nmap {kind}", me, list(victims), proto):
        stage.note(f"nmap {kind}: {stage.tool(command, limit)[-900:]}")


def slow(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    ports: int = 40,
    targets: int = 1,
    delay: float = 1.5,
) -> None:
    """nmap with a pause between probes."""
    victims = _victims(stage, me, rng, targets)
    command = [
        "nmap",
        "-n",
        "-Pn",
        "-sS",
        "--top-ports",
        str(ports),
        "--scan-delay",
        f"{delay:.2f}s",
    ]
    command += [
        "--max-scan-delay",
        f"{delay:.2f}s",
        "--max-retries",
        "0",
        *(host.address for host in victims),
    ]
    with _label(stage, "nmap slow", me, list(victims), "tcp"):
        stage.note(f"nmap slow: {stage.tool(command, ports * targets * delay + 30)[-600:]}")


def sweep(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    port: str = "22",
    rate: int = 60,
    where: str = "local",
) -> None:
    """nmap over a network: one or a few ports of every address, local or of the second network
    behind the router."""
    network = stage.annex if where == "annex" else str(stage.network.subnet)
    command = [
        "nmap",
        "-n",
        "-Pn",
        "-sS",
        "-p",
        port,
        "--max-rate",
        str(rate),
        "--max-retries",
        "0",
        network,
    ]
    with _label(
        stage, f"nmap sweep {where}", me, [network], "tcp", [int(one) for one in port.split(",")]
    ):
        stage.note(f"sweep: {stage.tool(command, 60)[-300:]}")


def masscan(
    stage: Stage, me: Host, rng: random.Random, *, ports: str = "22,23,80,443,8080", rate: int = 150
) -> None:
    """masscan over the second network behind the router, or from outside over the local one."""
    outside = me.role == "outside"
    network = str(stage.network.subnet) if outside else stage.annex
    wanted = [int(one) for one in ports.split(",")]
    command = [
        "masscan",
        network,
        "-p",
        ports,
        "--rate",
        str(rate),
        "--wait",
        "2",
        "--adapter-ip",
        me.address,
    ]
    command += ["--interface", "eth0", "--seed", str(rng.randrange(10**6))]
    command += ["--router-ip", GATE if outside else stage.network.gateway]
    with _label(stage, "masscan", me, [network], "tcp", wanted):
        stage.note(f"masscan: {stage.tool(command, 60)[-400:]}")


def connects(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    ports: int = 150,
    targets: int = 2,
    wait: float = 0.05,
    grab: bool = False,
) -> None:
    """A script of its own that connects in random order, and may read banners."""
    victims = _victims(stage, me, rng, targets)
    probes = [(host, port) for host in victims for port in rng.sample(range(1, 10_000), ports)]
    probes += [(host, port) for host in victims for port in (21, 22, 80)]
    rng.shuffle(probes)
    with _label(stage, "connect script", me, list(victims), "tcp"):
        for host, port in probes:
            with suppress(OSError), wire.connect(host.address, port, timeout=0.5) as link:
                if grab:
                    link.settimeout(0.5)
                    link.recv(200)
            stage.sleep(wait * rng.uniform(0.3, 1.7))


def crawl(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    probes: int = 60,
    wait: float = 2.5,
    ports: str = "22,80,445,3389",
) -> None:
    """A sweeper of its own, slow and in random order over the local network, the crowd and the
    silent included."""
    base = stage.network.subnet.network_address
    wanted = [int(one) for one in ports.split(",")]
    addresses = [host.address for host in stage.local() if host is not me]
    addresses += [str(base + number) for number in range(192, 240)]
    with _label(stage, "slow crawler", me, [str(stage.network.subnet)], "tcp", wanted):
        for _ in range(probes):
            with (
                suppress(OSError),
                wire.connect(rng.choice(addresses), rng.choice(wanted), timeout=1.2),
            ):
                pass
            stage.sleep(rng.expovariate(1 / wait))


def udp_sweep(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    ports: str = "161,1900,5683,69,623",
    wait: float = 0.05,
) -> None:
    """UDP probes of a few ports at every address of the crowd and the hosts."""
    base = stage.network.subnet.network_address
    wanted = [int(one) for one in ports.split(",")]
    addresses = [host.address for host in stage.local() if host is not me]
    addresses += [str(base + number) for number in range(192, 240)]
    probes = [(address, port) for address in addresses for port in wanted]
    rng.shuffle(probes)
    with (
        _label(stage, "UDP sweep", me, [str(stage.network.subnet)], "udp", wanted),
        stage.activity(
            "scan", "T1046", "UDP sweep refused", [me], [str(stage.network.subnet)], "icmp", None
        ),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
    ):
        for address, port in probes:
            with suppress(OSError):
                link.sendto(b"\x30\x26\x02\x01\x01\x04\x06public", (address, port))
            stage.sleep(wait * rng.uniform(0.3, 1.7))


def nping_udp(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    ports: int = 150,
    targets: int = 1,
    rate: int = 30,
    size: int = 0,
) -> None:
    """nping (of nmap): one datagram to each of some UDP ports, in order."""
    first = rng.randrange(1, 2_000)
    wanted = f"{first}-{first + ports - 1}"
    for victim in _victims(stage, me, rng, targets):
        command = [
            "nping",
            "-q",
            "--udp",
            "-p",
            wanted,
            "-c",
            "1",
            "--rate",
            str(rate),
            "--data-length",
            str(size),
        ]
        with (
            _label(stage, "nping UDP", me, [victim], "udp"),
            stage.activity("scan", "T1046", "nping UDP refused", [me], [victim], "icmp", None),
        ):
            stage.note(
                f"nping: {stage.tool([*command, '--no-capture', victim.address], ports / rate + 10)[-300:]}"  # noqa: E501
            )
