"""A network drawn from a seed: its addresses, its devices, the ports they offer, and how busy it
is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ids_plugin.simulation.contacts import Sensor
from ids_plugin.simulation.draws import (
    I64,
    Bool,
    Generator,
    log_uniform_integers,
    log_uniform_value,
    public_addresses,
)

NETWORK_KINDS: dict[str, tuple[int, int, dict[str, float]]] = {
    "home": (
        3,
        25,
        {
            "bulb": 3,
            "camera": 1,
            "sensor": 2,
            "tv": 1.5,
            "workstation": 3,
            "phone": 3,
            "printer": 0.7,
            "console": 1,
            "nas": 0.6,
        },
    ),
    "iot": (
        3,
        120,
        {
            "bulb": 4,
            "camera": 3,
            "sensor": 6,
            "hub": 2,
            "broker": 0.3,
            "recorder": 0.4,
            "workstation": 0.3,
        },
    ),
    "office": (
        8,
        150,
        {
            "workstation": 8,
            "phone": 2,
            "printer": 1,
            "voip": 2,
            "server": 1,
            "nas": 0.4,
            "camera": 0.6,
            "tv": 0.2,
        },
    ),
    "gateway": (
        4,
        80,
        {
            "sensor": 5,
            "bulb": 2,
            "camera": 1,
            "hub": 1,
            "broker": 0.5,
            "server": 0.5,
            "phone": 1,
            "workstation": 1,
        },
    ),
    "exposed": (1, 8, {"server": 5, "mail": 0.6, "nameserver": 0.6}),
    "enterprise": (
        20,
        200,
        {
            "workstation": 8,
            "server": 3,
            "database": 1,
            "directory": 0.5,
            "printer": 0.6,
            "voip": 1,
            "monitor": 0.3,
            "mail": 0.3,
            "nameserver": 0.3,
        },
    ),
}
"""kind → fewest and most hosts, and how often each device type occurs"""

OFFERED_PORTS: dict[str, tuple[int, ...]] = {
    "bulb": (80,),
    "hub": (80, 443, 8080),
    "camera": (80, 554, 23, 8000),
    "sensor": (80, 22),
    "tv": (8008, 8009, 7000),
    "workstation": (135, 445, 3389),
    "phone": (),
    "printer": (80, 443, 515, 631, 9100),
    "console": (),
    "nas": (22, 80, 139, 445, 5000),
    "broker": (22, 1883, 8883),
    "recorder": (80, 554, 8000),
    "voip": (80, 5060),
    "server": (22, 80, 443, 21, 8080),
    "mail": (22, 25, 143, 587, 993),
    "nameserver": (22, 53),
    "database": (22, 3306, 5432, 1433),
    "directory": (53, 88, 389, 445, 636),
    "monitor": (22, 443),
}
"""device type → TCP ports such a device may offer; each unit offers most of them"""


@dataclass(slots=True)
class Ranges:
    """What a corpus may draw from; corpora that judge use other ends of the ranges than those that
    train.
    """

    period: tuple[float, float] = (5.0, 7200.0)
    jitter: tuple[float, float] = (0.0, 0.8)
    rate: tuple[float, float] = (1 / 60, 1e4)
    attacks: tuple[int, int] = (1, 8)
    size: tuple[float, float] = (40, 6000)


@dataclass(slots=True)
class Network:
    """One sensor's world. Arrays over hosts have shape (hosts)."""

    sensor: Sensor
    kind: str
    seconds: float
    is_public: bool
    first_address: int
    """code of the local network's first address; `width` addresses follow"""
    width: int
    hosts: I64
    types: npt.NDArray[np.str_]
    gateway: int
    resolver: int
    open_ports: I64
    """host code · 65536 + port, sorted"""
    drops_silently: bool
    """closed ports stay silent instead of refusing"""
    activity: float
    """how busy people and devices are beside the usual"""
    start_hour: float
    """hour of the day at which the recording begins"""
    fault_factor: float
    """how often connections fail beside the usual"""
    has_ipv6: bool
    """reaches some peers by IPv6"""
    ranges: Ranges = field(default_factory=Ranges)

    def of_type(self, *types: str) -> I64:
        """Hosts of these types."""
        return np.asarray(self.hosts[np.isin(self.types, types)])

    def unused_addresses(self, rng: Generator, n: int) -> I64:
        """n local addresses where nobody is (as far as the width allows)."""
        return np.asarray(self.first_address + rng.integers(2, self.width - 1, n))

    def offers(self, hosts: I64, ports: I64) -> Bool:
        """Whether something listens there."""
        return np.isin(hosts * 65536 + ports, self.open_ports)


