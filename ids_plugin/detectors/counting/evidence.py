"""Why a counter alerts: the rule, the number, how far it looks back, and what normal traffic
shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.detectors.counting.catalogue import CONN_COUNTERS
from ids_plugin.detectors.counting.rules import Detector, Ratio, Rule
from ids_plugin.explain.wording import amount
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
from ids_plugin.schema.window import EarlierFlow
from ids_plugin.windows.named_counters import Counter
from ids_plugin.windows.state import BatchWindows

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Baselines = Mapping[str, Sequence[float]]
"""counter over a horizon → 5th, 50th, 95th and 99.9th percentile of benign flows that count, and
the maximum"""
PERCENTILE_95 = 2
SHOWN_FLOWS = 10
MOST_FEATURES = 4
_COUNTERS: dict[str, tuple[Counter, int]] = {
    counter.column(horizon): (counter, horizon)
    for counter in CONN_COUNTERS
    for horizon in counter.horizons
}
_SPANS = {10: "10 s", 60: "1 min", 600: "10 min", 3_600: "1 h", 86_400: "24 h"}
_BYTES = frozenset({"up", "down", "resp_ip"})


class Shown(NamedTuple):
    """The rule that a flow is shown under."""

    detector: Detector
    rule: Rule


class CounterEvidence:
    """Evidence of the findings of one batch."""

    def __init__(
        self,
        windows: BatchWindows,
        table: Mapping[str, npt.NDArray[Any]],
        rows: Ints,
        shown: Sequence[Shown],
        is_target: Bools,
        baselines: Baselines,
    ) -> None:
        self._windows, self._table, self._rows = windows, table, rows
        self._shown, self._is_target, self._baselines = shown, is_target, baselines

    def __call__(self, position: int) -> Evidence:
        row = int(self._rows[position])
        shown = self._shown[position]
        flow = self._windows.flow(row)
        features = self._features(row, shown)
        value = float(self._table[shown.rule.column][row])
        return Evidence(
            flows=self._flows(row, shown.rule),
            features=features,
            method="rule",
            faithfulness=_score(value, shown.rule),
            behaviours={},
            summary=self._sentence(flow, shown, value, bool(self._is_target[position])),
        )

    def _features(self, row: int, shown: Shown) -> tuple[EvidenceFeature, ...]:
        """The rule's counter and ratio; then the class's other counters that are above what normal
        traffic shows.

        Without the rule's number there would be no alert, so its contribution is the score; the
        others stand beside it."""
        rule = shown.rule
        value = float(self._table[rule.column][row])
        features = [_feature(rule.column, value, self._unusual(rule.column, value))]
        features[0] = replace(features[0], contribution=round(_score(value, rule), 6))
        if rule.ratio is not None:
            features.append(self._ratio(row, rule.ratio))
        named = {_COUNTERS[rule.column][0].name} if rule.column in _COUNTERS else {rule.column}
        for column in dict.fromkeys(other.column for other in shown.detector.rules):
            number = float(self._table[column][row])
            expected = self._unusual(column, number)
            name = _COUNTERS[column][0].name if column in _COUNTERS else column
            if name not in named and expected is not None:
                named.add(name)
                features.append(_feature(column, number, expected))
        return tuple(features[:MOST_FEATURES])

    def _ratio(self, row: int, ratio: Ratio) -> EvidenceFeature:
        value = float(self._table[ratio.of][row]) / max(float(self._table[ratio.to][row]), 1.0)
        text = amount(round(value, 1), ratio.unit)
        return EvidenceFeature(
            name=f"{ratio.of}/{ratio.to}",
            value=round(value, 3),
            expected=None,
            contribution=0.0,
            text=f"{ratio.text}: {text}",
            label=ratio.text,
            unit=ratio.unit,
            value_text=text,
            expected_text=None,
        )

    def _unusual(self, column: str, value: float) -> float | None:
        """The 95th percentile of normal traffic, where the value is above it."""
        expected = self._usual(column)
        return expected if expected is not None and value > expected else None

    def _usual(self, column: str) -> float | None:
        """The 95th percentile of benign flows that count."""
        numbers = self._baselines.get(column)
        return None if numbers is None else numbers[PERCENTILE_95]

    def _flows(self, row: int, rule: Rule) -> tuple[EvidenceFlow, ...]:
        """The flow itself and the earlier ones of its pair, or of its host where the pair has
        none."""
        earlier = self._windows.earlier(row)[-SHOWN_FLOWS:]
        counter = _COUNTERS.get(rule.column)
        is_of_pair = counter is None or "resp" in counter[0].key or "pair" in counter[0].key
        if not is_of_pair or not earlier:
            earlier = self._windows.host_flows(row, SHOWN_FLOWS) or earlier
        flows = [*earlier, self._windows.flow(row)]
        weight = 1 / len(flows)
        return tuple(
            EvidenceFlow(flow, len(flows) - 1 - index, weight) for index, flow in enumerate(flows)
        )

    def _sentence(self, flow: EarlierFlow, shown: Shown, value: float, is_target: bool) -> str:
        subject = flow.resp_h if is_target else flow.orig_h
        column = shown.rule.column
        what, span = _words(column)
        number = amount(value, _unit(column))
        port = "" if flow.resp_p is None else f" port {flow.resp_p}/{flow.proto}"
        last = f"the last one from {flow.orig_h} to {flow.resp_h}{port}"
        usual = self._unusual(column, value)
        beside = (
            f"; the rule alerts from {amount(shown.rule.threshold, _unit(column))} on"
            if usual is None
            else "; 95 % of such flows in normal traffic show at most "
            f"{amount(usual, _unit(column))}"
        )
        return f"{subject}: {number} {what.removeprefix('bytes ')}{span}, {last}{beside}."


def _score(value: float, rule: Rule) -> float:
    """What `detectors.counters` makes of a number."""
    return 1 - rule.threshold / (2 * value)


def _feature(column: str, value: float, expected: float | None) -> EvidenceFeature:
    unit = _unit(column)
    what, span = _words(column)
    value_text = amount(value, unit)
    expected_text = None if expected is None else amount(expected, unit)
    beside = "" if expected_text is None else f", normally at most {expected_text}"
    return EvidenceFeature(
        name=column,
        value=value,
        expected=expected,
        contribution=0.0,
        text=f"{value_text} {what.removeprefix('bytes ')}{span}{beside}",
        label=f"{what}{span}",
        unit=unit or "flows",
        value_text=value_text,
        expected_text=expected_text,
    )


def _words(column: str) -> tuple[str, str]:
    """What a column counts, and over how long; texts leave out "bytes" after a number of bytes."""
    if column not in _COUNTERS:
        return "packets in one flow that nobody answered", ""
    counter, horizon = _COUNTERS[column]
    return counter.text, f" in {_SPANS[horizon]}"


def _unit(column: str) -> str:
    counter = _COUNTERS.get(column)
    return "B" if counter is not None and counter[0].value in _BYTES else ""
