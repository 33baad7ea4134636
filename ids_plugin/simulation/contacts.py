"""Contacts, the simulator's intermediate form: who spoke to whom, when, how much, and how it ended.

A contact states an intent. `flow_records` derives from it everything that a sensor would have
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ids_plugin.schema.score import CLASSES
from ids_plugin.simulation.draws import F64, I64, Bool, Generator

TCP, UDP, ICMP = 0, 1, 2

(
    DONE,
    UNANSWERED,
    REFUSED,
    ABORTED,
    RESET,
    PROBED,
    ONGOING,
    HALF_CLOSED_BY_ORIG,
    HALF_CLOSED_BY_RESP,
    SYN_RST,
    BACKSCATTER,
    MIDSTREAM,
    BAD_CHECKSUM,
    SYN_ACK_UNANSWERED,
) = range(14)
"""How a contact ended. The last six are rare shapes: SYN then RST; an answer to a question the
sensor never saw; the middle of a connection; packets whose checksum the sensor refused; SYN-ACK
that nobody acknowledged."""

V6_LINK, V6_GROUP, V6_WIDE = 1 << 32, 2 << 32, 3 << 32
"""Address codes: below 2³² an IPv4 address; above, an IPv6 one with the low 32 bits as its last. In
V6_WIDE the first 65,536 are the network's own."""

SERVICES = (
    "", "dhcp", "dns", "ftp", "http", "imap", "irc", "ldap_tcp", "mqtt", "mysql", "ntp", "quic",
    "rdp", "sip", "smb", "smtp", "snmp", "ssh", "ssl",
)  # fmt: skip
"""In order, because they are looked up in it"""

_SERVICES = np.array(SERVICES)


@dataclass(frozen=True, slots=True)
class Contacts:
    """n contacts of one activity; every array has shape (n)."""

    activity: str
    label: int
    time: F64
    """seconds since the network's recording began"""
    orig: I64
    resp: I64
    orig_port: I64
    resp_port: I64
    proto: I64
    service: I64
    """index into SERVICES"""
    ending: I64
    orig_bytes: I64
    """payload bytes from the originator; `resp_bytes` from the responder"""
    resp_bytes: I64
    duration: F64
    """seconds from first to last packet; 0: what the exchange itself needs"""
    data_packets: I64
    """at least so many data packets each way; 0: as many as this service usually needs"""
    attempts: I64
    """packets a TCP originator sends where there is no connection; 0: drawn as its system would"""
    syn_option_bytes: I64
    """length of the SYN's TCP options, for tools that build their own packets; -1: the host's own
    """


def make_contacts(
    rng: Generator,
    activity: str,
    time: F64,
    orig: npt.ArrayLike,
    resp: npt.ArrayLike,
    resp_port: npt.ArrayLike,
    *,
    proto: npt.ArrayLike = TCP,
    service: npt.ArrayLike = "",
    ending: npt.ArrayLike = DONE,
    orig_bytes: npt.ArrayLike = 0,
    resp_bytes: npt.ArrayLike = 0,
    duration: npt.ArrayLike = 0.0,
    data_packets: npt.ArrayLike = 0,
    attempts: npt.ArrayLike = 0,
    syn_option_bytes: npt.ArrayLike = -1,
    orig_port: npt.ArrayLike | None = None,
    label: str = "benign",
) -> Contacts:
    """Contacts at `time`, shape (n); every other value is broadcast to (n).

    `service` holds names of SERVICES. Without `orig_port` the ports are drawn as a host's system
    would.

    Raises:
        ValueError: a service isn't in SERVICES.
    """
    count = len(time)

    def integers(value: npt.ArrayLike) -> I64:
        return np.broadcast_to(np.asarray(value), (count,)).astype(np.int64)

    orig_ports = rng.integers(32768, 61000, count) if orig_port is None else orig_port
    return Contacts(
        activity=activity,
        label=CLASSES.index(label),
        time=time.astype(np.float64),
        orig=integers(orig),
        resp=integers(resp),
        orig_port=integers(orig_ports),
        resp_port=integers(resp_port),
        proto=integers(proto),
        service=integers(_service_codes(np.asarray(service))),
        ending=integers(ending),
        orig_bytes=integers(orig_bytes),
        resp_bytes=integers(resp_bytes),
        duration=np.broadcast_to(np.asarray(duration, dtype=np.float64), (count,)),
        data_packets=integers(data_packets),
        attempts=integers(attempts),
        syn_option_bytes=integers(syn_option_bytes),
    )


def _service_codes(names: npt.NDArray[np.str_]) -> I64:
    codes = np.minimum(np.searchsorted(_SERVICES, names), len(SERVICES) - 1)
    if (_SERVICES[codes] != names).any():
        raise ValueError(f"not in SERVICES: {set(np.atleast_1d(names).tolist()) - set(SERVICES)}")
    return np.asarray(codes, dtype=np.int64)


def take_contacts(contacts: Contacts, where: I64) -> Contacts:
    """The contacts at the row numbers `where`."""
    columns = (getattr(contacts, name)[where] for name in Contacts.__slots__[2:])
    return Contacts(contacts.activity, contacts.label, *columns)


def join_contacts(batches: list[Contacts]) -> tuple[Contacts, I64, I64]:
    """All contacts as one batch, and per contact the numbers of its label and of its batch."""
    sizes = [len(contacts.time) for contacts in batches]
    columns = (
        np.concatenate([getattr(contacts, name) for contacts in batches])
        for name in Contacts.__slots__[2:]
    )
    labels = np.repeat(np.array([contacts.label for contacts in batches], dtype=np.int64), sizes)
    return Contacts("", 0, *columns), labels, np.repeat(np.arange(len(batches)), sizes)


@dataclass(frozen=True, slots=True)
class Sensor:
    """How a network is watched."""

    name: str
    source: str
    begin_us: int
    """µs since 1970"""
    salt: int
    first_uid_number: int
    local_ranges: tuple[tuple[int, int], ...]
    """(first, last) address codes that are local"""
    reports_locality: bool
    unrecognised_services: frozenset[str]
    """services this sensor's version doesn't recognise"""

    def is_local(self, codes: I64) -> Bool:
        """Which addresses belong to the network."""
        inside = ((codes >= V6_LINK) & (codes < V6_GROUP)) | (
            (codes >= V6_WIDE) & (codes < V6_WIDE + 65536)
        )
        for low, high in self.local_ranges:
            inside |= (codes >= low) & (codes <= high)
        return np.asarray(inside)


def draw_endings(rng: Generator, n: int, odds: dict[int, float]) -> I64:
    """(n) endings; what the odds leave over is DONE."""
    edges = np.cumsum(list(odds.values()))
    names = np.array([*odds, DONE])
    return np.asarray(names[np.searchsorted(edges, rng.random(n), side="right")])
