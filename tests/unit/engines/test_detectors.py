"""Detectors side by side: who labels a flow, what stays when the bundle changes, what is
refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from ids_plugin import bundle, checkpoint
from ids_plugin.bundle import Bundle
from ids_plugin.detectors import Findings
from ids_plugin.engines import SensorEngine
from ids_plugin.engines.detectors import DetectorEngine, DetectorSensor, Union
from ids_plugin.engines.opening import open_engine
from ids_plugin.engines.windows import WindowEngine
from ids_plugin.errors import BundleError, CheckpointError
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema import flow
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES
from tests.support import shipped
from tests.support.factories import SENSOR, behaviour, frame

SCAN, FLOOD, CONTROL = (CLASSES.index(name) for name in ("scan", "flood", "command_and_control"))


def evidence_of(text: str) -> Evidence:
    """Evidence that can be told from others."""
    return Evidence((), (), "rule", 0.0, {}, text)


def findings(
    name: str,
    rows: Sequence[int],
    score: Sequence[float],
    *,
    label: int = SCAN,
    threshold: float = 0.5,
    is_target: bool = False,
    quiet_s: int = 1800,
) -> Findings:
    """What a detector says of some rows."""
    count = len(rows)
    return Findings(
        rows=np.array(rows, np.int64),
        label=np.full(count, label, np.int64),
        score=np.array(score, np.float64),
        threshold=np.full(count, threshold),
        is_target=np.full(count, is_target),
        quiet_us=np.full(count, quiet_s * 1_000_000, np.int64),
        explain=lambda position: evidence_of(f"{name} {position}"),
    )


def test_the_first_detector_over_its_threshold_labels_a_flow() -> None:
    union = Union(
        {
            "counters": findings("counters", [0, 1, 3], [0.6, 0.8, 0.4]),
            "control": findings(
                "control",
                [1, 2, 3],
                [0.85, 0.9, 0.3],
                label=CONTROL,
                threshold=0.75,
                is_target=True,
                quiet_s=86_400,
            ),
        },
        5,
    )
    scores = union.scores()
    assert scores.detector is not None
    assert scores.is_target is not None
    assert scores.quiet_us is not None
    assert scores.detector.tolist() == ["counters", "counters", "control", "counters", ""]
    assert scores.score.tolist() == [0.6, 0.8, 0.9, 0.4, 0.0]
    assert scores.label[:3].tolist() == [SCAN, SCAN, CONTROL]
    assert scores.over.tolist() == [True, True, True, False, False]
    assert scores.threshold.tolist() == [0.5, 0.5, 0.75, 0.5, 1.0]
    assert scores.is_target.tolist() == [False, False, True, False, False]
    assert scores.quiet_us[:3].tolist() == [1_800_000_000, 1_800_000_000, 86_400_000_000]
    assert np.isnan(scores.models["control"][0])
    assert scores.models["control"][1] == 0.85
    assert scores.probability[1, [SCAN, CONTROL]].tolist() == [0.8, 0.85]
    assert [union.explain(row).summary for row in (0, 1, 2)] == [
        "counters 0",
        "counters 1",
        "control 1",
    ]


@pytest.mark.parametrize("is_first", [True, False])
def test_what_reaches_its_threshold_wins_over_a_higher_score_that_does_not(is_first: bool) -> None:
    said = [
        ("sure", findings("sure", [0], [0.55])),
        ("strict", findings("strict", [0], [0.9], label=FLOOD, threshold=0.95)),
    ]
    scores = Union(dict(said if is_first else said[::-1]), 1).scores()
    assert scores.detector is not None
    assert (scores.detector[0], scores.over[0], scores.score[0]) == ("sure", True, 0.55)


def test_the_first_of_the_bundle_wins_where_scores_are_equal() -> None:
    scores = Union(
        {"first": findings("first", [0], [0.7]), "second": findings("second", [0], [0.7])}, 1
    ).scores()
    assert scores.detector is not None
    assert scores.detector.tolist() == ["first"]


def test_without_findings_every_flow_is_ordinary() -> None:
    scores = Union({"counters": findings("counters", [], [])}, 3).scores()
    assert scores.score.tolist() == [0, 0, 0]
    assert not scores.over.any()
    assert scores.probability[:, 0].tolist() == [1, 1, 1]


def renamed(made: Bundle, **names: str) -> Bundle:
    """The bundle with other names of its detectors."""
    manifest: dict[str, Any] = orjson.loads(orjson.dumps(dict(made.manifest.document)))
    for entry in manifest["detectors"]:
        entry["name"] = names.get(entry["name"], entry["name"])
    return bundle.seal(manifest, made.files)


def dumped(sensor: SensorEngine) -> bytes:
    """The state as it is written."""
    return checkpoint.dump(sensor.state())


def judged(sensor: SensorEngine, name: str = "scan") -> list[str]:
    """Detectors that label the flows of a behaviour."""
    flows = frame(behaviour(name)).select(flow.SCHEMA.keys())
    labels: list[str] = []
    for batch in sensor.step(flows):
        assert batch.scores.detector is not None
        labels += batch.scores.detector[batch.scores.over].tolist()
    return labels


def test_the_engine_fits_the_bundle() -> None:
    assert isinstance(open_engine(shipped.detector_bundle()), DetectorEngine)
    assert isinstance(open_engine(shipped.window_bundle()), WindowEngine)


def test_two_detectors_of_one_name_are_refused() -> None:
    entries = shipped.detector_bundle().manifest.detectors
    names = {entry.document["name"]: "same" for entry in entries}
    with pytest.raises(BundleError, match="same"):
        DetectorEngine(renamed(shipped.detector_bundle(), **names))


def test_memory_stays_when_the_bundle_changes_and_begins_anew_under_another_name() -> None:
    engine = DetectorEngine(shipped.detector_bundle())
    before = engine.sensor()
    assert set(judged(before)) == {"counters"}
    again = DetectorEngine(shipped.detector_bundle()).sensor(before)
    assert dumped(again) == dumped(before)
    other = DetectorEngine(renamed(shipped.detector_bundle(), counters="numbers")).sensor(before)
    assert isinstance(other, DetectorSensor)
    fresh = DetectorEngine(renamed(shipped.detector_bundle(), counters="numbers")).sensor()
    assert isinstance(fresh, DetectorSensor)
    states = [checkpoint.dump(made.memories["numbers"].state()) for made in (other, fresh)]
    assert states[0] == states[1]
    assert other.pairs == before.pairs


def test_a_state_is_taken_up_and_a_detector_it_does_not_know_begins_anew() -> None:
    before = DetectorEngine(shipped.detector_bundle()).sensor()
    judged(before, "brute_force")
    state = dumped(before)
    after = DetectorEngine(shipped.detector_bundle()).sensor()
    after.restore(checkpoint.load(state))
    assert dumped(after) == state
    assert (after.pairs, after.left_early, after.delayed) == (before.pairs, 0, 0)
    renamed_engine = DetectorEngine(renamed(shipped.detector_bundle(), counters="numbers"))
    other = renamed_engine.sensor()
    other.restore(checkpoint.load(state))
    assert other.pairs == before.pairs


def test_engines_refuse_each_others_states() -> None:
    windows = WindowEngine(shipped.window_bundle()).sensor()
    detectors = DetectorEngine(shipped.detector_bundle()).sensor()
    states = [checkpoint.load(dumped(sensor)) for sensor in (windows, detectors)]
    with pytest.raises(CheckpointError):
        windows.restore(states[1])
    with pytest.raises(CheckpointError):
        detectors.restore(states[0])


def test_an_engine_of_another_kind_begins_anew() -> None:
    windows = WindowEngine(shipped.window_bundle()).sensor()
    assert DetectorEngine(shipped.detector_bundle()).sensor(windows).pairs == 0
    detectors = DetectorEngine(shipped.detector_bundle()).sensor()
    judged(detectors)
    assert detectors.pairs
    assert WindowEngine(shipped.window_bundle()).sensor(detectors).pairs == 0


def test_a_pipeline_swaps_between_bundles_of_both_kinds_and_restores_what_fits() -> None:
    flows = frame(behaviour("scan")).select(flow.SCHEMA.keys())
    pipeline = Pipeline(shipped.detector_bundle())
    opened = pipeline.step(flows[:150])
    assert {document["ids_plugin"]["detector"] for document in opened} == {"counters"}
    saved = checkpoint.dump(pipeline.state([SENSOR]))
    pipeline.swap(shipped.window_bundle())
    pipeline.step(flows[150:])
    assert pipeline.ledger.total.scored == len(flows)
    other = Pipeline(shipped.window_bundle())
    assert other.restore(checkpoint.load(saved)) == [SENSOR]
    same = Pipeline(shipped.detector_bundle())
    assert same.restore(checkpoint.load(saved)) == []
    assert checkpoint.dump(same.state([SENSOR])) == saved
