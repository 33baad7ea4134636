"""The bench of AE-LSTM on flows: its figures, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import ae_lstm

BAD = np.array([False, False, False, True, True])
SCORE = np.array([0.1, 0.2, 0.6, 0.5, 0.9])


def test_the_threshold_calls_most_weight_right() -> None:
    assert ae_lstm.best_threshold(BAD, SCORE, np.ones(5)) == 0.9
    assert ae_lstm.best_threshold(BAD, SCORE, np.array([1, 1, 0.5, 1, 1])) == 0.5


def test_figures_are_those_of_the_attacks() -> None:
    found = ae_lstm.figures(BAD, SCORE, SCORE >= 0.5, np.array([True, True, False, True, False]))
    assert found == {
        "accuracy": 80, "precision": pytest.approx(66.67), "recall": 100, "F1": 80, "FPR": pytest.approx(33.33),  # noqa: E501
        "FNR": 0, "AUC": pytest.approx(83.33), "TCP AUC": 100,
    }  # fmt: skip


def test_the_page_has_every_variant_beside_the_published_figures() -> None:
    some = dict.fromkeys(ae_lstm.FIGURES, 50.0)
    row = {"figures": some, "accurate": some, "beta": 0.2, "AUC by class": {"scan": 0.75}}
    variants = {
        name: [row, {**row, "figures": {**some, "accuracy": 60.0}}] for name in ae_lstm.SHIPPED
    }
    text = ae_lstm.page(
        {"seeds": 2, "epochs": 1, "windows": 1, "flows": 5, "benign": 3, "variants": variants}
    )
    assert "| together | 55.0 ± 5.0 (97.5) | 50.0 ± 0.0 (95.8) |" in text
    assert text.count("| 75.0 ± 0.0 |") == len(ae_lstm.SHIPPED)
