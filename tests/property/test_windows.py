"""Windows equal a reference written for reading, wherever the input is split."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin import checkpoint, features, windows
from ids_plugin.schema import flow
from ids_plugin.windows import identity, state
from tests.property import reference_windows

HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "198.51.100.7", "224.0.0.251")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

records = st.fixed_dictionaries(
    {
        "gap": st.sampled_from([0, 0, 1, 3, 9, 10, 50, 60, 599, 600, 3599, 3600, 40_000, 86_400]),
        "late": st.sampled_from([0, 0, 0, 5]),
        "orig_h": st.sampled_from(HOSTS[:4]),
        "resp_h": st.sampled_from(HOSTS),
        "resp_p": st.sampled_from([22, 80, 8080]),
        "proto": st.sampled_from(["tcp", "udp", "icmp"]),
        "conn_state": st.sampled_from(["SF", "S0", "REJ", "RSTO", "OTH"]),
        "duration": st.sampled_from([None, 0, 4]),
        "orig_ip_bytes": st.sampled_from([None, 40, 1500]),
        "resp_pkts": st.sampled_from([0, 3]),
        "uid": st.sampled_from([None, None, None, "grows", "again"]),
        "open": st.booleans(),
    }
)


def frame(drawn: list[dict[str, Any]]) -> pl.DataFrame:
    """A Flow frame in known order, but for records that come `late`."""
    rows, known = [], START
    for index, record in enumerate(drawn):
        known += dt.timedelta(seconds=record["gap"])
        took = dt.timedelta(seconds=record["duration"] or 0)
        uid = record["uid"] or f"C{index}"
        same_connection = {"orig_h": HOSTS[0], "resp_h": HOSTS[3]} if record["uid"] else {}
        rows.append(
            {name: record.get(name) for name in flow.SCHEMA}
            | same_connection
            | {
                "uid": uid,
                "ts": known - took - dt.timedelta(seconds=record["late"]),
                "duration": None if record["duration"] is None else took,
                "open": record["uid"] == "grows" and record["open"],
                "orig_p": 8,
                "orig_pkts": 1 + index % 3,
                "resp_ip_bytes": 40 * record["resp_pkts"],
                "local_orig": True,
                "local_resp": record["resp_h"].startswith("10."),
            }
        )
    return features.add(pl.DataFrame(rows, schema=flow.SCHEMA))


def run(
    flows: pl.DataFrame, cuts: list[int], limits: state.Limits | None = None, stops: bool = False
) -> dict[str, Any]:
    """Everything windows give, batch by batch; with `stops`, another process goes on after every
    batch."""
    windower = state.Windower(limits)
    edges = [0, *sorted(cut % (len(flows) + 1) for cut in cuts), len(flows)]
    parts: dict[str, list[Any]] = {
        "context": [],
        "steps": [],
        "mask": [],
        "table": [],
        "earlier": [],
        "host": [],
    }
    for low, high in itertools.pairwise(edges):
        if stops:
            kept = checkpoint.dump(windower.state())
            windower = state.Windower(limits)
            windower.restore(checkpoint.load(kept))
        for batch in windower.step(flows[low:high]):
            rows = np.arange(len(batch))
            steps = batch.steps(rows)
            parts["context"].append(batch.context)
            parts["steps"].append(steps.values)
            parts["mask"].append(steps.mask)
            parts["table"].append(batch.table(rows))
            parts["earlier"] += [
                [(f.uid, f.known) for f in batch.earlier(row)] for row in rows.tolist()
            ]
            parts["host"] += [
                [(f.uid, f.known) for f in batch.host_flows(row, 5)] for row in rows.tolist()
            ]
    arrays = {name: np.concatenate(parts[name]) for name in ("context", "steps", "mask", "table")}
    counts = {
        "duplicates": windower.duplicates,
        "replaced": windower.replaced,
        "delayed": windower.delayed,
    }
    counts["left_early"] = windower.left_early
    lists = {
        "earlier": parts["earlier"],
        "host": parts["host"],
        "state": checkpoint.dump(windower.state()),
    }
    return arrays | lists | counts


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    for name, value in left.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, right[name], err_msg=name)
        else:
            assert value == right[name], name


@settings(max_examples=120, deadline=None)
@given(st.lists(records, min_size=1, max_size=60))
def test_windows_equal_the_reference(drawn: list[dict[str, Any]]) -> None:
    flows = frame(drawn)
    found = run(flows, [])
    rows = flows.with_columns(
        known=flow.known().to_physical() / 1e6,
        ts=pl.col("ts").to_physical(),
        duration=pl.col("duration").to_physical(),
    ).to_dicts()
    expected = reference_windows.windows(rows)
    names = [feature.name for feature in windows.spec().context]
    assert len(found["context"]) == len(expected)
    for row, (seen, wanted) in enumerate(zip(found["context"], expected, strict=True)):
        for name, value in zip(names, seen.tolist(), strict=True):
            assert value == pytest.approx(wanted[name], abs=1e-5), (row, name)
    earlier = [wanted["earlier"] for wanted in expected]
    assert [[uid for uid, _ in window] for window in found["earlier"]] == earlier


@settings(max_examples=80, deadline=None)
@given(st.lists(records, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_splitting_anywhere_changes_nothing(drawn: list[dict[str, Any]], cuts: list[int]) -> None:
    flows = frame(drawn)
    assert_same(run(flows, []), run(flows, cuts))


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=20, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_limits_and_clean_ups_do_not_depend_on_batches(
    drawn: list[dict[str, Any]], cuts: list[int]
) -> None:
    flows = frame(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "GENERATION", 24)
        patch.setattr(state, "CHUNK", 12)
        limits = state.Limits(visible=12, history=6)
        assert_same(run(flows, [], limits), run(flows, cuts, limits))


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_another_process_goes_on_anywhere(drawn: list[dict[str, Any]], cuts: list[int]) -> None:
    flows = frame(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "GENERATION", 24)
        patch.setattr(state, "CHUNK", 12)
        limits = state.Limits(visible=12, history=6)
        assert_same(run(flows, [], limits), run(flows, cuts, limits, stops=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=60))
def test_clean_ups_change_nothing_while_limits_are_not_reached(drawn: list[dict[str, Any]]) -> None:
    flows = frame([record | {"uid": None} for record in drawn])
    whole = run(flows, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "GENERATION", 16)
        patch.setattr(state, "CHUNK", 8)
        assert_same(
            {name: value for name, value in whole.items() if name not in ("host", "state")},
            run(flows, []),
        )


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batch_size_changes_nothing(size: int) -> None:
    rng = np.random.default_rng(5)
    drawn = [
        {
            "gap": int(rng.choice([0, 1, 30])),
            "late": 0,
            "orig_h": HOSTS[rng.integers(3)],
            "resp_h": HOSTS[rng.integers(5)],
            "resp_p": int(rng.integers(1, 400)),
            "proto": "tcp",
            "conn_state": str(rng.choice(["SF", "S0", "REJ"])),
            "duration": 1,
            "orig_ip_bytes": int(rng.integers(40, 9000)),
            "resp_pkts": 2,
            "uid": None,
            "open": False,
        }
        for _ in range(300)
    ]
    flows = frame(drawn)
    assert_same(run(flows, []), run(flows, list(range(0, 300, size))))


def test_flows_without_a_uid_are_never_taken_for_each_other() -> None:
    record = {
        "gap": 0, "late": 0, "orig_h": HOSTS[0], "resp_h": HOSTS[1], "resp_p": 22, "proto": "tcp", "conn_state": "S0",  # noqa: E501
        "duration": None, "orig_ip_bytes": 40, "resp_pkts": 0, "uid": None, "open": False,
    }  # fmt: skip
    flows = frame([record] * 5).with_columns(
        pl.lit(None, pl.String).alias("uid"), orig_pkts=1, open=True
    )
    found = run(flows, [2])
    assert (len(found["context"]), found["duplicates"], found["replaced"]) == (5, 0, 0)
