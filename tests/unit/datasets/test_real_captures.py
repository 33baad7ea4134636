"""Captures with tables of labels: which flows a row means, hours, folds, families."""

from __future__ import annotations

from pathlib import Path

import pytest

from ids_plugin.datasets import real_captures
from ids_plugin.errors import InputError, UsageError
from tests.support.made_captures import write_captures

CONTROLLER, BROWSED = "203.0.113.9", "198.51.100.7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_captures(tmp_path, attacked=1, quiet=1)
    return tmp_path


def test_labels_mark_the_flows_of_host_peer_and_port(folder: Path) -> None:
    attacked, quiet = real_captures.load(f"real:{folder}")
    flows = attacked.flows
    control = flows.filter(flows["control_host"].is_not_null())
    assert set(control["resp_h"]) == {CONTROLLER}
    assert set(control["control_host"]) == {"10.0.0.5"}
    assert flows["is_attack"].sum() == len(control) < len(flows)
    assert (attacked.kind, attacked.is_certain, attacked.is_unclear) == ("attack", True, False)
    assert not quiet.flows["is_attack"].any()
    assert (quiet.kind, quiet.is_certain, quiet.source) == ("office", True, "set1")


def test_flows_come_in_known_order_with_local_flags_and_facts(folder: Path) -> None:
    flows = next(real_captures.load(f"real:{folder}")).flows
    assert (flows["ts"] + flows["duration"]).is_sorted()
    assert flows["local_orig"].all()
    assert not flows["local_resp"].any()
    assert "http_requests" in flows.columns


def test_long_pauses_are_no_hours(folder: Path) -> None:
    hours = [capture.hours for capture in real_captures.load(f"real:{folder}")]
    assert all(0 < number < 24 for number in hours)


def test_an_unclear_run_counts_for_nothing(folder: Path) -> None:
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text().replace("command_and_control", "unclear"))
    attacked = next(real_captures.load(f"real:{folder}"))
    assert attacked.is_unclear
    assert not attacked.is_certain
    assert not attacked.flows["is_attack"].any()


def test_a_table_that_lacks_a_column_is_refused(folder: Path) -> None:
    (folder / "labels.csv").write_text("capture,host\n")
    with pytest.raises(InputError, match="column 'role' is missing"):
        list(real_captures.load(f"real:{folder}"))


def test_ports_are_lists_and_ranges(folder: Path) -> None:
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text().replace("8443", "eighty"))
    with pytest.raises(InputError, match="names no ports"):
        list(real_captures.load(f"real:{folder}"))


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError):
        real_captures.load("zeek:logs")


def test_captures_of_one_malware_share_a_family_across_sources() -> None:
    first = real_captures.malware_families("malware__Emotet-1")
    assert first & real_captures.malware_families("aktaion__geodo-pcap")
    assert not first & real_captures.malware_families("malware__dridex")


def test_every_source_has_a_fold() -> None:
    assert real_captures.fold_of("malware") == real_captures.fold_of("m57")
    assert 0 <= real_captures.fold_of("a set of one's own") < len(real_captures.FOLDS)
