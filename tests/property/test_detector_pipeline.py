"""A bundle of detectors gives the same documents and state wherever batches end and processes stop.

Documents are compared byte for byte, evidence included.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin import checkpoint
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema import flow
from tests.support import shipped
from tests.support.factories import SENSOR, START, behaviour, frame
from tests.support.factories import flow as made_flow

MOST_FLOWS_EACH = 70
FACTS: dict[str, Any] = {
    "tls_established": True,
    "tls_server_name": "cdn.example.net",
    "tls_has_certificate": True,
    "tls_is_self_signed": True,
    "http_requests": 1,
    "http_method": "POST",
    "http_user_agent": "curl/8",
    "resp_name": "cdn.example.net",
    "resp_name_ttl": 60.0,
}
"""columns that other logs than conn give"""


def growing(seconds: float, number: int) -> list[dict[str, Any]]:
    """A connection of which the sensor tells twice before it ends."""
    connection = {"uid": f"Cgrows{number}", "orig_h": "10.0.0.66", "resp_h": "10.0.0.2"}
    return [
        made_flow(seconds, duration=timedelta(seconds=30 * part), open=part < 3, resp_p=22)
        | connection
        | {"orig_bytes": 500 * part}
        for part in (1, 2, 3)
    ]


def attacks(names: list[str], starts: list[int]) -> list[dict[str, Any]]:
    """Flows of several behaviours, each from a start (s) on."""
    rows = []
    for name, start in zip(names, starts, strict=True):
        late = timedelta(seconds=start)
        for number, row in enumerate(behaviour(name)[:MOST_FLOWS_EACH]):
            known = FACTS if name == "command_and_control" and number % 3 else {}
            rows.append({**row, **known, "ts": row["ts"] + late, "uid": f"{row['uid']}-{start}"})
    return rows


@cache
def made(names: tuple[str, ...], starts: tuple[int, ...], connections: int) -> pl.DataFrame:
    """A Flow frame in known order: attacks, and connections that grow."""
    rows = attacks(list(names), list(starts))
    for number in range(connections):
        rows += growing(7.0 * number, number)
    assert min(row["ts"] for row in rows) >= START
    return frame(rows).select(flow.SCHEMA.keys())


def run(flows: pl.DataFrame, edges: list[int], stops: frozenset[int]) -> tuple[list[bytes], bytes]:
    """Documents in order and the state before the end; at `stops` another process goes on."""
    pipeline = Pipeline(shipped.detector_bundle())
    documents = []
    for low, high in pairwise(edges):
        if low in stops:
            saved = checkpoint.dump(pipeline.state([SENSOR]))
            pipeline = Pipeline(shipped.detector_bundle())
            assert pipeline.restore(checkpoint.load(saved)) == []
        documents += pipeline.step(flows[low:high])
    state = checkpoint.dump(pipeline.state([SENSOR]))
    documents += pipeline.finish()
    return [orjson.dumps(document) for document in documents], state


NAMES = ("scan", "brute_force", "command_and_control", "spreading", "inbound_noise", "exfiltration")
scenarios = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 900)), min_size=1, max_size=3, unique=True
)


@settings(max_examples=8, deadline=None)
@given(scenarios, st.integers(0, 8), st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_where_batches_end_changes_nothing(
    drawn: list[tuple[str, int]], connections: int, cuts: list[int], is_stopped: bool
) -> None:
    names, starts = zip(*drawn, strict=True)
    flows = made(names, starts, connections)
    edges = [0, *sorted(cut % (len(flows) + 1) for cut in cuts), len(flows)]
    stops = frozenset(edges[1:-1]) if is_stopped else frozenset()
    assert run(flows, edges, stops) == run(flows, [0, len(flows)], frozenset())


@pytest.mark.parametrize("size", [1, 7])
def test_small_batches_with_a_stop_in_the_middle_give_what_the_whole_gives(size: int) -> None:
    flows = made(NAMES, (0, 60, 0, 300, 0, 0), 5)
    edges = [*range(0, len(flows), size), len(flows)]
    whole, state = run(flows, [0, len(flows)], frozenset())
    assert len([document for document in whole if b'"kind":"alert"' in document]) >= 4
    stopped = frozenset({edges[len(edges) // 2]})
    assert run(flows, edges, stopped) == (whole, state)
