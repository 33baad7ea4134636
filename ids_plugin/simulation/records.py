"""From contacts (who spoke to whom, how much, how it ended) to flows as Zeek would have logged them.

A contact names intents; everything a sensor would have counted follows from it here: packets, headers, history,
state, and which values stay unset. https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from ipaddress import IPv6Address
from itertools import product

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.schema.flow import SCHEMA
from ids_plugin.schema.score import CLASSES

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

TCP, UDP, ICMP = 0, 1, 2
(
    DONE,
    UNANSWERED,
    REFUSED,
    ABORTED,
    RESET,
    PROBED,
    ONGOING,
    HALF_O,
    HALF_R,
    SYN_RST,
    BACKSCATTER,
    MIDSTREAM,
    GHOST,
    UNACKED,
) = range(14)
"""How a contact ended. The last six are rare shapes: SYN then RST; an answer to a question the sensor never saw;
the middle of a connection; packets whose checksum the sensor refused; SYN-ACK that nobody acknowledged."""

STATES = (
    "SF",
    "S0",
    "REJ",
    "RSTO",
    "RSTR",
    "RSTO",
    "S1",
    "S2",
    "S3",
    "RSTOS0",
    "SHR",
    "OTH",
    "OTH",
    "S1",
)
V6_LINK, V6_GROUP, V6_WIDE = 1 << 32, 2 << 32, 3 << 32
"""Address codes: below 2³² an IPv4 address; above, an IPv6 one with the low 32 bits as its last. In V6_WIDE the first
65,536 are the network's own."""

SERVICES = (
    "", "dhcp", "dns", "ftp", "http", "imap", "irc", "ldap_tcp", "mqtt", "mysql", "ntp", "quic", "rdp", "sip", "smb",
    "smtp", "snmp", "ssh", "ssl",
)  # fmt: skip
"""In order, because they are looked up in it"""
_SERVICES = np.array(SERVICES)

_V6 = {
    1: int(IPv6Address("fe80::200:ff:fe00:0")),
    2: int(IPv6Address("ff02::")),
    3: int(IPv6Address("2a0e:97c0::")),
}
_BODIES = (
    "ShA",
    "ShADa",
    "ShAda",
    "ShADad",
    "ShAdDa",
    "ShADda",
    "S",
    "Sr",
    "SrR",
    "ShR",
    "SR",
    "^hr",
    "^h",
    "DdA",
    "DAa",
    "dAa",
    "Aa",
    "C",
    "Sh",
    "^d",
    "D",
    "Dd",
)
_LOSSES = ("", "t", "T", "Tt", "g", "W")
_TAILS = ("", "Ff", "fF", "FfR", "fFr", "R", "FR", "fR", "r", "fr", "Fr", "F", "f", "Ffrr")
_HISTORIES = pl.Series(
    [*("".join(parts) for parts in product(_BODIES, _LOSSES, _TAILS)), None], dtype=pl.String
)
_BODY = {name: i for i, name in enumerate(_BODIES)}
_TAIL = {name: i for i, name in enumerate(_TAILS)}


@dataclass(frozen=True, slots=True)
class Batch:
    """n contacts of one activity; every array has shape (n)."""

    detail: str
    label: int
    t: F64
    """seconds since the network's recording began"""
    orig: I64
    resp: I64
    orig_port: I64
    resp_port: I64
    proto: I64
    service: I64
    """index into SERVICES"""
    ending: I64
    up: I64
    """payload bytes from the originator; `down` from the responder"""
    down: I64
    span: F64
    """seconds from first to last packet; 0: what the exchange itself needs"""
    rounds: I64
    """at least so many data packets each way; 0: as many as this service usually needs"""
    attempts: I64
    """packets a TCP originator sends where there is no connection; 0: drawn as its system would"""
    syn: I64
    """length of the SYN's TCP options, for tools that build their own packets; -1: the host's own"""


