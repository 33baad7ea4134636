"""Which networks are local: configured, else the sensor's flags, else private ranges, else the busiest address."""

from __future__ import annotations

import ipaddress
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_plugin.errors import ConfigError
from ids_plugin.sources.local_networks import Locality, fill_at_once, networks, within
from tests.support.logs import conn, jsonl, read


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


def test_configured_networks_come_first() -> None:
    frame = flows(("192.168.1.1", "203.0.113.9"), local_orig=True, local_resp=False)
    locality = Locality(networks(["203.0.113.0/28"]))
    assert filled(locality, frame) == [(False, True)]
    assert locality.describe() == {
        "default": {"rule": "configured", "networks": ["203.0.113.0/28"]}
    }


def test_the_sensors_own_flags_are_taken_and_the_rest_is_private_ranges() -> None:
    flagged = flows(("9.9.9.9", "10.0.0.1"), local_orig=True, local_resp=False)
    assert filled(Locality(), flagged, flows(("10.0.0.1", "9.9.9.9"))) == [
        (True, False),
        (True, False),
    ]


def test_flags_of_a_sensor_that_was_told_nothing_are_not_knowledge() -> None:
    """Zeek's own list of local networks has the documentation ranges in it."""
    flagged = flows(("203.0.113.9", "10.0.0.1"), local_orig=True, local_resp=True)
    assert filled(Locality(), flagged) == [(False, True)]


def test_flags_that_are_never_true_say_nothing() -> None:
    assert filled(
        Locality(), flows(("10.0.0.1", "203.0.113.9"), local_orig=False, local_resp=False)
    ) == [(True, False)]


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


def test_a_flow_at_a_time_only_it_is_asked() -> None:
    pairs = [("9.9.9.9", "10.0.0.1"), ("203.0.113.9", "169.254.1.1"), ("fe80::1", "9.9.9.9")]
    unknown = flows(*pairs)
    told = flows(*pairs, local_orig=True, local_resp=None)
    said = [
        ("configured", unknown, ["203.0.113.0/28"]),
        ("told", told, []),
        ("private", unknown, []),
    ]
    found = {
        name: fill_at_once(frame, networks(nets)).select("local_orig", "local_resp").rows()
        for name, frame, nets in said
    }  # fmt: skip
    assert found == {
        "configured": [(False, False), (True, False), (False, False)],
        "told": [(True, True), (True, True), (True, False)],
        "private": [(False, True), (False, True), (True, False)],
    }
    whole = flows(*pairs, local_orig=True, local_resp=False)
    assert fill_at_once(whole) is whole
