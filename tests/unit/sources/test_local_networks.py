"""Who is local: configured networks, else private ranges and public addresses the sensor flags."""

from __future__ import annotations

import gzip
import ipaddress
from collections.abc import Iterable
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ids_plugin import bundle
from ids_plugin.errors import ConfigError
from ids_plugin.flowmeter.flow_frame import SPECIAL_IPV4, SPECIAL_IPV6
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema.flow import SCHEMA, known, with_sensor_flags
from ids_plugin.sources import Read
from ids_plugin.sources.flow_batches import Batch, decode, encode
from ids_plugin.sources.local_networks import Locality, LocalRule, is_public, networks, within
from ids_plugin.sources.messages import Fetched, Header, MessageReader
from ids_plugin.sources.ordering import ordered
from tests.support.logs import conn, jsonl, read
from tests.support.shared_data import ROOT


def flows(*pairs: tuple[str, str], **changes: Any) -> pl.DataFrame:
    changes = {"local_orig": None, "local_resp": None} | changes
    return read(
        jsonl(conn(n, id_orig_h=a, id_resp_h=b, **changes) for n, (a, b) in enumerate(pairs))
    ).flows


def filled(locality: Locality, *frames: pl.DataFrame) -> list[tuple[bool, bool]]:
    for frame in frames:
        locality.see(frame)
    return [
        row
        for frame in frames
        for row in locality.fill(frame).select("local_orig", "local_resp").rows()
    ]


def test_configured_networks_come_first_and_alone() -> None:
    frame = flows(("192.168.1.1", "203.0.113.9"), local_orig=True, local_resp=False)
    locality = Locality(networks(["203.0.113.0/28"]))
    assert filled(locality, frame) == [(False, True)]
    described = locality.describe()["default"]
    assert (described["rule"], described["networks"]) == ("configured", ["203.0.113.0/28"])


def test_a_sensors_flags_add_public_addresses_to_the_private_ranges() -> None:
    flagged = flows(("9.9.9.9", "10.0.0.1"), local_orig=True, local_resp=False)
    locality = Locality()
    assert filled(locality, flagged, flows(("10.0.0.1", "9.9.9.9"))) == [
        (True, True),
        (True, False),
    ]
    assert locality.describe()["default"]["rule"] == "flags"


def test_flags_inside_of_special_purpose_ranges_say_nothing() -> None:
    """Zeek's own list of local networks has the documentation ranges in it."""
    flagged = flows(("203.0.113.9", "10.0.0.1"), local_orig=True, local_resp=True)
    locality = Locality()
    assert filled(locality, flagged) == [(False, True)]
    assert locality.describe()["default"]["rule"] == "private"


def test_flags_that_are_never_true_say_nothing() -> None:
    assert filled(
        Locality(), flows(("10.0.0.1", "203.0.113.9"), local_orig=False, local_resp=False)
    ) == [(True, False)]


def test_what_the_sensor_says_stays_beside_what_we_judge() -> None:
    frame = flows(("203.0.113.9", "10.0.0.1"), local_orig=True, local_resp=None)
    assert frame.select("local_orig", "local_resp").rows() == [(None, None)]
    judged = LocalRule().judge(frame)
    names = ("local_orig", "local_resp", "sensor_local_orig", "sensor_local_resp")
    assert judged.select(names).rows() == [(False, True, True, None)]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("9.9.9.9", True),
        ("2600::1", True),
        ("192.0.2.1", False),
        ("192.88.99.1", False),
        ("198.19.255.255", False),
        ("198.20.0.1", True),
        ("240.0.0.1", False),
        ("224.0.0.251", False),
        ("255.255.255.255", False),
        ("0.0.0.1", False),
        ("100.127.0.1", False),
        ("100.128.0.1", True),
        ("::", False),
        ("::ffff:9.9.9.9", False),
        ("64:ff9b::1", False),
        ("2001:0:1::1", False),
        ("2001:200::1", True),
        ("2001:db8::1", False),
        ("2002:909:909::1", False),
        ("3fff:fff::1", False),
        ("5f00::1", False),
        ("ff02::fb", False),
    ],
)
def test_special_purpose_ranges_are_not_public(address: str, public: bool) -> None:
    assert is_public(pl.Series([address])).to_list() == [public]