def batch(
    rng: np.random.Generator,
    detail: str,
    t: F64,
    orig: npt.ArrayLike,
    resp: npt.ArrayLike,
    port: npt.ArrayLike,
    *,
    proto: npt.ArrayLike = TCP,
    service: npt.ArrayLike = "",
    ending: npt.ArrayLike = DONE,
    up: npt.ArrayLike = 0,
    down: npt.ArrayLike = 0,
    span: npt.ArrayLike = 0.0,
    rounds: npt.ArrayLike = 0,
    attempts: npt.ArrayLike = 0,
    syn: npt.ArrayLike = -1,
    orig_port: npt.ArrayLike | None = None,
    label: str = "benign",
) -> Batch:
    """Contacts at `t`; everything else is broadcast to its shape (n)."""
    n = len(t)

    def whole(value: npt.ArrayLike) -> I64:
        return np.broadcast_to(np.asarray(value), (n,)).astype(np.int64)

    source = rng.integers(32768, 61000, n) if orig_port is None else orig_port
    return Batch(
        detail,
        CLASSES.index(label),
        t.astype(np.float64),
        whole(orig),
        whole(resp),
        whole(source),
        whole(port),
        whole(proto),
        whole(_service_codes(np.asarray(service))),
        whole(ending),
        whole(up),
        whole(down),
        np.broadcast_to(np.asarray(span, dtype=np.float64), (n,)),
        whole(rounds),
        whole(attempts),
        whole(syn),
    )


def _service_codes(names: npt.NDArray[np.str_]) -> I64:
    codes = np.minimum(np.searchsorted(_SERVICES, names), len(SERVICES) - 1)
    if (_SERVICES[codes] != names).any():
        raise ValueError(f"not in SERVICES: {set(np.atleast_1d(names).tolist()) - set(SERVICES)}")
    return np.asarray(codes, dtype=np.int64)


def mix(code: I64, salt: int) -> I64:
    """(n) well-spread non-negative numbers that depend on code and salt alone: habits that stay with an address."""
    z = code.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(2)).astype(np.int64)


def addresses(codes: I64) -> pl.Series:
    """(n) canonical text of address codes."""
    octets = pl.Series([str(i) for i in range(256)])
    parts = [octets.gather((codes >> shift) & 255) for shift in (24, 16, 8, 0)]
    text = pl.select(
        pl.concat_str([p.alias(str(i)) for i, p in enumerate(parts)], separator=".")
    ).to_series()
    wide = np.flatnonzero(codes >= V6_LINK)
    if len(wide) == 0:
        return text
    unique, back = np.unique(codes[wide], return_inverse=True)
    names = [str(IPv6Address(_V6[int(c) >> 32] + (int(c) & 0xFFFFFFFF))) for c in unique]
    return text.scatter(wide, pl.Series(names).gather(back))


@dataclass(slots=True)
class _Packets:
    """What a sensor counted; arrays of shape (n)."""

    orig: I64
    resp: I64
    orig_ip: I64
    resp_ip: I64
    span: F64
    up: I64
    down: I64
    history: I64
    missed: I64


def _stack(codes: I64, salt: int) -> tuple[I64, I64]:
    """TCP options of a host: length on SYN, length on every other packet (timestamps or none)."""
    kind = mix(codes, salt) % 10
    return np.select([kind < 6, kind < 8], [20, 12], 4), np.where(kind < 6, 12, 0)


def _latency(rng: np.random.Generator, orig: I64, resp: I64, near: Bool, salt: int) -> F64:
    """Round-trip seconds: a pair's own, with some noise."""
    share = (mix(orig * 31 + resp, salt) % 1000) / 1000
    base = np.where(near, 2e-4 * 20**share, 4e-3 * 60**share)
    return np.asarray(base * rng.lognormal(0, 0.25, len(orig)))


