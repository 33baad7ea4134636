"""Windows: features → temporal windows, the same for a whole log and for a stream in batches of any
size.

A file here that defines `PLUGIN` adds features: a `Rolling` (sums and distinct counts over sliding
windows of event time, per host or pair) or a `Summary` (statistics over the steps of a window).
`_state.Windower` computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin import features, registry
from ids_plugin.schema.window import Feature, Floats, Spec

SECOND = 1_000_000
"""µs"""


class Measure(NamedTuple):
    """One number that every flow adds to the windows of its host or pair."""

    name: str
    unit: str
    text: str
    value: pl.Expr
    """int64 per flow, over the Flow columns and those of `features/`"""
    distinct: Literal["", "contact", "failed_contact", "failed_service"] = ""
    """count each thing once: originator and responder; the same of failed flows; with the port, of
    failed flows"""


class Reading(NamedTuple):
    """Whose sums become features: of the flow's originator or responder (`orig`, `resp`) or of its
    pair."""

    whose: Literal["orig", "resp", "pair"]
    measures: tuple[str, ...]
    horizons: tuple[int, ...]
    """seconds"""


@dataclass(frozen=True, eq=False)
class Rolling:
    """Sums per group, and which of them are read. Every flow counts for the host or pair that
    `side` names."""

    side: Literal["originator", "responder", "pair"]
    role: str
    """how feature names and sentences call it: `acts`, `acted_upon`, `pair`"""
    measures: tuple[Measure, ...]
    readings: tuple[Reading, ...]

    @property
    def horizons(self) -> tuple[int, ...]:
        """All horizons that are read, in seconds."""
        return tuple(sorted({horizon for reading in self.readings for horizon in reading.horizons}))

    @property
    def features(self) -> tuple[Feature, ...]:
        """In the order of `readings`."""
        by_name = {measure.name: measure for measure in self.measures}
        return tuple(
            Feature(
                f"{_prefix(reading.whose, self.role)}_{name}_{horizon}s",
                by_name[name].unit,
                f"{by_name[name].text} {_WHOSE[reading.whose, self.role]} in {_span(horizon)}",
            )
            for reading in self.readings
            for name in reading.measures
            for horizon in reading.horizons
        )


class Sequences(NamedTuple):
    """What a summary is computed from: the windows of m flows, latest first after the flow itself;
    NaN is padding."""

    start: npt.NDArray[np.float64]
    """(m, STEPS) seconds before the flow's own start, the flow itself (0) first"""
    features: dict[str, Floats]
    """feature name → (m, STEPS)"""


class Summary(NamedTuple):
    """Statistics over the steps of a window."""

    features: tuple[Feature, ...]
    compute: Callable[[Sequences], list[Floats]]
    """one (m) array per feature"""


_WHOSE = {
    ("orig", "acts"): "by the originator",
    ("resp", "acts"): "by the responder as an originator",
    ("orig", "acted_upon"): "towards the originator",
    ("resp", "acted_upon"): "towards the responder",
    ("pair", "pair"): "between the pair",
}


def _prefix(whose: str, role: str) -> str:
    return whose if whose == role else f"{whose}_{role}"


def _span(seconds: int) -> str:
    return {3600: "1 h", 600: "10 min", 60: "1 min"}.get(seconds, f"{seconds} s")


STEP = (
    Feature("interval", "log s", "time since the flow before it"),
    Feature("age", "log s", "how long before the flow it started"),
    Feature("reverse", "0/1", "its originator is the flow's responder"),
)


@cache
def rollings() -> tuple[Rolling, ...]:
    """The plugins that sum, in the order of their names."""
    return tuple(plugin for plugin in registry.load_all("windows") if isinstance(plugin, Rolling))


@cache
def summaries() -> tuple[Summary, ...]:
    """The plugins that summarise, in the order of their names."""
    return tuple(plugin for plugin in registry.load_all("windows") if isinstance(plugin, Summary))


@cache
def spec() -> Spec:
    """Names and order of everything in a window."""
    return Spec(
        flow=features.columns(),
        step=STEP,
        context=tuple(feature for plugin in rollings() for feature in plugin.features),
        summary=tuple(feature for plugin in summaries() for feature in plugin.features),
    )
