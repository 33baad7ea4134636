"""Guessing passwords (ATT&CK T1110.001)."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from tests.lab import wire
from tests.lab.daemons import PASSWORD, USER
from tests.lab.network import Host
from tests.lab.stage import Stage

PORTS = {"ssh": 22, "ftp": 21, "mqtt": 1883}


def _label(
    stage: Stage, name: str, me: Host, target: Host, port: int
) -> AbstractContextManager[None]:
    return stage.activity("brute_force", "T1110.001", name, [me], [target], "tcp", [port])


def _target(stage: Stage, me: Host, rng: random.Random, service: str) -> Host:
    if service == "mqtt":
        return stage.one("broker")
    roles = ("server", "nas") if service == "ftp" else ("server", "nas", "exposed")
    return rng.choice([host for host in stage.role(*roles) if host is not me])


def _words(stage: Stage, rng: random.Random, tries: int, hit: bool) -> Path:
    words = [
        f"{rng.choice(('summer', 'admin', 'pass', 'welcome'))}{rng.randrange(10**5)}"
        for _ in range(tries)
    ]
    if hit:
        words[-1] = PASSWORD
    file = stage.folder / f"words-{rng.randrange(10**9)}.txt"
    file.write_text("\n".join(words) + "\n")
    return file


def hydra(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    service: str = "ssh",
    tries: int = 80,
    tasks: int = 4,
    limit: float = 60.0,
    hit: bool = False,
) -> None:
    """hydra against SSH or FTP."""
    target = _target(stage, me, rng, service)
    command = [
        "hydra",
        "-I",
        "-l",
        USER,
        "-P",
        str(_words(stage, rng, tries, hit)),
        "-t",
        str(tasks),
        "-f",
    ]
    with _label(stage, f"hydra {service}", me, target, PORTS[service]):
        stage.note(
            f"hydra: {stage.tool([*command, f'{service}://{target.address}'], limit)[-400:]}"
        )


def ncrack(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    service: str = "ssh",
    tries: int = 60,
    links: int = 3,
    limit: float = 60.0,
) -> None:
    """ncrack against SSH, FTP or the broker."""
    target = _target(stage, me, rng, service)
    options = f"{service}://{target.address}:{PORTS[service]},CL={links}"
    command = ["ncrack", "-v", "--user", USER, "-P", str(_words(stage, rng, tries, False)), options]
    with _label(stage, f"ncrack {service}", me, target, PORTS[service]):
        stage.note(f"ncrack: {stage.tool(command, limit)[-400:]}")


def medusa(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    service: str = "ssh",
    tries: int = 60,
    tasks: int = 2,
    limit: float = 60.0,
) -> None:
    """medusa against SSH or FTP."""
    target = _target(stage, me, rng, service)
    words = _words(stage, rng, tries, False)
    command = [
        "medusa",
        "-h",
        target.address,
        "-u",
        USER,
        "-P",
        str(words),
        "-M",
        service,
        "-t",
        str(tasks),
    ]
    with _label(stage, f"medusa {service}", me, target, PORTS[service]):
        stage.note(f"medusa: {stage.tool(command, limit)[-400:]}")


def ssh_script(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    tries: int = 40,
    wait: float = 1.0,
    full: bool = False,
) -> None:
    """A script that tries SSH one connection a guess: the key exchange's beginning, or full logins
    with OpenSSH."""
    target = _target(stage, me, rng, "ssh")
    options = [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ConnectTimeout=4",
    ]
    options += [
        "-o",
        "NumberOfPasswordPrompts=1",
        "-o",
        "PubkeyAuthentication=no",
        f"{USER}@{target.address}",
        "true",
    ]
    with _label(stage, "ssh script", me, target, 22):
        for number in range(tries):
            if full:
                stage.tool(["sshpass", "-p", f"guess{number}", "ssh", *options], 10)
            else:
                with suppress(OSError):
                    wire.ssh_knock(target.address, 22)
            stage.sleep(wait * rng.uniform(0.4, 1.6))


def hydra_telnet(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    tries: int = 40,
    tasks: int = 2,
    limit: float = 90.0,
) -> None:
    """hydra against one device's telnet, at whichever of its two ports listens."""
    device = rng.choice([host for host in stage.role("gadget", "camera") if host is not me])
    port = 2323
    with suppress(OSError), wire.connect(device.address, 23, timeout=2.0):
        port = 23
    command = [
        "hydra",
        "-I",
        "-l",
        "root",
        "-P",
        str(_words(stage, rng, tries, False)),
        "-t",
        str(tasks),
        "-s",
    ]
    with _label(stage, "hydra telnet", me, device, port):
        stage.note(
            f"hydra: {stage.tool([*command, str(port), f'telnet://{device.address}'], limit)[-400:]}"  # noqa: E501
        )


def mqtt(
    stage: Stage,
    me: Host,
    rng: random.Random,
    *,
    tries: int = 100,
    wait: float = 0.3,
    hit: bool = False,
) -> None:
    """Passwords tried against the broker, one CONNECT each."""
    broker = stage.one("broker")
    refused = 0
    with _label(stage, "MQTT guesses", me, broker, 1883):
        for number in range(tries):
            guess = PASSWORD if hit and number == tries - 1 else f"guess{rng.randrange(10**6)}"
            with suppress(OSError):
                client = wire.Mqtt(
                    broker.address, 1883, f"c{number}", rng.choice((USER, "admin")), guess
                )
                refused += client.refused != 0
                client.close()
            stage.sleep(wait * rng.uniform(0.3, 1.7))
    stage.note(f"mqtt: {refused} of {tries} refused")


def telnet(
    stage: Stage, me: Host, rng: random.Random, *, tries: int = 40, wait: float = 0.6
) -> None:
    """Passwords tried against one device's telnet."""
    device = rng.choice([host for host in stage.role("gadget", "camera") if host is not me])
    with stage.activity(
        "brute_force", "T1110.001", "telnet guesses", [me], [device], "tcp", [23, 2323]
    ):
        for _ in range(tries):
            for port in (23, 2323):
                with suppress(OSError):
                    wire.telnet_login(device.address, port, "root", f"g{rng.randrange(10**5)}", [])
                    break
            stage.sleep(wait * rng.uniform(0.3, 1.7))


def form(
    stage: Stage, me: Host, rng: random.Random, *, tries: int = 120, wait: float = 0.2
) -> None:
    """Passwords posted to a device's web form, one connection each."""
    device = rng.choice([host for host in stage.role("gadget", "camera") if host is not me])
    with _label(stage, "web form guesses", me, device, 80):
        for _ in range(tries):
            with suppress(OSError):
                body = f"user=admin&password=g{rng.randrange(10**6)}".encode()
                wire.http(device.address, 80, ["/40/login"], body=body)
            stage.sleep(wait * rng.uniform(0.3, 1.7))
