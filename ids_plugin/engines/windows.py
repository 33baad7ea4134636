"""Members that vote on the window of every flow: a network, trees, named behaviours, behind a
prefilter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ids_plugin import features
from ids_plugin.bundle import Bundle
from ids_plugin.engines import JudgedBatch, SensorEngine
from ids_plugin.explain import Explainer
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import Scores
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.windows import spec
from ids_plugin.windows.state import BatchWindows, Limits, Windower


class WindowEngine:
    """A bundle whose members score windows."""

    def __init__(
        self, bundle: Bundle, *, cascade: bool = True, limits: Limits | None = None
    ) -> None:
        """
        Raises:
            BundleError: the bundle doesn't load, or was made for other windows.
        """
        bundle.require(spec())
        self.scorer = Scorer(bundle, cascade=cascade)
        self.scorer.try_out(spec())
        self.explainer = Explainer(self.scorer, spec(), bundle.baseline)
        self.limits = limits

    def sensor(self, before: SensorEngine | None = None) -> SensorEngine:
        """The state of a sensor; windows stay when the bundle changes."""
        windower = before.windower if isinstance(before, WindowSensor) else Windower(self.limits)
        return WindowSensor(self, windower)


class WindowedSensor:
    """What every engine remembers of a sensor: the windower, which knows the sensor's clock and its
    pairs."""

    windower: Windower

    @property
    def delayed(self) -> int:
        """Flows that came behind the clock."""
        return self.windower.delayed

    @property
    def left_early(self) -> int:
        """Flows that left the windows' memory before their time because a limit was reached."""
        return self.windower.left_early

    @property
    def pairs(self) -> int:
        """Pairs of hosts whose windows are kept."""
        return self.windower.pairs


class WindowSensor(WindowedSensor):
    """One sensor's windows, and the engine that judges them."""

    def __init__(self, engine: WindowEngine, windower: Windower) -> None:
        self._engine = engine
        self.windower = windower

    def step(self, flows: pl.DataFrame) -> Iterator[JudgedBatch]:
        """The windows of a batch, scored."""
        for windows in self.windower.step(features.add(flows)):
            scores = self._engine.scorer.score(windows)
            explain = self._explanation(windows, scores)
            yield JudgedBatch(windows.flows, scores, explain, windows)

    def _explanation(self, windows: BatchWindows, scores: Scores) -> _Explanation:
        return _Explanation(self._engine.explainer, windows, scores)

    def state(self) -> dict[str, Any]:
        """The windower's."""
        return self.windower.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the windower's state.

        Raises:
            CheckpointError: another version made it.
        """
        self.windower.restore(state)


class _Explanation:
    """Evidence of the rows of one batch."""

    def __init__(self, explainer: Explainer, windows: BatchWindows, scores: Scores) -> None:
        self._explainer, self._windows, self._scores = explainer, windows, scores

    def __call__(self, row: int) -> Evidence:
        return self._explainer.explain(self._windows, row, int(self._scores.label[row]))
