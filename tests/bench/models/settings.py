"""What a run of the bench is told: how much is trained on what."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ids_plugin.training.examples import Sampling
from ids_plugin.training.options import Fit, Options

NETWORKS = ("anomaly_net", "cnn", "lstm", "l_tcn", "cnn_lstm")
LEARNERS = ("lightgbm", "random_forest", "svm_rbf", *NETWORKS, "ae_lstm")
RULES = ("lookup", "tcp_is_malicious", "behaviour")
"""rules that know nothing, or that a person wrote: the same for every seed"""
FAMILIES = (*RULES, *LEARNERS)
SLOW = ("cnn_lstm",)


@dataclass(frozen=True)
class Settings:
    """Sizes of everything; a figure depends on them, so they are part of its key."""

    epochs: int = 5
    windows: int = 20_000
    """that a network sees in an epoch"""
    slow_windows: int = 8_000
    """the same of the largest network"""
    rounds: int = 40
    """trees a class of LightGBM"""
    networks: int = 160
    """simulated networks to train on"""
    held_out: int = 20
    """simulated networks that stop the training early, and as many that calibrate"""
    stop: int = 10_000
    """windows, at most, that stop the training early"""
    false_per_day: float = 3.0
    """alerts without an attack a day that the thresholds may cause on the calibration networks"""
    sampling: Sampling = field(
        default_factory=lambda: Sampling(attack=60, benign=250, look_alike=30)
    )
    records: int = 20_000
    """of a table of ready-made features that a network sees in an epoch"""

    def options(self, family: str, seed: int, *, records: bool = False) -> Options:
        """Of one training run."""
        windows = self.records if records else self.windows
        windows = min(windows, self.slow_windows) if family in SLOW else windows
        fit = Fit(epochs=self.epochs, windows=windows, threads=1)
        return Options(
            data=(),
            family=family,
            beside=(),
            seed=seed,
            rounds=self.rounds,
            sampling=self.sampling,
            fit=fit,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


QUICK = Settings(
    epochs=1, windows=2_000, slow_windows=512, rounds=5, networks=4, held_out=3, stop=1_000, records=1_000,
    sampling=Sampling(attack=30, benign=60, look_alike=10),
)  # fmt: skip
"""only to see that everything runs"""
