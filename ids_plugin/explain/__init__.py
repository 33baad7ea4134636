"""Explanation: windows + Scores → Evidence, for the flows that alert and no others.

Three methods, each named in the evidence: `attention`, the network's own weights over the steps of the window (Bahdanau
et al. 2015; query/key/value as Vaswani et al. 2017); `tree_shap`, exact contributions in the trees (Lundberg et al.
2020); `occlusion`, how far a member's log-odds fall when one feature is set to what is expected (Zeiler & Fergus 2014).
A contribution is in log-odds of the class against benign, each member's weighted as the bundle combines them.
"""

from __future__ import annotations

from ids_plugin.explain._explainer import Explainer

__all__ = ["Explainer"]
