"""Simulated flows: the same for the same seed, possible for a sensor, labelled, and not told
apart by trivial rules.
"""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
import polars as pl
import pytest

from ids_plugin.schema.flow import SCHEMA, known
from ids_plugin.schema.score import CLASSES
from ids_plugin.simulation import corpus, generate, trivial_rules
from ids_plugin.simulation.contacts import V6_GROUP, V6_LINK, V6_WIDE
from ids_plugin.simulation.draws import periodic_times
from ids_plugin.simulation.flow_records import addresses
from ids_plugin.simulation.networks import Ranges

COUNT = 24


@pytest.fixture(scope="module")
def flows() -> pl.DataFrame:
    return pl.concat(list(generate.simulate_networks(5, COUNT, 12.0, Ranges(), "net")))


def test_same_seed_same_flows_other_seed_others() -> None:
    once, again, other = (
        generate.simulate_network(seed, 3, 4.0, Ranges(), "n") for seed in (1, 1, 2)
    )
    assert once.equals(again)
    assert corpus.rows_digest(once) == corpus.rows_digest(again) != corpus.rows_digest(other)


def test_a_network_does_not_depend_on_its_neighbours() -> None:
    third = list(generate.simulate_networks(9, 3, 2.0, Ranges(), "net"))[2]
    assert third.equals(generate.simulate_network(9, 2, 2.0, Ranges(), "net-002"))


def test_flow_frame(flows: pl.DataFrame) -> None:
    assert dict(flows.schema) == SCHEMA
    assert flows["uid"].is_unique().all()
    assert flows["sensor"].n_unique() == COUNT
    assert set(flows["source"]) <= {"zeek", "suricata", "capture"}
    assert set(flows["label"]) <= set(CLASSES)
    assert flows["label_detail"].null_count() == 0


def test_flows_of_a_sensor_stand_in_known_order(flows: pl.DataFrame) -> None:
    for _, one in flows.group_by("sensor"):
        ordered = one.sort(known(), "uid", maintain_order=True)
        assert one["uid"].equals(ordered["uid"])


def test_one_packet_has_neither_duration_nor_bytes_and_more_have_both(flows: pl.DataFrame) -> None:
    one = flows["orig_pkts"] + flows["resp_pkts"] <= 1
    for name in ("duration", "orig_bytes", "resp_bytes"):
        assert (flows[name].is_null() == one).all()


def test_sizes_fit_packets(flows: pl.DataFrame) -> None:
    for side in ("orig", "resp"):
        packets, ip, payload = (
            flows[f"{side}_{x}"].fill_null(0).to_numpy() for x in ("pkts", "ip_bytes", "bytes")
        )
        many = flows["duration"].is_not_null().to_numpy()
        assert (packets >= 0).all()
        assert (payload >= 0).all()
        head = (ip - payload)[many & (packets > 0)] / packets[many & (packets > 0)]
        assert head.min() >= 28
        assert head.max() <= 100
        assert (payload[packets == 0] == 0).all()
        assert (payload <= packets * 1480).all() or side == "orig"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("S0", pl.col("resp_pkts") == 0),
        ("REJ", (pl.col("resp_pkts") > 0) & (pl.col("orig_bytes") == 0)),
        ("SF", (pl.col("orig_pkts") > 0) & (pl.col("resp_pkts") > 0)),
        ("S1", pl.col("history").str.starts_with("Sh")),
        ("RSTO", pl.col("history").str.contains("R")),
        ("RSTR", pl.col("history").str.contains("r")),
        ("S2", pl.col("history").str.ends_with("F")),
        ("S3", pl.col("history").str.ends_with("f")),
    ],
)
def test_state_agrees_with_packets_and_history(
    flows: pl.DataFrame, state: str, says: pl.Expr
) -> None:
    of = flows.filter(pl.col("conn_state") == state)
    assert of.height
    assert of.select(says.all()).item()


def test_history_names_who_sent_data(flows: pl.DataFrame) -> None:
    tcp = flows.filter(pl.col("proto") == "tcp", pl.col("duration").is_not_null())
    assert (tcp["history"].str.contains("D") == (tcp["orig_bytes"] > 0)).all()
    assert (tcp["history"].str.contains("d") == (tcp["resp_bytes"] > 0)).all()


def test_nobody_speaks_to_itself(flows: pl.DataFrame) -> None:
    assert (flows["orig_h"] != flows["resp_h"]).all()


def test_icmp_has_no_history_and_its_types_in_the_ports(flows: pl.DataFrame) -> None:
    icmp = flows.filter(pl.col("proto") == "icmp")
    assert icmp["history"].null_count() == icmp.height
    assert set(icmp["orig_p"]) <= {8, 133, 135, 143}
    assert set(icmp["ip_proto"]) == {1, 58}


