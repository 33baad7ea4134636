"""Contacts → flow records as Zeek would have logged them.

The packets, header bytes, history, connection state and unset values of each record follow from its
contact: https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from ipaddress import IPv6Address
from itertools import product

import numpy as np
import polars as pl

from ids_plugin.schema.flow import SCHEMA, with_facts, with_sensor_flags
from ids_plugin.schema.score import CLASSES
from ids_plugin.simulation.contacts import (
    _SERVICES,
    ABORTED,
    BACKSCATTER,
    BAD_CHECKSUM,
    DONE,
    HALF_CLOSED_BY_ORIG,
    HALF_CLOSED_BY_RESP,
    ICMP,
    MIDSTREAM,
    ONGOING,
    PROBED,
    REFUSED,
    RESET,
    SERVICES,
    SYN_RST,
    TCP,
    UDP,
    UNANSWERED,
    V6_LINK,
    Contacts,
    Sensor,
    join_contacts,
    take_contacts,
)
from ids_plugin.simulation.draws import F64, I64, Bool, spread_bits

CONN_STATE_OF_ENDING = (
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

_IPV6_BASES = {
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

_BODY_INDEX = {name: i for i, name in enumerate(_BODIES)}

_TAIL_INDEX = {name: i for i, name in enumerate(_TAILS)}


def addresses(codes: I64) -> pl.Series:
    """(n) canonical text of address codes."""
    octets = pl.Series([str(i) for i in range(256)])
    parts = [octets.gather((codes >> shift) & 255) for shift in (24, 16, 8, 0)]
    text = pl.select(
        pl.concat_str([p.alias(str(i)) for i, p in enumerate(parts)], separator=".")
    ).to_series()
    is_ipv6 = np.flatnonzero(codes >= V6_LINK)
    if len(is_ipv6) == 0:
        return text
    unique, inverse = np.unique(codes[is_ipv6], return_inverse=True)
    names = [str(IPv6Address(_IPV6_BASES[int(c) >> 32] + (int(c) & 0xFFFFFFFF))) for c in unique]
    return text.scatter(is_ipv6, pl.Series(names).gather(inverse))


@dataclass(slots=True)
class _PacketCounts:
    """What a sensor counted; arrays of shape (n)."""

    orig: I64
    resp: I64
    orig_ip_bytes: I64
    resp_ip_bytes: I64
    duration: F64
    orig_bytes: I64
    resp_bytes: I64
    history: I64
    missed_bytes: I64


def _tcp_option_bytes(codes: I64, salt: int) -> tuple[I64, I64]:
    """TCP options of a host: length on SYN, length on every other packet (timestamps or none)."""
    stack = spread_bits(codes, salt) % 10
    return np.select([stack < 6, stack < 8], [20, 12], 4), np.where(stack < 6, 12, 0)


def _round_trip_times(rng: np.random.Generator, orig: I64, resp: I64, near: Bool, salt: int) -> F64:
    """Round-trip seconds: a pair's own, with some noise."""
    share = (spread_bits(orig * 31 + resp, salt) % 1000) / 1000
    base = np.where(near, 2e-4 * 20**share, 4e-3 * 60**share)
    return np.asarray(base * rng.lognormal(0, 0.25, len(orig)))


def _draw_choices(
    rng: np.random.Generator, n: int, names: dict[str, float], book: dict[str, int]
) -> I64:
    weights = np.array(list(names.values()))
    edges = np.cumsum(weights / weights.sum())[:-1]
    return np.array([book[k] for k in names])[np.searchsorted(edges, rng.random(n))]


def _history_index(body: I64, loss: I64, tail: I64) -> I64:
    return (body * len(_LOSSES) + loss) * len(_TAILS) + tail


