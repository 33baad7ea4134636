"""How far traffic differs from that of training: one number a feature, in the ledger."""

from __future__ import annotations

import numpy as np
import pytest

from ids_plugin import checkpoint
from ids_plugin.detectors.contact_profile.drift import DriftCounts
from ids_plugin.detectors.contact_profile.model import NAMES
from ids_plugin.pipeline import Pipeline, Scan, scan
from ids_plugin.schema.window import Floats
from ids_plugin.sources import Read
from ids_plugin.training.examples import ordered_batches
from tests.support import toy, toy_detectors

pytestmark = pytest.mark.slow


def rows(**columns: list[float]) -> Floats:
    size = max(map(len, columns.values()))
    features = np.full((size, len(NAMES)), np.nan, np.float32)
    for name, values in columns.items():
        features[:, NAMES.index(name)] = values
    return features


def test_values_outside_of_the_percentiles_are_counted() -> None:
    counts = DriftCounts({"flows": (1.0, 2.0, 3.0), "span": (0.0, 0.5, 1.0)})
    counts.add(rows(flows=[0.5, 1.0, 3.0, 3.5], span=[np.nan, 0.2, np.nan, 7.0], rate=[9.0] * 4))
    assert counts.counts() == {"flows": (2, 4), "span": (1, 2)}
    counts.add(rows(flows=[3.0004]))
    assert counts.counts()["flows"] == (2, 5)


def test_counts_come_back_from_a_state() -> None:
    counts, other = (DriftCounts({"flows": (1.0, 2.0, 3.0)}) for _ in range(2))
    counts.add(rows(flows=[0.0, 2.0]))
    other.restore(checkpoint.load(checkpoint.dump(counts.state())))
    assert other.counts() == {"flows": (1, 2)}
    other.restore({})
    assert other.counts() == {}


def test_the_ledger_has_a_share_for_each_feature() -> None:
    flows = toy.network(5)
    reads = [Read(flows, len(flows), source="zeek", sensor="toy-5")]
    pipeline = Pipeline(toy_detectors.bundle())
    for _ in scan(reads, pipeline, Scan()):
        pass
    (shares,) = pipeline.ledger.to_dict()["notes"]["outside_training_range"].values()
    assert shares.keys() <= set(NAMES)
    assert all(0 <= share <= 1 for share in shares.values())
    assert max(shares.values()) > 0


@pytest.mark.parametrize("size", [3, 500])
def test_shares_are_the_same_wherever_batches_end(size: int) -> None:
    flows = toy.network(5, minutes=10)
    whole, cut = (Pipeline(toy_detectors.bundle()) for _ in range(2))
    for batch in ordered_batches(flows):
        whole.step(batch)
        for start in range(0, len(batch), size):
            cut.step(batch[start : start + size])
    assert cut.outside_training_range == whole.outside_training_range != {}


def test_a_restored_pipeline_goes_on_counting() -> None:
    (batch,) = ordered_batches(toy.network(5, minutes=10))
    whole, first, second = (Pipeline(toy_detectors.bundle()) for _ in range(3))
    whole.step(batch)
    first.step(batch[:300])
    names = batch["sensor"].unique().to_list()
    second.restore(checkpoint.load(checkpoint.dump(first.state(names))))
    second.step(batch[300:])
    assert second.outside_training_range == whole.outside_training_range


def test_without_traffic_nothing_is_said() -> None:
    assert Pipeline(toy_detectors.bundle()).outside_training_range == {}