def test_every_range_that_an_unconfigured_zeek_calls_local_is_no_public_one() -> None:
    nets = networks((*SPECIAL_IPV4, *SPECIAL_IPV6))
    edges = [str(edge) for net in nets for edge in (net.network_address, net.broadcast_address)]
    assert not is_public(pl.Series(edges)).any()


@pytest.mark.parametrize(
    "address", ["224.0.0.251", "239.255.255.250", "255.255.255.255", "ff02::fb"]
)
@pytest.mark.parametrize("configured", [[], ["0.0.0.0/0", "::/0"], ["224.0.0.0/4", "ff00::/8"]])
def test_multicast_and_broadcast_are_never_local(address: str, configured: list[str]) -> None:
    frame = flows(("192.168.1.1", address), local_orig=True, local_resp=True)
    judged = LocalRule(networks(configured)).judge(frame)
    assert judged["local_resp"].to_list() == [False]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("10.1.2.3", True),
        ("172.15.0.1", False),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.200.1", True),
        ("192.169.0.1", False),
        ("169.254.1.1", True),
        ("127.0.0.1", True),
        ("fd00::1", True),
        ("fe80::1", True),
        ("::1", True),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", False),
        ("100.64.0.1", False),
    ],
)
def test_private_ranges(address: str, local: bool) -> None:
    assert filled(Locality(), flows(("192.168.1.1", address))) == [(True, local)]


def test_without_private_addresses_the_busiest_one_is_local() -> None:
    frame = flows(
        ("198.51.100.1", "203.0.113.9"),
        ("198.51.100.2", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.3"),
    )
    locality = Locality()
    assert filled(locality, frame) == [(False, True), (False, True), (True, False)]
    assert locality.describe()["default"]["rule"] == "busiest"
    assert locality.describe()["default"]["networks"][0] == "203.0.113.9/32"


def test_every_sensor_has_its_own_rule() -> None:
    home = flows(("192.168.1.1", "203.0.113.9")).with_columns(sensor=pl.lit("home"))
    rack = flows(("198.51.100.1", "203.0.113.9")).with_columns(sensor=pl.lit("rack"))
    locality = Locality()
    assert filled(locality, pl.concat([home, rack, rack.head(1)])) == [
        (True, False),
        (True, False),
        (True, False),
    ]
    assert {name: told["rule"] for name, told in locality.describe().items()} == {
        "home": "private",
        "rack": "busiest",
    }


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="no network"):
        networks(["10.0.0.0/33"])


@given(
    st.lists(st.ip_addresses(), min_size=1, max_size=20),
    st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), min_size=1, max_size=4),
)
def test_membership_is_that_of_the_standard_library(
    addresses: list[Any], nets: list[tuple[Any, int]]
) -> None:
    chosen = networks([f"{address}/{min(bits, address.max_prefixlen)}" for address, bits in nets])
    near = [net.network_address for net in chosen] + [net.broadcast_address for net in chosen]
    texts = [str(address) for address in (*addresses, *near)]
    got = pl.DataFrame({"a": texts}).select(within(pl.col("a"), chosen)).to_series().to_list()
    assert got == [any(ipaddress.ip_address(text) in net for net in chosen) for text in texts]


