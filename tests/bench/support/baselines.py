"""Floors to hold a bundle against: rules that know little, judged by the same pipeline.

Their engines remember the flows of a sensor, score them by a rule and alert from THRESHOLD on.
Alerts are grouped and written as those of any bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin import features
from ids_plugin.bundle import Bundle
from ids_plugin.detectors.counters import CounterDetector
from ids_plugin.engines import Engine, JudgedBatch, SensorEngine
from ids_plugin.engines.detectors import DetectorEngine
from ids_plugin.engines.opening import open_engine
from ids_plugin.pipeline import Pipeline
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.windows.state import Windower

THRESHOLD = 0.5
LOOKUP_KEY = ("proto", "conn_state", "history")
CONTROL = CLASSES.index("command_and_control")
COUNTERS = "counters"
"""name and kind of the detector that counts"""
BEACON_FLOWS, BEACON_MEMORY_FLOWS = 20, 1_000
"""A contact is judged every so many flows, over at most so many of the last."""
BEACON_SCORE = 0.8
JITTER_S, SPREAD_BYTES, LARGE_BYTES = 30.0, 32.0, 65_535.0
"""Median absolute deviations at which nothing is left of regularity, and the size that is large"""
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rule = Callable[[pl.DataFrame], tuple[Doubles, Ints]]
"""(n) flows in known order → (n) score 0–1 and (n) class"""
NOTHING = Evidence(
    flows=(), features=(), method="none", faithfulness=0.0, behaviours={}, summary="a plain rule"
)


class EnginePipeline(Pipeline):
    """A pipeline with an engine of one's own choice."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._chosen = engine
        super().__init__(bundle)

    def swap(self, bundle: Bundle) -> None:
        """Takes the bundle's name alone."""
        super().swap(bundle)
        self._engine = self._chosen


class RuleEngine:
    """Judges every flow by a rule; `begin` gives the rule of a sensor, with memory of its own."""

    def __init__(self, begin: Callable[[], Rule]) -> None:
        self._begin = begin

    def sensor(self, before: SensorEngine | None = None) -> SensorEngine:
        """A sensor of which nothing is known."""
        return _RuleSensor(self._begin())


class _RuleSensor:
    """One sensor."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._windower = rule, Windower(rolling=False)
        self.left_early = 0

    @property
    def delayed(self) -> int:
        return self._windower.delayed

    @property
    def pairs(self) -> int:
        return self._windower.pairs

    def step(self, flows: pl.DataFrame) -> Iterator[JudgedBatch]:
        for windows in self._windower.step(features.add(flows)):
            score, label = self._rule(windows.flows)
            count = len(score)
            probability = np.zeros((count, len(CLASSES)))
            probability[np.arange(count), label] = score
            probability[:, 0] = 1 - score
            scores = Scores(
                score=score, label=label, probability=probability, models={},
                over=score >= THRESHOLD, threshold=np.full(count, THRESHOLD),
            )  # fmt: skip
            yield JudgedBatch(windows.flows, scores, lambda row: NOTHING, windows)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def tcp_is_malicious() -> RuleEngine:
    """Every TCP flow is remote control."""

    def rule(flows: pl.DataFrame) -> tuple[Doubles, Ints]:
        is_tcp = (flows["proto"] == "tcp").to_numpy()
        return is_tcp.astype(np.float64), np.full(len(flows), CONTROL, np.int64)

    return RuleEngine(lambda: rule)


def taught(flows: pl.DataFrame) -> pl.DataFrame:
    """Counts of flows by LOOKUP_KEY and `label`, of a labelled Flow frame."""
    return flows.group_by(*LOOKUP_KEY, "label").len()


def lookup(counts: pl.DataFrame) -> RuleEngine:
    """The share of malicious flows with the same key, and their most frequent class; flows whose
    key is new score 0.

    Args:
        counts: as `taught` gives them, of one set or of several.
    """
    summed = counts.group_by(*LOOKUP_KEY, "label").agg(pl.col("len").sum())
    is_bad = pl.col("label") != "benign"
    table = summed.sort("len", "label", descending=True).group_by(LOOKUP_KEY).agg(
        (pl.col("len").filter(is_bad).sum() / pl.col("len").sum()).alias("score"),
        pl.col("label").filter(is_bad).first().fill_null("other").alias("kind"),
    )  # fmt: skip

    def rule(flows: pl.DataFrame) -> tuple[Doubles, Ints]:
        joined = flows.select(LOOKUP_KEY).join(
            table, on=LOOKUP_KEY, how="left", nulls_equal=True, maintain_order="left"
        )
        kinds = joined["kind"].fill_null("other").to_list()
        label = np.array([CLASSES.index(kind) for kind in kinds], np.int64)
        return joined["score"].fill_null(0.0).to_numpy(), label

    return RuleEngine(lambda: rule)


def beacons() -> RuleEngine:
    """Like RITA's score of beacons: how regular the intervals and the sizes of a contact are."""
    return RuleEngine(_Beacons)