def _choose(rng: np.random.Generator, n: int, names: dict[str, float], book: dict[str, int]) -> I64:
    weights = np.array(list(names.values()))
    edges = np.cumsum(weights / weights.sum())[:-1]
    return np.array([book[k] for k in names])[np.searchsorted(edges, rng.random(n))]


def _history(body: I64, loss: I64, tail: I64) -> I64:
    return (body * len(_LOSSES) + loss) * len(_TAILS) + tail


_ENDS: dict[int, dict[str, float]] = {
    DONE: {"Ff": 0.52, "fF": 0.38, "FfR": 0.04, "fFr": 0.04, "Ffrr": 0.02},
    ABORTED: {"R": 0.8, "FR": 0.12, "fR": 0.08},
    RESET: {"r": 0.72, "fr": 0.18, "Fr": 0.1},
    ONGOING: {"": 1.0},
    HALF_O: {"F": 1.0},
    HALF_R: {"f": 1.0},
}


def _established(rng: np.random.Generator, b: Batch, rtt: F64, salt: int) -> _Packets:
    """TCP that got past its handshake."""
    n = len(b.t)
    syn, each = _stack(b.orig, salt)
    syn_r, each_r = _stack(b.resp, salt)
    each = np.minimum(each, each_r)
    mss = np.where(mix(b.orig + b.resp, salt) % 4 == 0, 1380, 1460) - each
    usual = 1 + mix(b.resp * 65536 + b.resp_port, salt + 7) % 9
    rounds = np.where(
        b.rounds > 0, b.rounds, np.ceil(usual * rng.uniform(0.6, 1.4, n)).astype(np.int64)
    )
    out = np.where(b.up > 0, np.maximum(-(-b.up // mss), np.minimum(rounds, 1 + b.up // 16)), 0)
    back = np.where(
        b.down > 0, np.maximum(-(-b.down // mss), np.minimum(rounds, 1 + b.down // 16)), 0
    )
    lazy = rng.uniform(0.35, 1.0, n)
    talk = np.minimum(out, back)
    ends_o = np.isin(b.ending, (DONE, ABORTED, HALF_O)).astype(np.int64)
    ends_r = np.isin(b.ending, (DONE, RESET, HALF_R)).astype(np.int64)
    orig = (
        2
        + out
        + np.ceil((back - talk * rng.random(n)) * lazy).astype(np.int64)
        + ends_o
        + rng.integers(0, 2, n)
    )
    resp = 1 + back + np.ceil((out - talk * rng.random(n)) * lazy).astype(np.int64) + ends_r
    resp += (rng.random(n) < 0.5) & (out > 0)
    lost = rng.random(n) < 1 - (1 - mix(b.resp, salt + 1) % 100 / 2500.0) ** np.minimum(
        orig + resp, 60
    )
    loss = np.where(
        lost & (out + back > 0),
        _choose(
            rng,
            n,
            dict.fromkeys(_LOSSES[1:], 0.05) | {"t": 0.55, "T": 0.2},
            {v: i for i, v in enumerate(_LOSSES)},
        ),
        0,
    )
    orig += (loss == 1) + (loss == 3)
    resp += (loss == 2) + (loss == 3)
    first = mix(b.resp * 65536 + b.resp_port, salt + 2) % 12
    both = np.select(
        [np.isin(b.resp_port, (21, 22, 23, 25, 110, 143, 587, 2323, 3306, 6667)), first == 0],
        [_BODY["ShAdDa"], _BODY["ShADda"]],
        _BODY["ShADad"],
    )
    body = np.select(
        [(b.up > 0) & (b.down > 0), b.up > 0, b.down > 0],
        [both, _BODY["ShADa"], _BODY["ShAda"]],
        _BODY["ShA"],
    )
    tail = np.zeros(n, dtype=np.int64)
    habit = mix(b.resp * 65536 + b.resp_port, salt + 3) % 100
    for ending, names in _ENDS.items():
        where = np.flatnonzero(b.ending == ending)
        if len(where):
            tail[where] = _choose(rng, len(where), names, _TAIL)
    done = b.ending == DONE
    usual = np.where(habit < 55, _TAIL["Ff"], _TAIL["fF"])
    tail = np.where(done & (rng.random(n) < 0.7), usual, tail)
    need = rtt * (1 + (out + back > 0) + np.log2(1 + out + back)) * rng.uniform(0.9, 1.4, n)
    return _Packets(
        orig,
        resp,
        b.up + orig * (40 + each) + syn - each,
        b.down + resp * (40 + each) + np.minimum(syn, syn_r) - each,
        np.maximum(b.span, need),
        b.up,
        b.down,
        _history(body, loss, tail),
        np.where(loss == 4, np.minimum(b.down, mss), 0),
    )


def _handshake(rng: np.random.Generator, b: Batch, rtt: F64, salt: int) -> _Packets:
    """TCP that never got past its handshake, and the rare shapes."""
    n = len(b.t)
    own, each = _stack(b.orig, salt)
    syn = np.where(b.syn >= 0, b.syn, own)
    patience = np.array([1, 1, 1, 2, 3, 3, 4, 5, 6, 7])[mix(b.orig, salt + 4) % 10]
    tries = np.where(
        b.attempts > 0, b.attempts, np.where(rng.random(n) < 0.5, patience, rng.integers(1, 5, n))
    )
    waited = (2.0 ** np.minimum(tries - 1, 6) - 1) * rng.uniform(0.98, 1.06, n)
    e = b.ending
    stubborn = (mix(b.orig, salt + 5) % 5 == 0) & (b.syn < 0)
    refused = np.where(b.attempts > 0, b.attempts, np.where(stubborn, 3, 1))
    quirk = (e == REFUSED) & (mix(b.orig, salt + 6) % 8 == 0)
    cases = [
        e == UNANSWERED,
        e == REFUSED,
        e == PROBED,
        e == SYN_RST,
        e == BACKSCATTER,
        e == MIDSTREAM,
        e == GHOST,
    ]
    orig = np.select(
        cases, [tries, refused + quirk, 2, 2, 0, np.maximum(2 + b.attempts, b.up // 1400 + 1), 0], 1
    )
    resp = np.select(
        cases,
        [0, refused, 1, 0, 1, np.maximum(1 + b.attempts, b.down // 1400 + 1), 0],
        np.maximum(b.attempts, 1),
    )
    up, down = b.up * (e == MIDSTREAM), b.down * (e == MIDSTREAM)
    body = np.select(
        cases,
        [
            _BODY["S"],
            np.where(quirk, _BODY["SrR"], _BODY["Sr"]),
            _BODY["ShR"],
            _BODY["SR"],
            _BODY["^h"],
            np.select(
                [up * down > 0, up > 0, down > 0],
                [_BODY["DdA"], _BODY["DAa"], _BODY["dAa"]],
                _BODY["Aa"],
            ),
            _BODY["C"],
        ],
        _BODY["Sh"],
    )
    span = np.select(
        cases,
        [
            np.where(b.span > 0, b.span, waited),
            rtt + (refused - 1) * 0.5,
            rtt,
            rtt * 2,
            b.span,
            np.maximum(b.span, rtt),
            0.0,
        ],
        np.where(b.span > 0, b.span, rtt + (resp - 1)),
    )
    none = np.zeros(n, dtype=np.int64)
    ends = none
    head = np.where(e == MIDSTREAM, 40 + each, 40 + syn)
    return _Packets(
        orig,
        resp,
        orig * head - np.where(e == PROBED, syn, 0) + up,
        resp * np.where(e == REFUSED, 40, 44) + down,
        span,
        up,
        down,
        _history(body, none, ends),
        none,
    )


def _datagrams(rng: np.random.Generator, b: Batch, rtt: F64) -> _Packets:
    """UDP and ICMP: only what the originator sends, unless it was answered."""
    n = len(b.t)
    answered = np.isin(b.ending, (DONE, BACKSCATTER))
    asked = b.ending != BACKSCATTER
    orig = np.where(asked, np.maximum(-(-b.up // 1400), np.maximum(b.rounds, 1)), 0)
    resp = np.where(
        answered, np.maximum(-(-b.down // 1400), np.where(b.rounds > 0, b.rounds, 1)), 0
    )
    up, down = np.where(asked, b.up, 0), np.where(answered, b.down, 0)
    span = np.where(
        b.span > 0, b.span, np.where(orig > 1, rng.uniform(0.9, 5.2, n) * (orig - 1), rtt)
    )
    head = 28
    body = np.select([asked & answered, asked], [_BODY["Dd"], _BODY["D"]], _BODY["^d"])
    history = np.where(
        b.proto == ICMP,
        len(_HISTORIES) - 1,
        _history(body, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)),
    )
    return _Packets(
        orig,
        resp,
        up + orig * head,
        down + resp * head,
        span,
        up,
        down,
        history,
        np.zeros(n, dtype=np.int64),
    )


def spoken(rng: np.random.Generator, b: Batch, salt: int) -> Batch:
    """The contacts with what their protocols say beside the payload: TLS its handshake (the certificates only to those
    who don't resume), HTTP its headers. A peer's certificates and a client's habits stay theirs."""
    through = (b.proto == TCP) & np.isin(b.ending, tuple(_ENDS))
    tls = through & (b.service == SERVICES.index("ssl")) & (b.up + b.down > 0)
    web = through & (b.service == SERVICES.index("http")) & (b.up > 0) & (b.down > 0)
    pair = mix(b.orig * 31 + b.resp, salt + 11)
    resumed = rng.random(len(b.t)) < np.array([0.0, 0.5, 0.9])[pair % 3]
    shown = np.where(resumed, 130 + pair % 270, 900 + mix(b.resp, salt + 12) % 4900)
    hello, headers = 260 + mix(b.orig, salt + 13) % 480, 60 + mix(b.orig, salt + 14) % 440
    up = b.up + np.where(tls, hello, 0) + np.where(web, headers, 0)
    down = b.down + np.where(tls, shown, 0) + np.where(web, 90 + mix(b.resp, salt + 15) % 310, 0)
    return replace(b, up=up, down=down)


def _merge(n: int, parts: list[tuple[I64, _Packets]]) -> _Packets:
    """The parts' rows at their places among n."""
    o, r, oi, ri, u, d, h, m = np.zeros((8, n), dtype=np.int64)
    whole = _Packets(o, r, oi, ri, np.zeros(n), u, d, h, m)
    for where, part in parts:
        for f in fields(_Packets):
            getattr(whole, f.name)[where] = getattr(part, f.name)
    return whole


def _take(b: Batch, where: I64) -> Batch:
    columns = (getattr(b, name)[where] for name in Batch.__slots__[2:])
    return Batch(b.detail, b.label, *columns)


def before(b: Batch, end: float) -> Batch:
    """The contacts that begin before `end`."""
    return _take(b, np.flatnonzero(b.t < end))


def seen(b: Batch) -> Batch:
    """The contacts that reach the wire: nobody's with itself."""
    return _take(b, np.flatnonzero(b.orig != b.resp))


def outage(b: Batch, sensor: Sensor, begin: float, end: float) -> Batch:
    """The same contacts while nothing outside can be reached: asked in vain from inside, and nothing comes in."""
    inside, far = sensor.local(b.orig), ~sensor.local(b.resp) & (b.resp < V6_LINK)
    dark = (b.t >= begin) & (b.t < end)
    kept = _take(b, np.flatnonzero(inside | ~dark))
    lost = (dark & far)[inside | ~dark]
    return replace(kept, ending=np.where(lost, UNANSWERED, kept.ending))


def behind(b: Batch, sensor: Sensor, address: int) -> Batch:
    """What is left of the contacts outside of a router that lends all its hosts one address."""
    ours, theirs = sensor.local(b.orig), sensor.local(b.resp)
    crossing = (ours != theirs) & (b.orig < V6_LINK) & (b.resp < V6_LINK)
    masked = replace(
        b, orig=np.where(ours, address, b.orig), resp=np.where(theirs, address, b.resp)
    )
    return _take(masked, np.flatnonzero(crossing))


def widen(b: Batch, sensor: Sensor) -> Batch:
    """The same contacts in a network that has IPv6: a fifth of the peers outside are reached by it."""
    ours, theirs = sensor.local(b.orig), sensor.local(b.resp)
    outside = np.where(ours, b.resp, b.orig)
    six = (
        (ours != theirs)
        & (b.orig < V6_LINK)
        & (b.resp < V6_LINK)
        & (b.proto != ICMP)
        & (mix(outside, sensor.salt) % 5 == 0)
    )

    def moved(codes: I64, own: Bool) -> I64:
        return np.where(six, V6_WIDE + np.where(own, codes & 0xFFFF, codes), codes)

    return replace(b, orig=moved(b.orig, ours), resp=moved(b.resp, theirs))


def join(batches: list[Batch]) -> tuple[Batch, I64, I64]:
    """All contacts as one batch, and per contact the numbers of its label and of its batch."""
    sizes = [len(b.t) for b in batches]
    columns = (np.concatenate([getattr(b, name) for b in batches]) for name in Batch.__slots__[2:])
    labels = np.repeat(np.array([b.label for b in batches], dtype=np.int64), sizes)
    return Batch("", 0, *columns), labels, np.repeat(np.arange(len(batches)), sizes)


@dataclass(frozen=True, slots=True)
class Sensor:
    """How a network is watched."""

    name: str
    source: str
    begin: int
    """µs since 1970"""
    salt: int
    first_uid: int
    nets: tuple[tuple[int, int], ...]
    """(first, last) address codes that are local"""
    says_local: bool
    blind: frozenset[str]
    """services this sensor's version doesn't recognise"""

    def local(self, codes: I64) -> Bool:
        """Which addresses belong to the network."""
        inside = ((codes >= V6_LINK) & (codes < V6_GROUP)) | (
            (codes >= V6_WIDE) & (codes < V6_WIDE + 65536)
        )
        for low, high in self.nets:
            inside |= (codes >= low) & (codes <= high)
        return np.asarray(inside)


def _uids(first: int, n: int) -> pl.Series:
    """n unique ids, as unlike one another as a sensor's own."""
    value = (
        np.arange(first, first + n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    ) & np.uint64(2**52 - 1)
    letters = np.frombuffer(
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype="S1"
    )
    digits = np.empty((n, 10), dtype="S1")
    digits[:, 0] = b"C"
    for i in range(1, 10):
        digits[:, i] = letters[(value % np.uint64(62)).astype(np.int64)]
        value = value // np.uint64(62)
    return pl.Series(digits.view("S10").ravel().astype("U10"), dtype=pl.String)


def render(rng: np.random.Generator, batches: list[Batch], sensor: Sensor) -> pl.DataFrame:
    """Flow frame of all contacts, in known order (SEMANTICS: ts + duration, ties by uid)."""
    b, labels, batch_of = join(batches)
    b = spoken(rng, b, sensor.salt)
    n = len(b.t)
    local_o, local_r = sensor.local(b.orig), sensor.local(b.resp)
    rtt = _latency(rng, b.orig, b.resp, local_o & local_r, sensor.salt)
    tcp = b.proto == TCP
    made = tcp & np.isin(b.ending, tuple(_ENDS))
    groups = [np.flatnonzero(mask) for mask in (made, tcp & ~made, ~tcp)]
    kinds = (_established, _handshake)
    parts = [
        (w, make(rng, _take(b, w), rtt[w], sensor.salt))
        for w, make in zip(groups, kinds, strict=False)
    ]
    p = _merge(n, [*parts, (groups[2], _datagrams(rng, _take(b, groups[2]), rtt[groups[2]]))])
    return _frame(b, p, labels, batch_of, [x.detail for x in batches], sensor, local_o, local_r)


def _frame(
    b: Batch,
    p: _Packets,
    labels: I64,
    batch_of: I64,
    details: list[str],
    sensor: Sensor,
    local_o: Bool,
    local_r: Bool,
) -> pl.DataFrame:
    longer = np.where(b.orig >= V6_LINK, 20, 0)
    single = p.orig + p.resp <= 1
    states = np.where(b.proto == ICMP, len(STATES), b.ending)
    states = np.where(
        (b.proto == UDP) & ~np.isin(b.ending, (DONE, UNANSWERED, BACKSCATTER)), UNANSWERED, states
    )
    unknown = np.isin(_SERVICES, ("", *sensor.blind))
    silent = (p.up + p.down == 0) | unknown[b.service]
    columns = {
        "ts": pl.Series(sensor.begin + (b.t * 1e6).astype(np.int64)).cast(pl.Datetime("us", "UTC")),
        "uid": _uids(sensor.first_uid, len(b.t)),
        "orig_h": addresses(b.orig),
        "orig_p": b.orig_port,
        "resp_h": addresses(b.resp),
        "resp_p": b.resp_port,
        "proto": pl.Series(["tcp", "udp", "icmp"]).gather(b.proto),
        "service": pl.Series(SERVICES).gather(b.service),
        "duration": pl.Series((p.span * 1e6).astype(np.int64)).cast(pl.Duration("us")),
        "orig_bytes": p.up,
        "resp_bytes": p.down,
        "conn_state": pl.Series([*STATES, "OTH"]).gather(states),
        "local_orig": local_o,
        "local_resp": local_r,
        "missed_bytes": p.missed,
        "history": _HISTORIES.gather(p.history),
        "orig_pkts": p.orig,
        "orig_ip_bytes": p.orig_ip + longer * p.orig,
        "resp_pkts": p.resp,
        "resp_ip_bytes": p.resp_ip + longer * p.resp,
        "ip_proto": np.where(
            (b.proto == ICMP) & (b.orig >= V6_LINK), 58, np.array([6, 17, 1])[b.proto]
        ),
        "label": pl.Series(CLASSES).gather(labels),
        "label_detail": pl.Series(details).gather(batch_of),
        "single": single,
        "silent": silent,
    }
    return _as_logged(pl.DataFrame(columns), sensor)


def _as_logged(frame: pl.DataFrame, sensor: Sensor) -> pl.DataFrame:
    """The counted columns as a Flow frame: unset what this sensor would leave unset, in known order."""
    unset = [
        pl.when(~pl.col("single")).then(pl.col(c)).alias(c)
        for c in ("duration", "orig_bytes", "resp_bytes")
    ]
    said = [
        pl.when(pl.lit(sensor.says_local)).then(pl.col(c)).alias(c)
        for c in ("local_orig", "local_resp")
    ]
    frame = frame.with_columns(
        *unset,
        *said,
        pl.when(~pl.col("silent")).then(pl.col("service")).alias("service"),
        pl.lit(sensor.name).alias("sensor"),
        pl.lit(sensor.source).alias("source"),
        pl.lit(False).alias("open"),
        pl.lit(None, dtype=pl.String).alias("tunnel_parents"),
        pl.lit(None, dtype=pl.String).alias("community_id"),
        pl.lit(f"simulated/{sensor.name}").alias("origin"),
    )
    known = pl.col("ts") + pl.col("duration").fill_null(pl.duration(microseconds=0))
    return frame.sort(known, "uid").select(
        [pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
    )
