"""Retraining on labels alone: what `distil` is to be compared with."""

from __future__ import annotations

import copy

from ids_plugin.compression import Material, Work
from ids_plugin.compression.retrain import exported, needed, retrain


class Tune:
    """Step `tune`."""

    name = "tune"
    value = "epochs (default: --epochs)"

    def apply(self, work: Work, material: Material, value: float | None) -> Work:
        """As compress.Step."""
        module = copy.deepcopy(needed(work, self.name))
        retrain(module, material, epochs=None if value is None else max(1, int(value)))
        return exported(module, material)


PLUGIN = Tune()