class _Beacons:
    """Contacts (originator, responder, port) of local hosts with outside ones."""

    def __init__(self) -> None:
        self._contacts: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
        self._counts: dict[tuple[str, str, int], int] = {}

    def __call__(self, flows: pl.DataFrame) -> tuple[Doubles, Ints]:
        score = np.zeros(len(flows))
        outbound = (flows["local_orig"] & ~flows["local_resp"]).fill_null(value=False)
        chosen = flows.select(
            "orig_h", "resp_h", pl.col("resp_p").fill_null(0),
            pl.col("ts").dt.epoch("us") / 1e6, pl.col("orig_bytes").fill_null(0).cast(pl.Float64),
        ).with_row_index("row").filter(outbound)  # fmt: skip
        for row, host, peer, port, second, sent in chosen.iter_rows():
            contact = (host, peer, port)
            seen = self._contacts.setdefault(contact, [])
            seen.append((second, sent))
            del seen[:-BEACON_MEMORY_FLOWS]
            self._counts[contact] = self._counts.get(contact, 0) + 1
            if self._counts[contact] % BEACON_FLOWS == 0:
                beacon = beacon_score(np.array(seen))
                score[row] = beacon if beacon >= BEACON_SCORE else 0.0
        return score, np.full(len(flows), CONTROL, np.int64)


def beacon_score(contact: Doubles) -> float:
    """0–1; `contact`: (n, 2) seconds and bytes sent, n ≥ 3."""
    seconds, sent = np.sort(contact[:, 0]), contact[:, 1]
    gaps = np.diff(seconds)
    density = min(1.0, len(gaps) / max(1.0, (seconds[-1] - seconds[0]) / 10))
    of_time = (_symmetry(gaps) + _steadiness(gaps, JITTER_S) + density) / 3
    smallness = max(0.0, 1 - float(np.median(sent)) / LARGE_BYTES)
    of_size = (_symmetry(sent) + _steadiness(sent, SPREAD_BYTES) + smallness) / 3
    return float(of_time + of_size) / 2


def _symmetry(values: Doubles) -> float:
    """1 less Bowley's skewness."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return 1.0 if high == low else float(1 - abs(high + low - 2 * middle) / (high - low))


def _steadiness(values: Doubles, worst: float) -> float:
    """1 less the median absolute deviation, in units of `worst`."""
    deviation = float(np.median(np.abs(values - np.median(values))))
    return max(0.0, 1 - deviation / worst)


def counters_alone(bundle: Bundle, factor: float = 1.0) -> DetectorEngine:
    """The bundle's counters without its other detectors, all thresholds times a factor."""
    engine = open_engine(bundle)
    if not isinstance(engine, DetectorEngine):
        raise TypeError("a bundle without detectors has no counters")
    counters = engine.detectors[COUNTERS]
    if not isinstance(counters, CounterDetector):
        raise TypeError(f"{COUNTERS} are of another kind")
    scaled = tuple(
        replace(
            detector,
            rules=tuple(
                rule._replace(threshold=max(2.0, factor * rule.threshold))
                for rule in detector.rules
            ),
        )
        for detector in counters.detectors
    )
    thresholds, baselines = counters.thresholds, counters.baselines
    engine.detectors = {COUNTERS: CounterDetector(counters.name, scaled, thresholds, baselines)}
    return engine