@pytest.mark.parametrize("configured", [[], ["203.0.113.0/28"]])
def test_a_flow_alone_is_judged_as_among_all_others(configured: list[str]) -> None:
    pairs = [("9.9.9.9", "10.0.0.1"), ("203.0.113.9", "169.254.1.1"), ("fe80::1", "9.9.9.9"),
             ("2600::1", "224.0.0.1"), ("100.64.0.1", "192.168.1.1")]  # fmt: skip
    frame = pl.concat([flows(*pairs, local_orig=flag, local_resp=flag) for flag in (True, None)])
    rule = LocalRule(networks(configured))
    alone = [rule.judge(frame[row]) for row in range(frame.height)]
    assert_frame_equal(pl.concat(alone), rule.judge(frame))
    locality = Locality(networks(configured))
    locality.see(frame)
    assert_frame_equal(locality.fill(frame), rule.judge(frame))
    assert_frame_equal(rule.judge(rule.judge(frame)), rule.judge(frame))


def test_frames_without_the_sensors_flags_take_ours_for_them() -> None:
    judged = LocalRule().judge(flows(("10.0.0.1", "9.9.9.9")))
    before = judged.drop("sensor_local_orig", "sensor_local_resp")
    after = with_sensor_flags(before)
    assert dict(after.schema) == SCHEMA
    assert after.select("sensor_local_orig", "sensor_local_resp").rows() == [(True, False)]
    assert with_sensor_flags(after) is after


@pytest.fixture(scope="module")
def live() -> bytes:
    """Records of an unconfigured Zeek in the order in which it wrote them."""
    log = ROOT / "zeek-live/zeek-live-sample.conn.json.gz"
    if not log.exists():
        pytest.skip(f"measured on {log.name}, which isn't here")
    return gzip.decompress(log.read_bytes())


def whole(log: bytes) -> Read:
    flows = read(log).flows
    return Read(flows, flows.height)


def test_stream_and_scan_judge_equally_who_is_local(live: bytes) -> None:
    """An unconfigured Zeek calls the documentation ranges local: the sample's internet."""
    lines = live.splitlines()
    reader, streamed = MessageReader(), []
    for start in range(0, len(lines), 500):
        values = lines[start : start + 500]
        offsets = range(start, start + len(values))
        nothing: list[list[Header]] = [[] for _ in values]
        fetched = Fetched("conn", 0, offsets, [1] * len(values), values, nothing)
        for batch in reader.read([fetched], 1).batches:
            for value, headers in encode(batch):
                decoded = decode(value, headers, "conn/0/0")
                assert isinstance(decoded, Batch)
                streamed.append(LocalRule().judge(decoded.rows))
    columns = ["uid", "ts", "local_orig", "local_resp", "sensor_local_orig", "sensor_local_resp"]
    stream = pl.concat(streamed).select(columns).sort("uid", "ts")
    scan = pl.concat(ordered([whole(live)], batch_rows=1000)).select(columns).sort("uid", "ts")
    assert stream.height == len(lines)
    assert_frame_equal(stream, scan)
    disagreeing = stream.filter(pl.col("local_resp") != pl.col("sensor_local_resp"))
    assert disagreeing.height, "the sensor calls the documentation ranges local"


def test_a_stream_loses_none_of_a_scans_alerts(live: bytes) -> None:
    """In Zeek's own order windows differ a little: one more flow is over its threshold."""
    model = bundle.read(bundle.find("default"))
    scanned = _alerts(Pipeline(model), ordered([whole(live)], batch_rows=8192))
    judged = LocalRule().judge(read(live).flows)
    in_zeeks_order = _alerts(Pipeline(model), judged.iter_slices(500))
    in_known_order = _alerts(Pipeline(model), judged.sort(known(), "uid").iter_slices(500))
    assert len(scanned) > 10
    assert in_known_order == scanned
    assert in_zeeks_order >= scanned


def _alerts(pipeline: Pipeline, batches: Iterable[pl.DataFrame]) -> set[tuple[str, str]]:
    """Class and subject of what a pipeline alerts on."""
    documents = [document for batch in batches for document in pipeline.step(batch)]
    return {
        (one["ids_plugin"]["label"], one["ids_plugin"]["fold"]["subject"])
        for one in documents
        if one["event"]["kind"] == "alert"
    }
