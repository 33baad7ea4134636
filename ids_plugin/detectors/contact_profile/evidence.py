"""Why a contact looks like remote control: what repeats, since when, how large, and what was said
in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.detectors import Doubles, Ints
from ids_plugin.detectors.contact_profile.model import COLUMNS, NAMES, ContactModel
from ids_plugin.detectors.contact_profile.profiles import Profiles
from ids_plugin.explain.wording import amount
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
from ids_plugin.windows.contacts import (
    DURATION_UNIT_S,
    GAP_UNIT_S,
    PADDING,
    SIZE_UNIT_B,
    WINDOW_FLOWS,
    without_flows,
)
from ids_plugin.windows.state import BatchWindows

Baselines = Mapping[str, Sequence[float]]
"""column → 5th, 50th and 95th percentile of benign contacts, in the column's own unit"""
MOST_FEATURES = 6
DELETED_FLOWS = 3
"""that the deletion test of the attention takes away"""
_PLAIN_UNITS = {"log s": "s", "log B": "B", "log 1/h": "1/h", "log": ""}
_QUANTISED_UNITS = {
    "gap_median": GAP_UNIT_S,
    "burst_median": GAP_UNIT_S,
    "up_median": SIZE_UNIT_B,
    "down_median": SIZE_UNIT_B,
    "duration_median": DURATION_UNIT_S,
    "uri_length": SIZE_UNIT_B,
}
"""columns that are read off quantised bytes: ln(1 + x / unit)"""
_COLUMN = {name: index for index, name in enumerate(NAMES)}


class ContactEvidence:
    """Evidence of the findings of one batch."""

    def __init__(
        self,
        model: ContactModel,
        windows: BatchWindows,
        flows: pl.DataFrame,
        profiles: Profiles,
        score: Doubles,
        days: Doubles,
        baselines: Baselines,
    ) -> None:
        """
        Args:
            flows: (n) of the batch, with the fact columns.
            profiles: (m) of the findings.
            score: (m) before calibration.
            days: (m) of benign traffic in which such a score comes once.
        """
        self._model, self._windows, self._flows = model, windows, flows
        self._profiles, self._score = profiles, score
        self._days, self._baselines = days, baselines

    def __call__(self, position: int) -> Evidence:
        profile = self._profiles.take(np.array([position]))
        row = int(profile.rows[0])
        values = profile.features
        contributions = self._model.contributions(values)[0]
        named = self._named(values[0], contributions)
        weights = flow_weights(self._model, profile, float(self._score[position]))
        method = "tree_shap+logistic"
        return Evidence(
            flows=self._earlier(row, weights),
            features=(
                self._rarity(position),
                *(
                    _feature(
                        index, float(values[0, index]), self._usual(index), contributions[index]
                    )
                    for index in named
                ),
            ),
            method=method if weights is None else f"{method}+attention",
            faithfulness=self._faithfulness(position, profile, named),
            behaviours={},
            summary=self._sentence(row, values[0], position, bool(named)),
        )

    def _rarity(self, position: int) -> EvidenceFeature:
        """How rare the whole profile is: what the decision rests on."""
        days = round(float(self._days[position]), 1)
        label = "days of benign traffic between two contacts with such a profile"
        return EvidenceFeature(
            name="days_between",
            value=days,
            expected=None,
            contribution=round(float(self._score[position]), 6),
            text=f"{label}: {amount(days, '')}",
            label=label,
            unit="days",
            value_text=amount(days, ""),
            expected_text=None,
        )

    def _named(
        self, values: npt.NDArray[np.float32], contributions: npt.NDArray[np.float64]
    ) -> list[int]:
        """Columns that speak most for control and lie outside of what benign contacts show."""
        order = np.argsort(-contributions)
        named = [
            int(index)
            for index in order
            if contributions[index] > 0
            and not math.isnan(values[index])
            and not self._is_normal(int(index), float(values[index]))
        ]
        return named[:MOST_FEATURES]

    def _is_normal(self, index: int, value: float) -> bool:
        percentiles = self._baselines.get(NAMES[index])
        return percentiles is not None and percentiles[0] <= value <= percentiles[2]

    def _usual(self, index: int) -> float | None:
        percentiles = self._baselines.get(NAMES[index])
        return None if percentiles is None else float(percentiles[1])

    def _faithfulness(self, position: int, profile: Profiles, named: list[int]) -> float:
        """How far the score falls when the named columns are unknown."""
        without = profile.features.copy()
        without[:, named] = np.nan
        left = self._model.score(profile._replace(features=without))[0]
        return max(0.0, float(self._score[position] - left))

    def _earlier(self, row: int, weights: Doubles | None) -> tuple[EvidenceFlow, ...]:
        """The flow and those of its contact before it that the window still shows."""
        flow = self._windows.flow(row)
        earlier = [
            before
            for before in self._windows.earlier(row)
            if not before.reverse and before.resp_p == flow.resp_p and before.proto == flow.proto
        ]
        flows = [*earlier, flow][-WINDOW_FLOWS:]
        shares = np.ones(len(flows)) if weights is None else weights[-len(flows) :]
        return tuple(
            EvidenceFlow(step, len(flows) - 1 - index, float(shares[index] / shares.sum()))
            for index, step in enumerate(flows)
        )

    def _sentence(
        self, row: int, values: npt.NDArray[np.float32], position: int, has_reasons: bool
    ) -> str:
        flow = self._windows.flow(row)
        natural = {name: _natural(index, values[index]) for name, index in _COLUMN.items()}
        count, span = natural["flows"], natural["span"]
        parts = [
            f"{flow.orig_h} contacted {flow.resp_h} port {flow.resp_p}/{flow.proto}"
            f" {count:,.0f} times in {amount(span, 's')}"
        ]
        if (gap := natural["gap_median"]) is not None:
            parts.append(f"a flow every {amount(gap, 's')} in the median")
        up, down = natural["up_median"], natural["down_median"]
        if up is not None and down is not None:
            parts.append(f"sending {amount(up, 'B')} and receiving {amount(down, 'B')}")
        if (no_reply := natural["no_reply"]) is not None and no_reply >= 0.5:
            parts.append(f"{amount(no_reply, '0-1')} of them never answered")
        parts += self._said(row, natural)
        days = amount(round(float(self._days[position]), 1), "")
        rarity = f"Benign traffic shows such a contact once in {days} days"
        if not has_reasons:
            rarity += (
                "; no single number lies outside of what benign contacts show, together they do"
            )
        return f"{', '.join(parts)}. {rarity}."

    def _said(self, row: int, natural: Mapping[str, float | None]) -> list[str]:
        """What names, certificates and requests say."""
        facts = self._flows.row(row, named=True)
        facts_said = []
        if facts.get("tls_server_name"):
            facts_said.append(f"TLS to {facts['tls_server_name']}")
        elif natural["tls_no_name"]:
            facts_said.append("TLS without a server name")
        if natural["tls_self_signed"]:
            facts_said.append("a certificate that signs itself")
        if facts.get("http_host"):
            facts_said.append(f"HTTP {facts.get('http_method') or ''} to {facts['http_host']}")
        if facts.get("resp_name"):
            facts_said.append(f"under the name {facts['resp_name']}")
        elif natural["looked_up"] == 0:
            facts_said.append("without ever looking up a name for it, as the host does for others")
        return facts_said


