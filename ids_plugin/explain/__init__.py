"""Explanation: windows + Scores → Evidence, for the flows that alert and no others.

Earlier flows are named by one of these methods:

- `attention`: the weights of the network over the steps of the window (Bahdanau et al. 2015;
  queries and keys as Vaswani et al. 2017). It is used only where taking out the flows with the most
  attention lowers the class's log-odds more than taking out others does: attention need not be the
  reason (Jain & Wallace 2019).
- `step_occlusion`: how far the log-odds fall without a flow.
- `no_single_flow`: no flow matters by itself.

Features are named by one of these:

- `tree_shap`: exact contributions in the trees (Lundberg et al. 2020).
- `occlusion`: how far a member's log-odds fall when one feature is set to its baseline (Zeiler &
  Fergus 2014).

A contribution is in log-odds of the class against benign; each member's counts with the weight
that the bundle's combination gives it.
"""

from __future__ import annotations

from ids_plugin.explain.explainer import Deletion, Explainer

__all__ = ["Deletion", "Explainer"]
