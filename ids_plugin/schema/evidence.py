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
    """What about the flows was unusual."""

    name: str
    value: float | None
    expected: float | None
    contribution: float
    text: str


@dataclass(frozen=True)
class Evidence:
    """Flows and features behind one alert."""

    flows: tuple[EvidenceFlow, ...]
    features: tuple[EvidenceFeature, ...]
    method: str
    """how flows and features were found, see explain: `attention`, `step_occlusion`, `tree_shap`, …, joined with +"""
    faithfulness: float
    """how far the score falls when the named evidence is taken away, 0–1"""
    behaviours: dict[str, float]
    """named behaviours of the acting host, each 0–1"""
    summary: str
    """one sentence: what, who, how often, compared with what"""