def flow_weights(model: ContactModel, profile: Profiles, score: float) -> Doubles | None:
    """(WINDOW_FLOWS) the network's attention to the flows of one contact, where it is a reason.

    The deletion test: without the flows that have the most attention the score falls further than
    without as many that have the least. None where it doesn't, or where there is no network.
    """
    attention = model.attention(profile)
    flows = min(int(profile.flows[0]), WINDOW_FLOWS)
    deleted = min(DELETED_FLOWS, flows // 2)
    if attention is None or deleted == 0:
        return None
    weights = attention[0]
    order = np.argsort(-weights[-flows:], kind="stable") + WINDOW_FLOWS - flows
    without_most = _score_without(model, profile, order[:deleted])
    without_least = _score_without(model, profile, order[-deleted:])
    return weights if without_most < min(without_least, score) else None


def _score_without(model: ContactModel, profile: Profiles, positions: Ints) -> float:
    """The score of a contact's window without the tokens at some positions."""
    left = np.delete(profile.tokens, positions, axis=1)
    padding = np.full((1, WINDOW_FLOWS - left.shape[1]), PADDING, np.uint64)
    tokens = np.concatenate([padding, left], axis=1)
    left_flows = np.minimum(profile.flows, WINDOW_FLOWS) - len(positions)
    changed = profile._replace(
        tokens=tokens, flows=left_flows, features=without_flows(profile.features, tokens)
    )
    return float(model.score(changed)[0])


def _natural(index: int, value: float) -> float | None:
    """A column's value off its log scale; None where it is unknown."""
    if math.isnan(value):
        return None
    if COLUMNS[index][1] not in _PLAIN_UNITS:
        return float(value)
    return math.expm1(value) * _QUANTISED_UNITS.get(NAMES[index], 1.0)


def _feature(
    index: int, value: float, expected: float | None, contribution: float
) -> EvidenceFeature:
    name, unit, label = COLUMNS[index]
    plain_unit = _PLAIN_UNITS.get(unit, unit)
    plain = _natural(index, value)
    usual = None if expected is None else _natural(index, expected)
    value_text = amount(plain, plain_unit)
    expected_text = None if usual is None else amount(usual, plain_unit)
    beside = "" if expected_text is None else f", usually {expected_text}"
    return EvidenceFeature(
        name=name,
        value=None if plain is None else round(plain, 6),
        expected=None if usual is None else round(usual, 6),
        contribution=round(float(contribution), 6),
        text=f"{label}: {value_text}{beside}",
        label=label,
        unit=plain_unit,
        value_text=value_text,
        expected_text=expected_text,
    )