def test_addresses_are_canonical(flows: pl.DataFrame) -> None:
    for text in pl.concat([flows["orig_h"], flows["resp_h"]]).unique().sample(2000, seed=1):
        assert str(ip_address(text)) == text


def test_address_codes() -> None:
    codes = np.array(
        [1, 0xC0A80001, 0xFFFFFFFF, V6_LINK + 5, V6_GROUP + 0xFB, V6_WIDE + 9], dtype=np.int64
    )
    expected = [
        "0.0.0.1",
        "192.168.0.1",
        "255.255.255.255",
        "fe80::200:ff:fe00:5",
        "ff02::fb",
        "2a0e:97c0::9",
    ]
    assert addresses(codes).to_list() == expected


def test_attackers_also_behave_normally_and_look_alikes_exist(flows: pl.DataFrame) -> None:
    inside = ("command_and_control", "exfiltration")
    four = flows.filter(~pl.col("orig_h").str.contains(":"))
    bad = four.filter(pl.col("label").is_in(inside)).select("sensor", "orig_h").unique()
    good = flows.filter(pl.col("label") == "benign").select("sensor", "orig_h").unique()
    assert bad.height
    assert bad.join(good, on=["sensor", "orig_h"]).height == bad.height
    names = set(flows.filter(pl.col("label") == "benign")["label_detail"])
    assert names >= {
        "backup",
        "inventory",
        "monitoring",
        "failed_login",
        "cloud_polling",
        "update",
        "dead_service",
        "after_outage",
        "job",
    }


def test_tls_shows_its_handshake_whoever_speaks_it(flows: pl.DataFrame) -> None:
    through = flows.filter(pl.col("service") == "ssl", pl.col("conn_state") == "SF")
    assert {"benign"} < set(through["label"])
    assert through.select(
        (pl.col("orig_bytes") >= 260).all() & (pl.col("resp_bytes") >= 130).all()
    ).item()


def test_what_asks_outside_in_vain_was_answered_before_or_does_not_go_on_for_hours(
    flows: pl.DataFrame,
) -> None:
    outside = flows.filter(
        ~pl.col("local_resp").fill_null(value=True), ~pl.col("resp_h").str.contains(":")
    )
    pair = ("sensor", "orig_h", "resp_h")
    vain = (
        outside.filter(pl.col("label_detail") == "dead_service")
        .group_by(pair)
        .agg(pl.col("ts").max() - pl.col("ts").min())
    )
    before = (
        outside.filter(pl.col("label_detail").is_in(["before_outage", "after_outage"]))
        .select(pair)
        .unique()
    )
    for_ever = vain.join(before, on=pair, how="anti").filter(pl.col("ts") > pl.duration(hours=2))
    assert len(for_ever) < 0.15 * len(vain)


def test_floods_are_fast_and_strangers_are_not_floods(flows: pl.DataFrame) -> None:
    packets = flows.filter(pl.col("label_detail") == "packet_flood")
    rate = (
        (packets["orig_pkts"] + packets["resp_pkts"])
        / packets["duration"].dt.total_microseconds()
        * 1e6
    )
    assert len(rate)
    assert (rate > 50).all()
    assert set(flows.filter(pl.col("label_detail").is_in(["volley", "survey"]))["label"]) == {
        "inbound_noise"
    }


def test_every_class_occurs_and_most_hours_are_quiet() -> None:
    many = pl.concat(list(generate.simulate_networks(8, 60, 12.0, Ranges(), "net")))
    assert set(many["label"]) == set(CLASSES) - {"other"}
    assert trivial_rules.quiet_hour_share(many) >= 0.4


def test_trivial_rules_get_nowhere(flows: pl.DataFrame) -> None:
    accuracy, balanced = trivial_rules.rule_results(flows)["tcp = attack"]
    assert accuracy < (flows["label"] == "benign").to_numpy().mean()
    assert balanced < 0.75
    scores = trivial_rules.class_f1(flows["label"], trivial_rules.lookup_predictions(flows))
    assert sum(scores.values()) / len(scores) < 0.5
    odd = flows.filter(pl.col("label") == "benign", pl.col("proto") == "tcp")["conn_state"]
    assert set(odd) >= {"S0", "REJ", "RSTO", "RSTR", "S1", "S3", "SF"}


def test_beats_keep_their_rhythm() -> None:
    rng = np.random.default_rng(1)
    who, t = periodic_times(
        rng,
        np.array([0.0, 50.0]),
        np.array([1000.0, 900.0]),
        np.array([10.0, 100.0]),
        np.array([0.0, 0.5]),
    )
    assert np.allclose(np.diff(t[who == 0]), 10)
    gaps = np.diff(t[who == 1])
    assert ((gaps >= 50) & (gaps <= 150)).all()
    assert t[who == 1].min() >= 50
    assert t.max() < 1000
