"""The fingerprint of windows: names, units and order decide, words don't."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ids_plugin.schema import flow
from ids_plugin.schema.window import Feature, Spec
from ids_plugin.windows import spec

A, B = Feature("a", "s", "a"), Feature("b", "B", "b")
SPEC = Spec(
    flow=(A, B), step=(Feature("c", "s", "c"),), context=(Feature("d", "hosts", "d"),), summary=()
)


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, flow=(B, A)),
        replace(SPEC, flow=(A,)),
        replace(SPEC, flow=(A, B._replace(unit="kB"))),
        replace(SPEC, flow=(A, B._replace(name="e"))),
        replace(SPEC, flow=(A,), step=(B, *SPEC.step)),
        replace(SPEC, summary=(Feature("e", "s", "e"),)),
    ],
)
def test_other_numbers_have_another_fingerprint(other: Spec) -> None:
    assert other.fingerprint != SPEC.fingerprint


def test_other_words_have_the_same() -> None:
    assert (
        replace(SPEC, flow=(A._replace(text="in other words"), B)).fingerprint == SPEC.fingerprint
    )


def test_a_table_and_a_sequence_begin_with_the_flow() -> None:
    assert SPEC.sequence == SPEC.flow + SPEC.step
    assert SPEC.table == SPEC.flow + SPEC.context + SPEC.summary


def test_no_address_time_name_or_port_reaches_a_model() -> None:
    named = {feature.name for feature in (*spec().sequence, *spec().table)}
    assert not named & (flow.SCHEMA.keys() | {"known", "clock", "replaces"})
    assert not [name for name in named if name.endswith(("_h", "_p", "uid", "addr"))]
