"""Retraining from the network as it was trained: its doubts say more than labels do (Hinton,
Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015)."""

from __future__ import annotations

import copy

from ids_plugin.compression import NetworkInProgress, StepContext
from ids_plugin.compression.retrain import exported, needed, retrain
from ids_plugin.errors import UsageError

TEMPERATURE = 2.0


class Distil:
    """Step `distil`."""

    name = "distil"
    value = f"temperature (default: {TEMPERATURE:g})"

    def apply(
        self, work: NetworkInProgress, material: StepContext, value: float | None
    ) -> NetworkInProgress:
        """As compress.Step."""
        temperature = TEMPERATURE if value is None else value
        if temperature <= 0:
            raise UsageError(f"distil={temperature:g}: a temperature is above 0")
        module = copy.deepcopy(needed(work, self.name))
        retrain(module, material, temperature=temperature)
        return exported(module, material)


PLUGIN = Distil()
