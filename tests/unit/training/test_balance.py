"""Ways to keep the many from drowning the few."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ids_plugin.schema.window import STEPS
from ids_plugin.training.balance import MEANS, Balance
from ids_plugin.training.examples import Examples
from ids_plugin.windows import spec

LOGITS = torch.tensor([[4.0, 0.0], [0.5, 0.0], [0.0, 3.0]])
TARGET = torch.tensor([0, 0, 0])
WEIGHT = torch.tensor([0.1, 0.1, 0.8])


def examples() -> Examples:
    """990 benign windows and 10 of an attack."""
    label = np.where(np.arange(1000) < 990, 0, 1)
    steps = np.zeros((1000, STEPS, len(spec().sequence)), np.float32)
    table = np.zeros((1000, len(spec().table)), np.float32)
    return Examples(spec(), steps, np.ones((1000, STEPS), np.bool_), table, label, label)


@pytest.mark.parametrize(("means", "share"), [("resample", 0.5), ("weight", 0.01), ("none", 0.01)])
def test_only_resampling_draws_the_few_more_often(means: str, share: float) -> None:
    drawn = Balance(next(one for one in MEANS if one == means)).draw(
        examples(), 4_000, np.random.default_rng(1)
    )
    assert examples().label[drawn].mean() == pytest.approx(share, abs=0.03)


def test_the_loss_without_more_is_cross_entropy() -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, TARGET, label_smoothing=0.02)
    assert torch.equal(Balance().loss(LOGITS, TARGET, WEIGHT, 0.02), expected)
    assert torch.equal(Balance("none").loss(LOGITS, TARGET, WEIGHT, 0.02), expected)


def test_weights_count_errors() -> None:
    each = torch.nn.functional.cross_entropy(LOGITS, TARGET, reduction="none")
    assert Balance("weight").loss(LOGITS, TARGET, WEIGHT, 0.0) == pytest.approx(
        float((each * WEIGHT).sum())
    )


def test_the_focal_loss_is_that_of_its_authors() -> None:
    right = torch.softmax(LOGITS, dim=1)[:, 0]
    expected = float((-((1 - right) ** 2) * torch.log(right)).mean())
    assert Balance("none", 2.0).loss(LOGITS, TARGET, WEIGHT, 0.0) == pytest.approx(
        expected, rel=1e-5
    )
