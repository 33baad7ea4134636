"""Scoring: bundle + windows → Scores. ONNX Runtime and LightGBM's C library, never torch.

A bundle's members each give class probabilities, and the scorer combines them. A kind of member is
one file with a `Plugin`, named by an entry point of the group `ids_plugin.members`; the manifest's
`members[].kind` is the name of that entry point. Scorer and explainer know no kind or name of a
member. What a member can do beyond probabilities, it shows by having the methods:

| protocol | method | what the explainer does with it |
|---|---|---|
| `ContributingMember` | `contributions` | takes them; others are occluded by feature |
| `AttentiveMember` | `attention` | tests it, and shows it where it proves true |
| `BehaviouralMember` | `behaviours` | lists the behaviours that show beside the evidence |
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle, MemberEntry
from ids_plugin.schema.window import Bools, Floats

Doubles = npt.NDArray[np.float64]


class Member(Protocol):
    """Window arrays → class probabilities. A row depends on its own window alone, to the last
    bit."""

    def probabilities(self, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        """(m, len(CLASSES)) float64, 0 for classes that the member doesn't know.

        Args:
            steps: (m, STEPS, F) float32, the flows of the pair; NaN where a value is unknown.
            mask: (m, STEPS) whether there is a flow at the step.
            table: (m, T) float32, the table's features; NaN where a value is unknown.

        Raises:
            BundleError: the model can't compute on such windows.
        """
        ...


@runtime_checkable
class ContributingMember(Member, Protocol):
    """A member that can say what each feature of the table contributed to its decision."""

    contribution_method: str
    """what `ids_plugin.evidence.method` calls it, such as `tree_shap`"""

    def contributions(self, table: Floats, label: int) -> Doubles:
        """(m, T + 1) float64: what each of the table's features adds to the member's log-odds of
        class `label` (index into CLASSES), up to a term that all classes share; the last column is
        the value without any feature. Zeros for a class that the member doesn't know."""
        ...


@runtime_checkable
class AttentiveMember(Member, Protocol):
    """A member that weighs the steps of a window."""

    def attention(self, steps: Floats, mask: Bools, table: Floats) -> Doubles | None:
        """(m, STEPS) float64: weight of each step in the decision, 0 where masked, rows sum to 1;
        None where this model has none after all. Arguments as `probabilities`."""
        ...


@runtime_checkable
class BehaviouralMember(Member, Protocol):
    """A member that recognises named behaviours."""

    def behaviours(self, table: Floats) -> dict[str, Doubles]:
        """Name of a behaviour → (m) float64, how strongly each row shows it, 0 to 1."""
        ...


class Plugin(Protocol):
    """A kind of member."""

    name: str

    def open(self, bundle: Bundle, entry: MemberEntry) -> Member:
        """The member that `entry` of the manifest's `members` describes.

        Raises:
            BundleError: its file doesn't load.
        """
        ...
