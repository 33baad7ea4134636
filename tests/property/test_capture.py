"""Captures, damaged at random: no crash, every packet accounted for, the same flows however the input is cut."""

from __future__ import annotations

import io

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ids_plugin.errors import InputError
from ids_plugin.schema import flow
from ids_plugin.sources import Input, Read
from ids_plugin.sources.capture import Capture
from tests.captures import ACK, FIN, RST, SYN, Record, enhanced, ethernet, icmp, interface, pcap, section, tcp, udp

HOSTS = ("10.0.0.1", "10.0.0.2", "192.0.2.7")
PORTS = (53, 80, 22, 40_000)
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

hosts, ports = st.sampled_from(HOSTS), st.sampled_from(PORTS)
ends = st.tuples(hosts, ports)
numbers = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))
flags = st.sampled_from((SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, FIN | RST, 0, SYN | RST | FIN))
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
    records(), st.booleans(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=20), st.data()
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
