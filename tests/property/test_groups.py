"""Folds are the same however the input is split, and the same as folds made one flow at a time."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import Scores
from tests.property.reference_groups import Fact, facts
from tests.support.factories import Row, flow, fold, frame, scores

HOSTS = ("10.0.0.1", "10.0.0.2", "8.8.8.8", "9.9.9.9")
LABELS = ("scan", "flood", "command_and_control", "brute_force")


@st.composite
def inputs(draw: st.DrawFn) -> tuple[pl.DataFrame, Scores, list[int]]:
    """Flows of few hosts with pauses about as long as what closes a fold, growing connections, and
    cuts."""
    count = draw(st.integers(1, 40))
    minutes = 0.0
    rows: list[Row] = []
    either = st.booleans()
    for number in range(count):
        minutes += draw(st.sampled_from([0, 0.1, 5, 14.9, 29, 30, 31, 400]))
        growing = [row for row in rows if row["open"]]
        if draw(either) and growing:
            rows.append(_grow(draw, draw(st.sampled_from(growing)), minutes))
        else:
            hosts = draw(st.sampled_from(HOSTS)), draw(st.sampled_from(HOSTS))
            size = draw(st.sampled_from([None, 0, 7, 100]))
            rows.append(
                flow(minutes * 60, *hosts, uid=f"C{number}", orig_bytes=size, open=draw(either))
            )
    flows = frame(rows)
    flows = flows.with_columns(
        replaces=pl.col("uid").is_duplicated() & ~pl.col("uid").is_first_distinct()
    )
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=count, max_size=count))
    sure = draw(st.lists(st.sampled_from([0.3, 0.6, 0.7, 0.9]), min_size=count, max_size=count))
    cuts = draw(st.lists(st.integers(0, count), max_size=6))
    return flows, scores(labels, sure), cuts


def _grow(draw: st.DrawFn, earlier: Row, minutes: float) -> Row:
    """A later record of an open connection."""
    later = flow(minutes * 60)["ts"] - earlier["ts"] + timedelta(seconds=1)
    size = (earlier["orig_bytes"] or 0) + draw(st.integers(0, 50))
    return earlier | {
        "duration": later,
        "orig_bytes": size,
        "open": draw(st.booleans()),
        "replaces": True,
    }


def said(documents: list[Document]) -> list[Fact]:
    """The facts of `reference_groups.facts`."""
    found = []
    for one in documents:
        whole = one["ids_plugin"]["fold"]
        key = (whole["subject"], whole["role"], one["ids_plugin"]["label"])
        shown = one["zeek"]["session_id"]
        found.append(
            (whole["state"], *key, shown, whole["count"], whole["peers"], whole.get("orig_bytes"))
        )
    return found


@settings(max_examples=60, deadline=None)
@given(inputs())
def test_any_split_gives_the_same_documents(given_: tuple[pl.DataFrame, Scores, list[int]]) -> None:
    flows, scored, cuts = given_
    documents, ledger = fold(flows, scored)
    split_documents, split_ledger = fold(flows, scored, batches=cuts)
    assert split_documents == documents
    assert split_ledger == ledger
    counts = ledger.total
    assert counts.over_threshold == counts.opened + counts.folded == int(scored.over.sum())
    assert counts.documents == len(documents) == 2 * counts.opened
    assert len({one["event"]["id"] for one in documents}) == len(documents)


@settings(max_examples=60, deadline=None)
@given(inputs())
def test_folds_are_those_made_one_flow_at_a_time(
    given_: tuple[pl.DataFrame, Scores, list[int]],
) -> None:
    flows, scored, cuts = given_
    documents, _ = fold(flows, scored, batches=cuts)
    assert sorted(map(repr, said(documents))) == sorted(map(repr, facts(flows, scored)))
