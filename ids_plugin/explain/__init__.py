"""Explanation: windows + Scores → Evidence, for the flows that alert and no others.

Earlier flows: `attention`, the weights of the network over the steps of the window (Bahdanau et al. 2015; queries, keys
as Vaswani et al. 2017), but only where taking out the flows it looked at most lowers the class's log-odds more than
others do (attention need not be the reason: Jain & Wallace 2019); `step_occlusion` otherwise, how far the log-odds
fall without a flow; `no_single_flow` where no flow matters by itself. Features: `tree_shap`, exact contributions in the
trees (Lundberg et al. 2020); `occlusion`, how far a member's log-odds fall when one feature is set to what is expected
(Zeiler & Fergus 2014). A contribution is in log-odds of the class against benign, each member's weighted as the bundle
combines them.
"""

from __future__ import annotations

from ids_plugin.explain.explainer import Deletion, Explainer

__all__ = ["Deletion", "Explainer"]