_TAIL_ODDS: dict[int, dict[str, float]] = {
    DONE: {"Ff": 0.52, "fF": 0.38, "FfR": 0.04, "fFr": 0.04, "Ffrr": 0.02},
    ABORTED: {"R": 0.8, "FR": 0.12, "fR": 0.08},
    RESET: {"r": 0.72, "fr": 0.18, "Fr": 0.1},
    ONGOING: {"": 1.0},
    HALF_CLOSED_BY_ORIG: {"F": 1.0},
    HALF_CLOSED_BY_RESP: {"f": 1.0},
}


def _established_tcp(
    rng: np.random.Generator, contacts: Contacts, round_trip: F64, salt: int
) -> _PacketCounts:
    """TCP that got past its handshake."""
    n = len(contacts.time)
    syn_option_bytes, option_bytes = _tcp_option_bytes(contacts.orig, salt)
    resp_syn_option_bytes, resp_option_bytes = _tcp_option_bytes(contacts.resp, salt)
    option_bytes = np.minimum(option_bytes, resp_option_bytes)
    mss = (
        np.where(spread_bits(contacts.orig + contacts.resp, salt) % 4 == 0, 1380, 1460)
        - option_bytes
    )
    usual = 1 + spread_bits(contacts.resp * 65536 + contacts.resp_port, salt + 7) % 9
    data_packets = np.where(
        contacts.data_packets > 0,
        contacts.data_packets,
        np.ceil(usual * rng.uniform(0.6, 1.4, n)).astype(np.int64),
    )
    orig_data_packets = np.where(
        contacts.orig_bytes > 0,
        np.maximum(
            -(-contacts.orig_bytes // mss), np.minimum(data_packets, 1 + contacts.orig_bytes // 16)
        ),
        0,
    )
    resp_data_packets = np.where(
        contacts.resp_bytes > 0,
        np.maximum(
            -(-contacts.resp_bytes // mss), np.minimum(data_packets, 1 + contacts.resp_bytes // 16)
        ),
        0,
    )
    ack_share = rng.uniform(0.35, 1.0, n)
    exchanged = np.minimum(orig_data_packets, resp_data_packets)
    orig_fin = np.isin(contacts.ending, (DONE, ABORTED, HALF_CLOSED_BY_ORIG)).astype(np.int64)
    resp_fin = np.isin(contacts.ending, (DONE, RESET, HALF_CLOSED_BY_RESP)).astype(np.int64)
    orig_packets = (
        2
        + orig_data_packets
        + np.ceil((resp_data_packets - exchanged * rng.random(n)) * ack_share).astype(np.int64)
        + orig_fin
        + rng.integers(0, 2, n)
    )
    resp_packets = (
        1
        + resp_data_packets
        + np.ceil((orig_data_packets - exchanged * rng.random(n)) * ack_share).astype(np.int64)
        + resp_fin
    )
    resp_packets += (rng.random(n) < 0.5) & (orig_data_packets > 0)
    has_loss = rng.random(n) < 1 - (
        1 - spread_bits(contacts.resp, salt + 1) % 100 / 2500.0
    ) ** np.minimum(orig_packets + resp_packets, 60)
    loss = np.where(
        has_loss & (orig_data_packets + resp_data_packets > 0),
        _draw_choices(
            rng,
            n,
            dict.fromkeys(_LOSSES[1:], 0.05) | {"t": 0.55, "T": 0.2},
            {v: i for i, v in enumerate(_LOSSES)},
        ),
        0,
    )
    orig_packets += (loss == 1) + (loss == 3)
    resp_packets += (loss == 2) + (loss == 3)
    first_speaker = spread_bits(contacts.resp * 65536 + contacts.resp_port, salt + 2) % 12
    both_sent = np.select(
        [
            np.isin(contacts.resp_port, (21, 22, 23, 25, 110, 143, 587, 2323, 3306, 6667)),
            first_speaker == 0,
        ],
        [_BODY_INDEX["ShAdDa"], _BODY_INDEX["ShADda"]],
        _BODY_INDEX["ShADad"],
    )
    body = np.select(
        [
            (contacts.orig_bytes > 0) & (contacts.resp_bytes > 0),
            contacts.orig_bytes > 0,
            contacts.resp_bytes > 0,
        ],
        [both_sent, _BODY_INDEX["ShADa"], _BODY_INDEX["ShAda"]],
        _BODY_INDEX["ShA"],
    )
    tail = np.zeros(n, dtype=np.int64)
    closing_habit = spread_bits(contacts.resp * 65536 + contacts.resp_port, salt + 3) % 100
    for ending, names in _TAIL_ODDS.items():
        where = np.flatnonzero(contacts.ending == ending)
        if len(where):
            tail[where] = _draw_choices(rng, len(where), names, _TAIL_INDEX)
    is_done = contacts.ending == DONE
    usual = np.where(closing_habit < 55, _TAIL_INDEX["Ff"], _TAIL_INDEX["fF"])
    tail = np.where(is_done & (rng.random(n) < 0.7), usual, tail)
    needed_seconds = (
        round_trip
        * (
            1
            + (orig_data_packets + resp_data_packets > 0)
            + np.log2(1 + orig_data_packets + resp_data_packets)
        )
        * rng.uniform(0.9, 1.4, n)
    )
    return _PacketCounts(
        orig_packets,
        resp_packets,
        contacts.orig_bytes + orig_packets * (40 + option_bytes) + syn_option_bytes - option_bytes,
        contacts.resp_bytes
        + resp_packets * (40 + option_bytes)
        + np.minimum(syn_option_bytes, resp_syn_option_bytes)
        - option_bytes,
        np.maximum(contacts.duration, needed_seconds),
        contacts.orig_bytes,
        contacts.resp_bytes,
        _history_index(body, loss, tail),
        np.where(loss == 4, np.minimum(contacts.resp_bytes, mss), 0),
    )


def _unestablished_tcp(
    rng: np.random.Generator, contacts: Contacts, round_trip: F64, salt: int
) -> _PacketCounts:
    """TCP that never got past its handshake, and the rare shapes."""
    n = len(contacts.time)
    own_option_bytes, option_bytes = _tcp_option_bytes(contacts.orig, salt)
    syn_option_bytes = np.where(
        contacts.syn_option_bytes >= 0, contacts.syn_option_bytes, own_option_bytes
    )
    usual_syn_packets = np.array([1, 1, 1, 2, 3, 3, 4, 5, 6, 7])[
        spread_bits(contacts.orig, salt + 4) % 10
    ]
    syn_packets = np.where(
        contacts.attempts > 0,
        contacts.attempts,
        np.where(rng.random(n) < 0.5, usual_syn_packets, rng.integers(1, 5, n)),
    )
    retry_seconds = (2.0 ** np.minimum(syn_packets - 1, 6) - 1) * rng.uniform(0.98, 1.06, n)
    ending = contacts.ending
    is_persistent = (spread_bits(contacts.orig, salt + 5) % 5 == 0) & (
        contacts.syn_option_bytes < 0
    )
    refused_packets = np.where(
        contacts.attempts > 0, contacts.attempts, np.where(is_persistent, 3, 1)
    )
    resets_after_refusal = (ending == REFUSED) & (spread_bits(contacts.orig, salt + 6) % 8 == 0)
    cases = [
        ending == UNANSWERED,
        ending == REFUSED,
        ending == PROBED,
        ending == SYN_RST,
        ending == BACKSCATTER,
        ending == MIDSTREAM,
        ending == BAD_CHECKSUM,
    ]
    orig_packets = np.select(
        cases,
        [
            syn_packets,
            refused_packets + resets_after_refusal,
            2,
            2,
            0,
            np.maximum(2 + contacts.attempts, contacts.orig_bytes // 1400 + 1),
            0,
        ],
        1,
    )
    resp_packets = np.select(
        cases,
        [
            0,
            refused_packets,
            1,
            0,
            1,
            np.maximum(1 + contacts.attempts, contacts.resp_bytes // 1400 + 1),
            0,
        ],
        np.maximum(contacts.attempts, 1),
    )
    orig_bytes, resp_bytes = (
        contacts.orig_bytes * (ending == MIDSTREAM),
        contacts.resp_bytes * (ending == MIDSTREAM),
    )
    body = np.select(
        cases,
        [
            _BODY_INDEX["S"],
            np.where(resets_after_refusal, _BODY_INDEX["SrR"], _BODY_INDEX["Sr"]),
            _BODY_INDEX["ShR"],
            _BODY_INDEX["SR"],
            _BODY_INDEX["^h"],
            np.select(
                [orig_bytes * resp_bytes > 0, orig_bytes > 0, resp_bytes > 0],
                [_BODY_INDEX["DdA"], _BODY_INDEX["DAa"], _BODY_INDEX["dAa"]],
                _BODY_INDEX["Aa"],
            ),
            _BODY_INDEX["C"],
        ],
        _BODY_INDEX["Sh"],
    )
    duration = np.select(
        cases,
        [
            np.where(contacts.duration > 0, contacts.duration, retry_seconds),
            round_trip + (refused_packets - 1) * 0.5,
            round_trip,
            round_trip * 2,
            contacts.duration,
            np.maximum(contacts.duration, round_trip),
            0.0,
        ],
        np.where(contacts.duration > 0, contacts.duration, round_trip + (resp_packets - 1)),
    )
    nothing = np.zeros(n, dtype=np.int64)
    no_tail = nothing
    header_bytes = np.where(ending == MIDSTREAM, 40 + option_bytes, 40 + syn_option_bytes)
    return _PacketCounts(
        orig_packets,
        resp_packets,
        orig_packets * header_bytes - np.where(ending == PROBED, syn_option_bytes, 0) + orig_bytes,
        resp_packets * np.where(ending == REFUSED, 40, 44) + resp_bytes,
        duration,
        orig_bytes,
        resp_bytes,
        _history_index(body, nothing, no_tail),
        nothing,
    )


def _udp_and_icmp(rng: np.random.Generator, contacts: Contacts, round_trip: F64) -> _PacketCounts:
    """UDP and ICMP: only what the originator sends, unless it was answered."""
    n = len(contacts.time)
    is_answered = np.isin(contacts.ending, (DONE, BACKSCATTER))
    has_request = contacts.ending != BACKSCATTER
    orig_packets = np.where(
        has_request,
        np.maximum(-(-contacts.orig_bytes // 1400), np.maximum(contacts.data_packets, 1)),
        0,
    )
    resp_packets = np.where(
        is_answered,
        np.maximum(
            -(-contacts.resp_bytes // 1400),
            np.where(contacts.data_packets > 0, contacts.data_packets, 1),
        ),
        0,
    )
    orig_bytes, resp_bytes = (
        np.where(has_request, contacts.orig_bytes, 0),
        np.where(is_answered, contacts.resp_bytes, 0),
    )
    duration = np.where(
        contacts.duration > 0,
        contacts.duration,
        np.where(orig_packets > 1, rng.uniform(0.9, 5.2, n) * (orig_packets - 1), round_trip),
    )
    header_bytes = 28
    body = np.select(
        [has_request & is_answered, has_request],
        [_BODY_INDEX["Dd"], _BODY_INDEX["D"]],
        _BODY_INDEX["^d"],
    )
    history = np.where(
        contacts.proto == ICMP,
        len(_HISTORIES) - 1,
        _history_index(body, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)),
    )
    return _PacketCounts(
        orig_packets,
        resp_packets,
        orig_bytes + orig_packets * header_bytes,
        resp_bytes + resp_packets * header_bytes,
        duration,
        orig_bytes,
        resp_bytes,
        history,
        np.zeros(n, dtype=np.int64),
    )


def with_protocol_overhead(rng: np.random.Generator, contacts: Contacts, salt: int) -> Contacts:
    """The contacts with what their protocols say beside the payload: TLS its handshake (the
    certificates only to those who don't resume), HTTP its headers. A peer's certificates and a
    client's habits stay theirs."""
    is_established = (contacts.proto == TCP) & np.isin(contacts.ending, tuple(_TAIL_ODDS))
    is_tls = (
        is_established
        & (contacts.service == SERVICES.index("ssl"))
        & (contacts.orig_bytes + contacts.resp_bytes > 0)
    )
    is_http = (
        is_established
        & (contacts.service == SERVICES.index("http"))
        & (contacts.orig_bytes > 0)
        & (contacts.resp_bytes > 0)
    )
    pair = spread_bits(contacts.orig * 31 + contacts.resp, salt + 11)
    is_resumed = rng.random(len(contacts.time)) < np.array([0.0, 0.5, 0.9])[pair % 3]
    certificate_bytes = np.where(
        is_resumed, 130 + pair % 270, 900 + spread_bits(contacts.resp, salt + 12) % 4900
    )
    hello_bytes, header_bytes = (
        260 + spread_bits(contacts.orig, salt + 13) % 480,
        60 + spread_bits(contacts.orig, salt + 14) % 440,
    )
    orig_bytes = (
        contacts.orig_bytes + np.where(is_tls, hello_bytes, 0) + np.where(is_http, header_bytes, 0)
    )
    resp_bytes = (
        contacts.resp_bytes
        + np.where(is_tls, certificate_bytes, 0)
        + np.where(is_http, 90 + spread_bits(contacts.resp, salt + 15) % 310, 0)
    )
    return replace(contacts, orig_bytes=orig_bytes, resp_bytes=resp_bytes)


def _merge_packets(n: int, parts: list[tuple[I64, _PacketCounts]]) -> _PacketCounts:
    """The parts' rows at their places among n."""
    (
        orig_packets,
        resp_packets,
        orig_ip_bytes,
        resp_ip_bytes,
        orig_bytes,
        resp_bytes,
        history,
        missed_bytes,
    ) = np.zeros((8, n), dtype=np.int64)
    merged = _PacketCounts(
        orig_packets,
        resp_packets,
        orig_ip_bytes,
        resp_ip_bytes,
        np.zeros(n),
        orig_bytes,
        resp_bytes,
        history,
        missed_bytes,
    )
    for where, part in parts:
        for column in fields(_PacketCounts):
            getattr(merged, column.name)[where] = getattr(part, column.name)
    return merged


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


def render_flows(rng: np.random.Generator, batches: list[Contacts], sensor: Sensor) -> pl.DataFrame:
    """Flow frame of all contacts, in known order (ts + duration, ties by uid)."""
    contacts, labels, batch_of = join_contacts(batches)
    contacts = with_protocol_overhead(rng, contacts, sensor.salt)
    count = len(contacts.time)
    orig_is_local, resp_is_local = sensor.is_local(contacts.orig), sensor.is_local(contacts.resp)
    round_trip = _round_trip_times(
        rng, contacts.orig, contacts.resp, orig_is_local & resp_is_local, sensor.salt
    )
    tcp = contacts.proto == TCP
    is_established = tcp & np.isin(contacts.ending, tuple(_TAIL_ODDS))
    groups = [np.flatnonzero(mask) for mask in (is_established, tcp & ~is_established, ~tcp)]
    kinds = (_established_tcp, _unestablished_tcp)
    parts = [
        (rows, make(rng, take_contacts(contacts, rows), round_trip[rows], sensor.salt))
        for rows, make in zip(groups, kinds, strict=False)
    ]
    packets = _merge_packets(
        count,
        [
            *parts,
            (
                groups[2],
                _udp_and_icmp(rng, take_contacts(contacts, groups[2]), round_trip[groups[2]]),
            ),
        ],
    )
    return _flow_frame(
        contacts,
        packets,
        labels,
        batch_of,
        [x.activity for x in batches],
        sensor,
        orig_is_local,
        resp_is_local,
    )


def _flow_frame(
    contacts: Contacts,
    packets: _PacketCounts,
    labels: I64,
    batch_of: I64,
    details: list[str],
    sensor: Sensor,
    orig_is_local: Bool,
    resp_is_local: Bool,
) -> pl.DataFrame:
    ipv6_extra_bytes = np.where(contacts.orig >= V6_LINK, 20, 0)
    is_single_packet = packets.orig + packets.resp <= 1
    states = np.where(contacts.proto == ICMP, len(CONN_STATE_OF_ENDING), contacts.ending)
    states = np.where(
        (contacts.proto == UDP) & ~np.isin(contacts.ending, (DONE, UNANSWERED, BACKSCATTER)),
        UNANSWERED,
        states,
    )
    is_unrecognised = np.isin(_SERVICES, ("", *sensor.unrecognised_services))
    has_no_service = (packets.orig_bytes + packets.resp_bytes == 0) | is_unrecognised[
        contacts.service
    ]
    columns = {
        "ts": pl.Series(sensor.begin_us + (contacts.time * 1e6).astype(np.int64)).cast(
            pl.Datetime("us", "UTC")
        ),
        "uid": _uids(sensor.first_uid_number, len(contacts.time)),
        "orig_h": addresses(contacts.orig),
        "orig_p": contacts.orig_port,
        "resp_h": addresses(contacts.resp),
        "resp_p": contacts.resp_port,
        "proto": pl.Series(["tcp", "udp", "icmp"]).gather(contacts.proto),
        "service": pl.Series(SERVICES).gather(contacts.service),
        "duration": pl.Series((packets.duration * 1e6).astype(np.int64)).cast(pl.Duration("us")),
        "orig_bytes": packets.orig_bytes,
        "resp_bytes": packets.resp_bytes,
        "conn_state": pl.Series([*CONN_STATE_OF_ENDING, "OTH"]).gather(states),
        "local_orig": orig_is_local,
        "local_resp": resp_is_local,
        "missed_bytes": packets.missed_bytes,
        "history": _HISTORIES.gather(packets.history),
        "orig_pkts": packets.orig,
        "orig_ip_bytes": packets.orig_ip_bytes + ipv6_extra_bytes * packets.orig,
        "resp_pkts": packets.resp,
        "resp_ip_bytes": packets.resp_ip_bytes + ipv6_extra_bytes * packets.resp,
        "ip_proto": np.where(
            (contacts.proto == ICMP) & (contacts.orig >= V6_LINK),
            58,
            np.array([6, 17, 1])[contacts.proto],
        ),
        "label": pl.Series(CLASSES).gather(labels),
        "label_detail": pl.Series(details).gather(batch_of),
        "single": is_single_packet,
        "silent": has_no_service,
    }
    return _as_logged(pl.DataFrame(columns), sensor)


def _as_logged(frame: pl.DataFrame, sensor: Sensor) -> pl.DataFrame:
    """The counted columns as a Flow frame: unset what this sensor would leave unset, in known
    order.
    """
    unset = [
        pl.when(~pl.col("single")).then(pl.col(c)).alias(c)
        for c in ("duration", "orig_bytes", "resp_bytes")
    ]
    locality = [
        pl.when(pl.lit(sensor.reports_locality)).then(pl.col(c)).alias(c)
        for c in ("local_orig", "local_resp")
    ]
    frame = frame.with_columns(
        *unset,
        *locality,
        pl.when(~pl.col("silent")).then(pl.col("service")).alias("service"),
        pl.lit(sensor.name).alias("sensor"),
        pl.lit(sensor.source).alias("source"),
        pl.lit(False).alias("open"),
        pl.lit(None, dtype=pl.String).alias("tunnel_parents"),
        pl.lit(None, dtype=pl.String).alias("community_id"),
        pl.lit(f"simulated/{sensor.name}").alias("origin"),
    )
    known_time = pl.col("ts") + pl.col("duration").fill_null(pl.duration(microseconds=0))
    return (
        with_facts(with_sensor_flags(frame))
        .sort(known_time, "uid")
        .select([pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()])
    )