def _block(rng: Generator, public: bool, hosts: int) -> tuple[int, int]:
    width = 256 if hosts < 100 or rng.random() < 0.5 else 4096
    if public:
        base = int(public_addresses(rng, 1)[0]) & ~(width - 1)
    else:
        heads = (
            (10 << 24) + (int(rng.integers(0, 65536)) << 8),
            (172 << 24) + (int(rng.integers(16 << 8, 32 << 8)) << 8),
            (192 << 24) + (168 << 16) + (int(rng.integers(0, 256)) << 8),
        )
        base = heads[rng.integers(0, 3)] & ~(width - 1)
    return base, width


def _sensor(rng: Generator, name: str, number: int, local_range: tuple[int, int]) -> Sensor:
    services = ("ntp", "quic", "mqtt", "sip", "snmp", "dhcp", "rdp", "smb")
    return Sensor(
        name=name,
        source=str(rng.choice(["zeek", "suricata", "capture"])),
        begin_us=int((1_640_995_200 + int(rng.integers(0, 4 * 365 * 86400))) * 1_000_000),
        salt=int(rng.integers(0, 2**31)),
        first_uid_number=number << 28,
        local_ranges=(local_range,),
        reports_locality=bool(rng.random() < 0.7),
        unrecognised_services=frozenset(s for s in services if rng.random() < 0.3),
    )


def draw_network(rng: Generator, name: str, hours: float, number: int, ranges: Ranges) -> Network:
    """A network of a drawn kind, watched for up to `hours`; `number`, below 2²⁴, keeps its uids its
    own.
    """
    kind = str(rng.choice(list(NETWORK_KINDS), p=[0.2, 0.24, 0.18, 0.16, 0.12, 0.1]))
    low, high, mixture = NETWORK_KINDS[kind]
    count = int(log_uniform_integers(rng, low, high + 1, 1)[0])
    public = kind == "exposed" or rng.random() < 0.12
    base, width = _block(rng, public, count)
    hosts = base + 2 + rng.choice(width - 4, min(count, width - 4), replace=False).astype(np.int64)
    weights = np.array(list(mixture.values()))
    types = rng.choice(list(mixture), len(hosts), p=weights / weights.sum()).astype(np.str_)
    ports = [
        int(h) * 65536 + p
        for h, times in zip(hosts, types, strict=True)
        for p in OFFERED_PORTS[times]
        if rng.random() < 0.8
    ]
    gateway = base + 1
    ports += [gateway * 65536 + p for p in (53, 80, 443)]
    sensor = _sensor(rng, name, number, (base, base + width - 1))
    return Network(
        sensor=sensor,
        kind=kind,
        seconds=3600 * log_uniform_value(rng, min(1.0, hours), hours) * min(1.0, 20 / len(hosts)),
        is_public=public,
        first_address=base,
        width=width,
        hosts=hosts,
        types=types,
        gateway=gateway,
        resolver=gateway if rng.random() < 0.6 else int(public_addresses(rng, 1)[0]),
        open_ports=np.unique(np.array(ports, dtype=np.int64)),
        drops_silently=bool(rng.random() < 0.5),
        activity=log_uniform_value(rng, 0.3, 2.0),
        start_hour=float(rng.uniform(0, 24)),
        fault_factor=log_uniform_value(rng, 0.3, 3.0),
        has_ipv6=bool(rng.random() < 0.25),
        ranges=ranges,
    )
