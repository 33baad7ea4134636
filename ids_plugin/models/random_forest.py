"""Random forest over the table of a window, a baseline: 200 trees."""

from __future__ import annotations

from ids_plugin.schema.window import Spec

Parameters = dict[str, object]


class RandomForestFamily:
    """scikit-learn's, grown to a bounded number of leaves so that it can ship; served through
    ONNX."""

    name = "random_forest"
    kind = "forest"
    paper = "Breiman, Random Forests, Machine Learning 2001"

    def build(self, spec: Spec, classes: int, *, trees: int = 200, leaves: int = 256) -> Parameters:
        """Parameters of `sklearn.ensemble.RandomForestClassifier`."""
        return {
            "n_estimators": trees,
            "max_leaf_nodes": leaves,
            "max_features": "sqrt",
            "max_samples": 0.5,
        }


PLUGIN = RandomForestFamily()
