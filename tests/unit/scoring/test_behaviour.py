"""Behaviours: each pattern shows when all its terms hold, and not when one is taken away."""

from __future__ import annotations

import numpy as np
import pytest

from ids_plugin import bundle
from ids_plugin.bundle import MemberEntry
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import STEPS, Floats
from ids_plugin.scoring import behaviour
from ids_plugin.scoring.behaviour import BEHAVIOURS, BehaviourMember, Term
from ids_plugin.windows import spec

TABLE = spec().table
NAMES = [feature.name for feature in TABLE]
PATTERNS = [(one.name, number) for one in BEHAVIOURS for number in range(len(one.patterns))]


def member(described: dict[str, object]) -> BehaviourMember:
    manifest = {
        "family": "f",
        "version": "1",
        "classes": list(CLASSES),
        "schema": described,
        "members": [],
    }
    return behaviour.PLUGIN.open(
        bundle.seal(manifest, {}), MemberEntry(name="behaviour", kind="behaviour")
    )


def row(terms: tuple[Term, ...]) -> Floats:
    table = np.full((1, len(NAMES)), np.nan, np.float32)
    for term in terms:
        at = NAMES.index(term.feature)
        table[0, at] = np.log1p(term.high) if TABLE[at].unit.startswith("log ") else term.high
    return table


@pytest.mark.parametrize(("name", "number"), PATTERNS)
def test_a_pattern_shows_when_all_its_terms_hold(name: str, number: int) -> None:
    terms = next(one for one in BEHAVIOURS if one.name == name).patterns[number]
    assert member(bundle.describe(spec())).behaviours(row(terms))[name][0] == pytest.approx(1.0)
    for left_out in range(len(terms)):
        rest = terms[:left_out] + terms[left_out + 1 :]
        assert member(bundle.describe(spec())).behaviours(row(rest))[name][0] == 0.0


def test_nothing_known_shows_nothing() -> None:
    table = row(())
    assert not any(
        values[0] for values in member(bundle.describe(spec())).behaviours(table).values()
    )
    steps, mask = np.zeros((1, STEPS, 1), np.float32), np.zeros((1, STEPS), np.bool_)
    said = member(bundle.describe(spec())).probabilities(steps, mask, table)[0]
    assert said.tolist() == [1.0] + [0.0] * (len(CLASSES) - 1)


def test_the_named_behaviours() -> None:
    named = {"scan", "brute_force", "flood", "retrying", "persistence", "spreading", "exfiltration"}
    assert named <= {one.name for one in BEHAVIOURS}
    assert {one.label for one in BEHAVIOURS} <= set(CLASSES)


def test_a_missing_column_is_refused_by_name() -> None:
    described = bundle.describe(spec())
    described["summary"] = [pair for pair in described["summary"] if pair[0] != "window_span"]
    with pytest.raises(BundleError, match="window_span"):
        member(described)
