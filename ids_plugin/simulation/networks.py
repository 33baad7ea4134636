"""A network drawn from a seed: addresses, devices, what they offer, and how its time is spent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ids_plugin.simulation.records import DONE, F64, I64, Bool, Sensor

Draw = np.random.Generator

KINDS: dict[str, tuple[int, int, dict[str, float]]] = {
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

OFFERS: dict[str, tuple[int, ...]] = {
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
    """What a corpus may draw from; corpora that judge use other ends of the ranges than those that train."""

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
    public: bool
    base: int
    """code of the local network's first address; `width` addresses follow"""
    width: int
    hosts: I64
    types: npt.NDArray[np.str_]
    gateway: int
    resolver: int
    open_ports: I64
    """host code · 65536 + port, sorted"""
    drops: bool
    """closed ports stay silent instead of refusing"""
    activity: float
    """how busy people and devices are beside the usual"""
    phase: float
    """hour of the day at which the recording begins"""
    trouble: float
    """how often connections fail beside the usual"""
    six: bool
    """reaches some peers by IPv6"""
    ranges: Ranges = field(default_factory=Ranges)

    def of(self, *types: str) -> I64:
        """Hosts of these types."""
        return np.asarray(self.hosts[np.isin(self.types, types)])

    def dead(self, rng: Draw, n: int) -> I64:
        """n local addresses where nobody is (as far as the width allows)."""
        return np.asarray(self.base + rng.integers(2, self.width - 1, n))

    def offers(self, hosts: I64, ports: I64) -> Bool:
        """Whether something listens there."""
        return np.isin(hosts * 65536 + ports, self.open_ports)


def cloud(rng: Draw, n: int) -> I64:
    """n public IPv4 addresses."""
    first = rng.integers(1, 223, n)
    first = np.where(np.isin(first, (10, 100, 127, 169, 172, 192, 198, 203)), first + 1, first)
    return np.asarray((first << 24) + rng.integers(1, (1 << 24) - 1, n))


def log_uniform(rng: Draw, low: float, high: float, n: int) -> F64:
    """(n) draws whose logarithm is uniform."""
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), n)))


def one(rng: Draw, low: float, high: float) -> float:
    """One log-uniform draw."""
    return float(log_uniform(rng, low, high, 1)[0])


def whole(rng: Draw, low: float, high: float, n: int) -> I64:
    """(n) log-uniform whole numbers."""
    return log_uniform(rng, low, high, n).astype(np.int64)


def ends(rng: Draw, n: int, odds: dict[int, float]) -> I64:
    """(n) endings; what the odds leave over is DONE."""
    edges = np.cumsum(list(odds.values()))
    names = np.array([*odds, DONE])
    return np.asarray(names[np.searchsorted(edges, rng.random(n), side="right")])


def beats(rng: Draw, begin: F64, end: F64, period: F64, jitter: F64) -> tuple[I64, F64]:
    """Times of m subjects that repeat something: (subject numbers, times), both (n).

    Gaps are `period` · (1 ± `jitter`); above .95 they are exponential. All arguments have shape (m).
    """
    m = len(begin)
    counts = np.ceil(np.maximum(end - begin, 0) / period * 1.1).astype(np.int64) + 4
    who = np.repeat(np.arange(m), counts)
    noise = 1 + jitter[who] * rng.uniform(-1, 1, len(who))
    noise = np.where(jitter[who] > 0.95, rng.exponential(1.0, len(who)), noise)
    gaps = np.maximum(period[who] * noise, 1e-5)
    firsts = np.cumsum(counts) - counts
    gaps[firsts] *= rng.random(m)
    total = np.cumsum(gaps)
    times = total - np.repeat(total[firsts] - gaps[firsts], counts) + begin[who]
    keep = times < end[who]
    return who[keep], times[keep]


def bursts(rng: Draw, t: F64, sizes: I64, spread: float) -> tuple[I64, F64]:
    """Every time becomes `sizes` times within about `spread` seconds: (number of the burst, times)."""
    who = np.repeat(np.arange(len(t)), sizes)
    return who, t[who] + rng.exponential(spread, len(who))


def awake(rng: Draw, net: Network, t: F64) -> Bool:
    """Which times survive the day's rhythm of people."""
    hour = (t / 3600 + net.phase) % 24
    return np.asarray(rng.random(len(t)) < 0.15 + 0.85 * np.exp(-((np.abs(hour - 15)) ** 2) / 40))


def _block(rng: Draw, public: bool, hosts: int) -> tuple[int, int]:
    width = 256 if hosts < 100 or rng.random() < 0.5 else 4096
    if public:
        base = int(cloud(rng, 1)[0]) & ~(width - 1)
    else:
        heads = (
            (10 << 24) + (int(rng.integers(0, 65536)) << 8),
            (172 << 24) + (int(rng.integers(16 << 8, 32 << 8)) << 8),
            (192 << 24) + (168 << 16) + (int(rng.integers(0, 256)) << 8),
        )
        base = heads[rng.integers(0, 3)] & ~(width - 1)
    return base, width


def _sensor(rng: Draw, name: str, number: int, nets: tuple[int, int]) -> Sensor:
    services = ("ntp", "quic", "mqtt", "sip", "snmp", "dhcp", "rdp", "smb")
    return Sensor(
        name=name,
        source=str(rng.choice(["zeek", "suricata", "capture"])),
        begin=int((1_640_995_200 + int(rng.integers(0, 4 * 365 * 86400))) * 1_000_000),
        salt=int(rng.integers(0, 2**31)),
        first_uid=number << 28,
        nets=(nets,),
        says_local=bool(rng.random() < 0.7),
        blind=frozenset(s for s in services if rng.random() < 0.3),
    )


def draw(rng: Draw, name: str, hours: float, number: int, ranges: Ranges) -> Network:
    """A network of a drawn kind, watched for up to `hours`; `number`, below 2²⁴, keeps its uids its own."""
    kind = str(rng.choice(list(KINDS), p=[0.2, 0.24, 0.18, 0.16, 0.12, 0.1]))
    low, high, mixture = KINDS[kind]
    count = int(whole(rng, low, high + 1, 1)[0])
    public = kind == "exposed" or rng.random() < 0.12
    base, width = _block(rng, public, count)
    hosts = base + 2 + rng.choice(width - 4, min(count, width - 4), replace=False).astype(np.int64)
    weights = np.array(list(mixture.values()))
    types = rng.choice(list(mixture), len(hosts), p=weights / weights.sum()).astype(np.str_)
    ports = [
        int(h) * 65536 + p
        for h, t in zip(hosts, types, strict=True)
        for p in OFFERS[t]
        if rng.random() < 0.8
    ]
    gateway = base + 1
    ports += [gateway * 65536 + p for p in (53, 80, 443)]
    sensor = _sensor(rng, name, number, (base, base + width - 1))
    return Network(
        sensor=sensor,
        kind=kind,
        seconds=3600 * one(rng, min(1.0, hours), hours) * min(1.0, 20 / len(hosts)),
        public=public,
        base=base,
        width=width,
        hosts=hosts,
        types=types,
        gateway=gateway,
        resolver=gateway if rng.random() < 0.6 else int(cloud(rng, 1)[0]),
        open_ports=np.unique(np.array(ports, dtype=np.int64)),
        drops=bool(rng.random() < 0.5),
        activity=one(rng, 0.3, 2.0),
        phase=float(rng.uniform(0, 24)),
        trouble=one(rng, 0.3, 3.0),
        six=bool(rng.random() < 0.25),
        ranges=ranges,
    )
