"""Evidence: why a flow scored as it did. Data, kept with the alert, rendered later."""

from __future__ import annotations

from dataclasses import dataclass

from ids_plugin.schema.window import EarlierFlow


@dataclass(frozen=True)
class EvidenceFlow:
    """A flow the decision looked at; weights of one evidence sum to 1."""

    flow: EarlierFlow
    lag: int
    """0 is the flow itself, 1 the one before it, ..."""
    weight: float


@dataclass(frozen=True)
class EvidenceFeature:
    """What about the flows was unusual; the numbers are in natural units, not on a log scale."""

    name: str
    value: float | None
    """of this flow; None where it is unknown"""
    expected: float | None
    """the baseline: of normal traffic; None where it is unknown"""
    contribution: float
    """to the log-odds of the class"""
    text: str
    """label, value and baseline in one phrase"""
    label: str
    """what the feature measures, in words"""
    unit: str
    """of `value` and `expected`: `B`, `s`, `flows`, `0/1` (no or yes), `0-1` (a share), …"""
    value_text: str
    """`value` with its unit, as a person reads it: `1.2 MB`"""
    expected_text: str | None
    """`expected` likewise; None where it is unknown"""


@dataclass(frozen=True)
class Evidence:
    """Flows and features behind one alert."""

    flows: tuple[EvidenceFlow, ...]
    features: tuple[EvidenceFeature, ...]
    method: str
    """how flows and features were found, see explain: `attention`, `step_occlusion`, `tree_shap`,
    …, joined with +"""
    faithfulness: float
    """how far the score falls when the named evidence is taken away, 0–1"""
    behaviours: dict[str, float]
    """named behaviours of the acting host, each 0–1"""
    summary: str
    """one sentence: what, who, how often, compared with what"""
