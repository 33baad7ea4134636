"""Bench `explanations`: what its table says of explained flows."""

from __future__ import annotations

from argparse import Namespace

from ids_plugin.explain import Deletion
from ids_plugin.explain.explainer import Falls
from tests.bench.explanations import Tried, page, summaries

GOOD, BAD = Falls(2.0, 1.0), Falls(0.5, 1.0)


def tried(method: str, flows: Falls | None, features: Falls = GOOD) -> Tried:
    return Tried(Deletion(0.9, GOOD, flows, features, method), f"{method}+occlusion", 0.004)


def test_rows_count_what_was_named_tested_and_passed() -> None:
    found = [
        tried("attention", GOOD),
        tried("step_occlusion", BAD),
        tried("no_single_flow", None, BAD),
    ]
    rows = list(summaries("toy", {"always": found[:1], "never": found[1:], "tested": found}))
    assert [(row["method"], row["tested"], row["passed"]) for row in rows] == [
        ("attention", 1, 1), ("occlusion", 1, 0), ("as shown", 2, 1), ("occlusion", 3, 2),
    ]  # fmt: skip
    text = page(rows, Namespace(explained=3, seed=1))
    assert (
        "| toy | earlier flows | as shown (attention 1, step_occlusion 1) | 3 | 1 | 2 | 50% | "
        "1.25 | 1.0 | 4.0 |" in text
    )


def test_a_family_without_attention_has_no_row_of_it() -> None:
    rows = list(
        summaries("toy", {"always": [], "never": [], "tested": [tried("step_occlusion", GOOD)]})
    )
    assert [row["method"] for row in rows] == ["as shown", "occlusion"]
