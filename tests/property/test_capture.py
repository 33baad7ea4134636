"""Captures, damaged at random: no crash, every packet accounted for, the same flows however the
input is cut.
"""

from __future__ import annotations

import io
import random

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ids_plugin.errors import InputError
from ids_plugin.flowmeter import uneventful_packets
from ids_plugin.flowmeter.packets import capture_files
from ids_plugin.schema import flow
from ids_plugin.sources import Input, Read
from ids_plugin.sources.capture import Capture
from tests.property.fuzz_captures import AS_IF_LARGE, at_random
from tests.support.captures import (
    ACK,
    FIN,
    RST,
    SYN,
    Record,
    enhanced,
    ethernet,
    icmp,
    interface,
    pcap,
    section,
    tcp,
    udp,
)

End = tuple[str, int]
HOSTS = ("10.0.0.1", "10.0.0.2", "192.0.2.7")
PORTS = (53, 80, 22, 40_000)
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

hosts, ports = st.sampled_from(HOSTS), st.sampled_from(PORTS)
ends = st.tuples(hosts, ports)
numbers = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))
flags = st.sampled_from(
    (SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, FIN | RST, 0, SYN | RST | FIN)
)
payloads = st.sampled_from((b"", b"a", b"GET / HTTP/1.1\r\n", b"z" * 30))
segments = st.builds(tcp, ends, ends, flags, numbers, numbers, payloads, st.sampled_from((0, 100)))
packets = st.one_of(
    segments,
    st.builds(udp, ends, ends, payloads),
    st.builds(icmp, hosts, hosts, st.sampled_from((0, 3, 8, 11)), st.integers(0, 3), payloads),
)
pauses = st.sampled_from((0.0, 0.001, 0.5, 2.0, 6.0, 61.0, 301.0, -3.0))


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Packets of few hosts at odd intervals."""
    clock: float = 1000
    made: list[Record] = []
    for pause, packet in draw(st.lists(st.tuples(pauses, packets), max_size=60)):
        clock += float(pause)
        made.append(Record(clock, ethernet(packet)))
    return made


def steps(data: bytes, chunk_bytes: int = 1 << 20) -> list[Read]:
    return list(Capture(chunk_bytes).read(Input("x", io.BytesIO(data), data[:100], "s"), 100))


def joined(data: bytes, chunk_bytes: int = 1 << 20) -> pl.DataFrame:
    return pl.concat([step.flows for step in steps(data, chunk_bytes)]).sort("origin", "uid")


@QUIET
@given(records(), st.integers(64, 400))
def test_flows_do_not_depend_on_how_the_input_is_cut(made: list[Record], size: int) -> None:
    data = pcap(made)
    whole = joined(data)
    assert joined(data, size).equals(whole)
    assert whole.select(pl.col("orig_pkts") + pl.col("resp_pkts")).sum().item() == len(made)


@QUIET
@given(records())
def test_pcapng_gives_what_pcap_gives(made: list[Record]) -> None:
    blocks = section() + interface() + b"".join(enhanced(record) for record in made)
    assert joined(blocks).equals(joined(pcap(made)))


@QUIET
@given(
    records(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=20),
    st.data(),
)
def test_damage_is_survived_and_accounted_for(
    made: list[Record], next_generation: bool, changes: list[tuple[int, int]], more: st.DataObject
) -> None:
    data = bytearray(pcap(made))
    if next_generation:
        data = bytearray(section() + interface() + b"".join(enhanced(record) for record in made))
    for position, value in changes:
        data[position % len(data)] = value
    data = data[: more.draw(st.integers(0, len(data)))]
    try:
        read = steps(bytes(data), more.draw(st.integers(64, 5000)))
    except InputError:
        return
    for step in read:
        assert step.read == len(step.flows) + len(step.rejects)
        assert step.flows.schema == pl.Schema(flow.SCHEMA)
        assert all(reject.place.startswith("packet ") for reject in step.rejects)
    whole = pl.concat([step.flows for step in read])
    assert (whole["duration"].drop_nulls().dt.total_microseconds() > 0).all()
    assert (whole["missed_bytes"] >= 0).all()


@QUIET
@given(st.binary(max_size=3000))
def test_noise_is_survived(noise: bytes) -> None:
    for head in (pcap([]), section() + interface(), section(">")):
        steps(head + noise, 512)


@pytest.mark.parametrize("large", [False, True])
def test_mutated_captures_of_every_shape_are_survived(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in AS_IF_LARGE if large else ():
        monkeypatch.setattr(module, name, value)
    seen = at_random(100, seed=7 + large)
    assert seen["inputs"] == 100
    assert seen["flows"] > 70
    assert seen["rejects"] > 10


@QUIET
@given(st.lists(st.binary(max_size=120), min_size=30, max_size=200), st.integers(0, 2**32 - 1))
def test_records_are_found_from_many_places_as_from_one(payloads: list[bytes], seed: int) -> None:
    """Among them payloads that look like records, at the right time and of lengths that fit."""
    chance = random.Random(seed)
    file = pcap(Record(chance.random(), data) for data in payloads)
    nested = (
        pcap([Record(0.5, ethernet(udp(("10.0.0.1", 1), ("10.0.0.2", 2), file[24:])))] * 3)
        + file[24:]
    )
    for data in (file, nested):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(capture_files, "WALK_STRIDE_BYTES", 1 << 40)
            one_by_one = framing(data)
            patch.setattr(capture_files, "WALK_STRIDE_BYTES", chance.randrange(20, 400))
            patch.setattr(capture_files, "MIN_WALKS", 2)
            assert framing(data) == one_by_one


def framing(data: bytes) -> list[tuple[bytes, int]]:
    """Bytes and time of every packet."""
    found: list[tuple[bytes, int]] = []
    for chunk in capture_files.chunks(io.BytesIO(data)):
        rows = zip(chunk.offset.tolist(), chunk.captured.tolist(), chunk.time.tolist(), strict=True)
        found += [(chunk.data[at : at + size].tobytes(), when) for at, size, when in rows]
    return found


@st.composite
def conversations(draw: st.DrawFn) -> list[Record]:
    """Long connections in order, each with a few losses, repetitions and odd segments, their
    packets interleaved.
    """
    made: list[Record] = []
    for port in draw(
        st.lists(st.sampled_from((80, 443, 9999)), min_size=1, max_size=3, unique=True)
    ):
        seed, whole = draw(st.integers(0, 2**32 - 1)), draw(st.booleans())
        made += conversation(random.Random(seed), ("10.0.0.1", 40_000), ("192.0.2.7", port), whole)
    return sorted(made, key=lambda record: record.time)


def conversation(chance: random.Random, client: End, server: End, whole: bool) -> list[Record]:
    """One connection: bytes both ways, acknowledgements behind them, a share of the packets lost
    or sent again.
    """
    ends, sent, heard = (client, server), [chance.getrandbits(32), chance.getrandbits(32)], [0, 0]
    steps = [(0, SYN, 0), (1, SYN | ACK, 0)] if whole else []
    steps += [
        (chance.randrange(2), ACK, chance.choice((0, 0, 10, 1400)))
        for _ in range(chance.randrange(10, 80))
    ]
    steps += [(side, FIN | ACK, 0) for side in (0, 1)] if chance.random() < 0.5 else []
    odd, clock, made, heard[:] = chance.choice((0.0, 0.0, 0.03)), 1000 + chance.random(), [], sent
    for side, flags_, size in steps:
        mine, ahead = sent[side], chance.choice((0, 0, 0, 1)) * (sent[1 - side] - heard[side]) // 2
        heard[side] = max(heard[side], sent[1 - side] - ahead)
        sent[side] += size + bool(flags_ & (SYN | FIN))
        clock += chance.choice((0.0001, 0.01, 0.5))
        packet = tcp(ends[side], ends[1 - side], flags_, mine, heard[side], bytes(size))
        copies = 1 if chance.random() >= odd else chance.choice((0, 2))
        made += [Record(clock, ethernet(packet))] * copies
        if chance.random() < odd:
            clock += chance.choice((-0.2, 6.0, 70.0, 301.0))
            made.append(
                Record(
                    clock,
                    ethernet(tcp(ends[side], ends[1 - side], ACK, mine - 1, heard[side], window=0)),
                )
            )
    return made


@settings(QUIET, max_examples=25)
@given(conversations(), st.sampled_from((3_000, 20_000, 1 << 20)))
def test_runs_that_only_go_on_are_counted_as_if_one_by_one(made: list[Record], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uneventful_packets, "MIN_CHUNK_PACKETS", 1 << 40)
        one_by_one = joined(pcap(made), size)
        patch.setattr(uneventful_packets, "MIN_CHUNK_PACKETS", 0)
        assert joined(pcap(made), size).equals(one_by_one)
