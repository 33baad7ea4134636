"""The hosts of a run, drawn by its seed, and the services on them."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Mapping
from functools import partial

from tests.lab import daemons, servers
from tests.lab.network import Host, Reach
from tests.lab.stage import Stage

OUTSIDE = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
"""The documentation ranges (RFC 5737) play the internet."""
UPSTREAM, POOL = "192.0.2.53", "192.0.2.123"
"""DNS and NTP servers out there."""
COUNTS: dict[str, object] = {
    "sensor": [2, 5],
    "camera": [1, 2],
    "gadget": [2, 4],
    "workstation": [1, 3],
    "laptop": 1,
    "admin": 1,
}
"""Hosts a role, unless the scenario's [hosts] says otherwise."""
PLACES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


def draw(value: object, rng: random.Random) -> object:
    """A scenario's value: two numbers are a range, a longer list or one of texts a choice, all else
    itself."""
    if isinstance(value, list):
        if len(value) == 2 and all(type(item) is int for item in value):
            return rng.randint(value[0], value[1])
        if len(value) == 2 and all(type(item) in {int, float} for item in value):
            return rng.uniform(value[0], value[1])
        return draw(rng.choice(value), rng)
    return value


def subnet(rng: random.Random) -> ipaddress.IPv4Network:
    """A private /24."""
    place = ipaddress.ip_network(rng.choice(PLACES))
    assert isinstance(place, ipaddress.IPv4Network)
    step = rng.randrange(1, 2 ** (24 - place.prefixlen) - 1)
    return ipaddress.IPv4Network((int(place.network_address) + step * 256, 24))


def build(stage: Stage, counts: Mapping[str, object]) -> None:
    """Makes hosts and starts their services."""
    rng = stage.rng("world")
    base = stage.network.subnet.network_address
    free = [str(base + number) for number in rng.sample(range(2, 190), 60)]
    for role in ("resolver", "broker", "server", "nas", "recorder", "exposed"):
        stage.network.add(role, role, free.pop())
    for role, wanted in {**COUNTS, **counts}.items():
        number = draw(wanted, rng)
        assert isinstance(number, int), f"[hosts] {role}: a number is wanted"
        for index in range(number):
            stage.network.add(f"{role}{index}", role, free.pop(), _reach(role, rng))
    crowd = str(base + 250)
    stage.network.add(
        "crowd",
        "crowd",
        crowd,
        _reach("crowd", rng),
        answers=f"{base + 192}/27",
        silent=f"{base + 224}/28",
    )
    _outside(stage, rng)
    stage.names.update({f"{host.name}.lan": host.address for host in stage.local()})
    stage.network.carry()
    daemons.prepare(stage)
    _serve(stage)


def _reach(role: str, rng: random.Random) -> Reach:
    """People's hosts are near; small devices hang on a radio and take their time."""
    if role in {"workstation", "laptop", "admin"}:
        return Reach(rng.uniform(0.0002, 0.002), rng.uniform(0.0, 0.002))
    return Reach(
        rng.uniform(0.0005, 0.006), rng.uniform(0.001, 0.012), rng.choice((0.0, 0.001, 0.004))
    )


def _outside(stage: Stage, rng: random.Random) -> None:
    addresses = [
        str(address)
        for net in OUTSIDE
        for address in list(ipaddress.ip_network(net).hosts())[1:200]
    ]
    addresses = [address for address in addresses if address not in {UPSTREAM, POOL}]
    rng.shuffle(addresses)
    internet = stage.network.add_outside(
        "internet", "internet", "192.0.2.1", Reach(0.004, 0.004, 0.001, 0.09)
    )
    for net in OUTSIDE:
        stage.network.route_outside(internet, net)
    stage.network.add_outside(
        "outside", "outside", addresses.pop(), Reach(rng.uniform(0.01, 0.08), 0.003)
    )
    stage.network.add_outside(
        "tunnel", "tunnel", addresses.pop(), Reach(rng.uniform(0.01, 0.08), 0.003)
    )
    stage.sites = [addresses.pop() for _ in range(rng.randint(8, 16))]
    stage.clouds = [addresses.pop() for _ in range(rng.randint(3, 6))]
    for address in (UPSTREAM, POOL, *stage.sites, *stage.clouds):
        stage.network.own(internet, address)
    annex = subnet(rng)
    while annex == stage.network.subnet:
        annex = subnet(rng)
    stage.network.route_outside(internet, str(annex))
    stage.network.own(internet, f"{annex.network_address + 64}/27")
    stage.annex = str(annex)
    stage.spare = addresses


def _serve(stage: Stage) -> None:
    one = {host.role: host for host in stage.network.hosts}
    certificate = stage.folder / "both.pem"
    resolver = one["resolver"]
    _on(stage, resolver, lambda: daemons.dnsmasq(stage, resolver.address, UPSTREAM))
    _on(stage, resolver, lambda: servers.ntp(stage, resolver.address))
    _on(stage, one["broker"], lambda: daemons.mosquitto(stage))
    for role in ("server", "nas", "exposed"):
        _on(stage, one[role], lambda: daemons.sshd(stage))
    for role in ("server", "nas"):
        _on(stage, one[role], lambda: daemons.vsftpd(stage))
    for role in ("server", "exposed"):
        _on(stage, one[role], partial(daemons.nginx, stage, role))
    _on(stage, one["recorder"], lambda: servers.tcp(stage, 554, servers.talk))
    _on(stage, one["recorder"], lambda: servers.udp_sink(stage, one["recorder"].address, 5004, 200))
    rng = stage.rng("gadgets")
    for gadget in stage.role("gadget", "camera"):
        _on(stage, gadget, lambda: servers.tcp(stage, 80, servers.http))
        password = rng.choice(("admin", "xc3511", "vizxv", "unguessable"))
        port = rng.choice((23, 23, 2323))
        _on(stage, gadget, partial(servers.tcp, stage, port, servers.telnet(stage, password)))
    internet = one["internet"]
    for port in (80, 8080):
        _on(stage, internet, partial(servers.tcp, stage, port, servers.http))
    _on(stage, internet, lambda: servers.tcp(stage, 443, servers.http, certificate))
    _on(stage, internet, lambda: servers.tcp(stage, 8883, servers.talk, certificate))
    _on(stage, internet, lambda: servers.dns(stage, UPSTREAM))
    _on(stage, internet, lambda: servers.ntp(stage, POOL))


def _on(stage: Stage, host: Host, work: Callable[[], None]) -> None:
    stage.start(host, work, f"{host.name} service")
