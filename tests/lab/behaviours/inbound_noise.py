"""The internet's noise against an exposed host: many strangers, a few tries each (ATT&CK T1595.001,
T1110)."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from tests.lab import wire
from tests.lab.network import Host
from tests.lab.stage import Stage

PORTS = (22, 22, 22, 23, 80, 443, 445, 3389, 8080, 2323, 5900, 6379, 8443, 1433, 81)


def strangers(
    stage: Stage, me: Host, rng: random.Random, *, count: int = 60, wait: float = 2.0, most: int = 5
) -> None:
    """Strangers come one after the other (some at once), each with a few connections or datagrams,
    and leave.

    `me` is the internet: the strangers are addresses of it.
    """
    target = stage.one("exposed")
    crowd = [stage.outsider(rng) for _ in range(count)]
    with stage.activity(
        "inbound_noise", "T1595.001", "strangers", list(crowd), [target], None, None
    ):
        for address in crowd:
            for _ in range(rng.randint(1, most)):
                with suppress(OSError):
                    _knock(address, target, rng)
                stage.sleep(rng.uniform(0.02, 0.5))
            stage.sleep(rng.expovariate(1 / wait))


def _knock(address: str, target: Host, rng: random.Random) -> None:
    port, kind = rng.choice(PORTS), rng.random()
    if kind < 0.08:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.bind((address, 0))
            link.sendto(
                b"\x17\x00\x03\x2a" + bytes(4),
                (target.address, rng.choice((123, 161, 1900, 5060, 53))),
            )
    elif port == 22:
        wire.ssh_knock(target.address, 22, address)
    else:
        with wire.connect(target.address, port, source=address, timeout=1) as link:
            link.sendall(b"GET / HTTP/1.0\r\n\r\n")
            link.settimeout(1)
            link.recv(2048)
