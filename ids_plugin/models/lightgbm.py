"""Gradient-boosted trees over the table of a window: flow, context and summary features."""

from __future__ import annotations

from ids_plugin.schema.window import Spec

Parameters = dict[str, object]


class LightGBMFamily:
    """LightGBM, small enough to ship: a few dozen trees a class, few leaves, strong
    regularisation."""

    name = "lightgbm"
    kind = "lightgbm"
    paper = "Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree, NeurIPS 2017"

    def build(
        self, spec: Spec, classes: int, *, leaves: int = 12, rate: float = 0.15
    ) -> Parameters:
        """Parameters of the learner; deterministic on any number of cores."""
        return {
            "objective": "multiclass",
            "num_class": classes,
            "num_leaves": leaves,
            "learning_rate": rate,
            "min_data_in_leaf": 40,
            "min_sum_hessian_in_leaf": 5.0,
            "lambda_l2": 5.0,
            "feature_fraction": 0.4,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "max_bin": 63,
            "verbosity": -1,
            "deterministic": True,
            "force_row_wise": True,
        }


PLUGIN = LightGBMFamily()
