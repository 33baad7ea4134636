"""A controller outside, asked at intervals (ATT&CK T1071, T1095)."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from tests.lab import servers, wire
from tests.lab.network import Host
from tests.lab.stage import Stage

WEB = {80, 8080, 443, 8883}


def _controller(stage: Stage, rng: random.Random, port: int) -> str:
    address = stage.outsider(rng)
    if port not in WEB:
        internet = stage.one("internet")
        stage.start(
            internet, lambda: servers.tcp(stage, port, servers.talk, address=address), "controller"
        )
        stage.sleep(0.2)
    return address


def beacon(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 8.0,
    jitter: float = 0.3,
    port: int = 8080,
    size: int = 120,
    count: int = 200,
) -> None:
    """Asks over HTTP (TLS at 443): a fresh connection each time, small and alike; now and then a
    task comes back."""
    address = _controller(stage, rng, port)
    answered = 0
    with stage.activity(
        "command_and_control", "T1071.001", "HTTP beacon", [me], [address], "tcp", [port]
    ):
        for _ in range(count):
            with suppress(OSError):
                reply = rng.randint(2_000, 9_000) if rng.random() < 0.08 else size
                body = wire.filler(size) if rng.random() < 0.5 else None
                answered += (
                    wire.http(address, port, [f"/{reply}/gate"], tls=port == 443, body=body) > 0
                )
            stage.note(f"beacon {address}:{port}: {answered} answered") if answered in {
                1,
                5,
            } else None
            stage.pause(rng, interval, jitter)


def line(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 10.0,
    jitter: float = 0.2,
    port: int = 6667,
    hold: int = 6,
    count: int = 60,
) -> None:
    """A raw TCP line as bots keep it: short keepalives for a while, then hung up and dialled
    again."""
    address = _controller(stage, rng, port)
    with stage.activity("command_and_control", "T1095", "bot line", [me], [address], "tcp", [port]):
        for _ in range(count):
            with suppress(OSError), wire.connect(address, port) as link:
                link.sendall(b"\0\0\0\1" + bytes([len(me.name)]) + me.name.encode())
                link.recv(64)
                for _ in range(rng.randint(1, hold)):
                    stage.pause(rng, interval, jitter)
                    link.sendall(b"\0\0")
                    link.recv(64)
            stage.sleep(interval * rng.uniform(0.1, 0.6))


def unanswered(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 6.0,
    jitter: float = 0.2,
    port: int = 23456,
    patience: float = 3.5,
    count: int = 150,
    refused: bool = False,
) -> None:
    """A controller that is gone: SYNs without an answer, with the kernel's retries, or refused,
    again and again."""
    address = stage.outsider(rng, answers=refused)
    with stage.activity(
        "command_and_control", "T1095", "controller gone", [me], [address], "tcp", [port]
    ):
        for _ in range(count):
            with suppress(OSError), wire.connect(address, port, timeout=patience):
                pass
            stage.pause(rng, interval, jitter)


def udp_beacon(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 7.0,
    jitter: float = 0.3,
    port: int = 33444,
    count: int = 150,
) -> None:
    """Small datagrams to a controller, a new source port each time; answered."""
    address = stage.outsider(rng)
    stage.start(
        stage.one("internet"), lambda: servers.udp_sink(stage, address, port, 1), "controller"
    )
    stage.sleep(0.3)
    with stage.activity(
        "command_and_control", "T1095", "UDP beacon", [me], [address], "udp", [port]
    ):
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link, suppress(OSError):
                link.settimeout(1)
                link.sendto(wire.filler(rng.randint(40, 60)), (address, port))
                link.recv(256)
            stage.pause(rng, interval, jitter)


def fetch(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 9.0,
    jitter: float = 0.4,
    port: int = 80,
    count: int = 60,
) -> None:
    """A beacon made of curl, as scripts of intruders are."""
    address = _controller(stage, rng, port)
    scheme = "https" if port == 443 else "http"
    with stage.activity(
        "command_and_control", "T1071.001", "curl beacon", [me], [address], "tcp", [port]
    ):
        for _ in range(count):
            stage.tool(
                [
                    "curl",
                    "-s",
                    "-k",
                    "-m",
                    "4",
                    f"{scheme}://{address}:{port}/{rng.randint(90, 140)}/c",
                ],
                5,
            )
            stage.pause(rng, interval, jitter)


def rotating(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 6.0,
    jitter: float = 0.3,
    port: int = 9001,
    controllers: int = 3,
    gone: int = 1,
    count: int = 150,
) -> None:
    """A list of controllers asked one after the other by a few bytes of raw TCP; the last `gone`
    never answer."""
    alive = [_controller(stage, rng, port) for _ in range(controllers - gone)]
    all_ = [*alive, *(stage.outsider(rng, answers=False) for _ in range(gone))]
    with stage.activity(
        "command_and_control", "T1008", "controllers in turn", [me], all_, "tcp", [port]
    ):
        for number in range(count):
            with (
                suppress(OSError),
                wire.connect(all_[number % len(all_)], port, timeout=4.0) as link,
            ):
                link.sendall(wire.filler(rng.randint(20, 90)))
                link.recv(256)
            stage.pause(rng, interval, jitter)


def questions(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    interval: float = 6.0,
    jitter: float = 0.3,
    count: int = 150,
) -> None:
    """Orders fetched as TXT records of one name server outside: small questions, alike, at
    intervals."""
    address = stage.outsider(rng)
    stage.start(
        stage.one("internet"), lambda: servers.dns(stage, address), "name server of a controller"
    )
    stage.sleep(0.3)
    with stage.activity(
        "command_and_control", "T1071.004", "DNS questions", [me], [address], "udp", [53]
    ):
        for number in range(count):
            wire.dns(address, f"{number % 16:02d}.c.example.org", rng, kind=16)
            stage.pause(rng, interval, jitter)
