"""Retraining on labels alone: what `distil` is to be compared with."""

from __future__ import annotations

import copy

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.compression.retrain import exported, needed, retrain


class Tune:
    """Step `tune`."""

    name = "tune"
    value = "epochs (default: --epochs)"

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """As compress.Step."""
        module = copy.deepcopy(needed(work, self.name))
        retrain(module, material, epochs=None if value is None else max(1, int(value)))
        return exported(module, material)


PLUGIN = Tune()
