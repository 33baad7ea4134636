"""Fits AE-LSTM on benign windows alone; labelled ones only choose α, β and what an error is worth
as a probability."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ids_plugin.models import NormalFamily
from ids_plugin.models.ae_lstm import AeLstm
from ids_plugin.schema.score import CLASSES
from ids_plugin.training import TrainedMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.options import Fit, Options, Progress
from ids_plugin.training.torch_network import FittedNetwork, onnx_member, scaling, tensors

Doubles = npt.NDArray[np.float64]
Training = Literal["together", "separate", "autoencoder"]
Errors = Literal["whitened", "plain"]
Scaling = Literal["standard", "min-max"]
_SHARES = np.linspace(0, 1, 11)
"""β; α is 1 - β, both errors in units of their mean on benign windows"""
_CLASSES = (0, CLASSES.index("other"))
_RIDGE = 1e-3
"""added to the residuals' variances: what normal traffic never misses by must not count for ever"""
_NORMAL = 20_000
"""windows that say how residuals of normal traffic vary together, or which bounds values have"""


class Scored(nn.Module):
    """A(t) = α · reconstruction error + β · prediction error, and how likely that is no benign
    flow."""

    def __init__(self, module: AeLstm, units: tuple[float, float], beta: float) -> None:
        super().__init__()
        self.module = module
        self.units, self.beta = units, beta
        self.slope, self.offset = 1.0, 0.0

    def anomaly(self, steps: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        """(m) A(t)."""
        again, ahead = self.module(steps, mask, table)
        error: Tensor = (1 - self.beta) * again / self.units[0] + self.beta * ahead / self.units[1]
        return error

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, None, Tensor]:
        """As TorchFamily: logits (m, 2) of benign and other."""
        odds = self.slope * torch.log(self.anomaly(steps, mask, table) + 1e-6) + self.offset
        return torch.stack([torch.zeros_like(odds), odds], dim=-1), None, torch.zeros_like(odds)


def fit(
    module: AeLstm,
    train: Examples,
    held_out: Examples,
    options: Fit,
    seed: int,
    progress: Progress,
    training: Training = "together",
    errors: Errors = "whitened",
    scaled: Scaling = "min-max",
) -> FittedNetwork:
    """The network of the epoch with the least error on benign held-out windows; α, β and the curve
    from all of them.

    `together` is as published; `separate` trains the autoencoder first and the prediction after it;
    `autoencoder` has no prediction. `whitened` errors count residuals by how those of normal
    traffic vary together (Mahalanobis distance), `plain` ones, as published, count all alike.
    `min-max` is the published scaling; it cuts nothing off that normal traffic has."""
    torch.manual_seed(seed)
    torch.set_num_threads(options.threads)
    normal = train.take(np.flatnonzero(train.label == 0))
    module.set_scaling(*(scaling if scaled == "standard" else _bounds)(normal, seed))
    ahead = module.foreseeing()
    own = {id(weight) for weight in ahead}
    rest = [weight for weight in module.parameters() if id(weight) not in own]
    parts = {"together": [[*rest, *ahead]], "separate": [rest, ahead], "autoencoder": [rest]}[
        training
    ]
    losses: list[dict[str, float]] = []
    for part in parts:
        losses += _epochs(module, part, normal, held_out, options, seed, progress)
    if errors == "whitened":
        module.set_units(*_units(module, normal, seed))
    scored = _weighed(module, held_out, 0.0 if training == "autoencoder" else None)
    return FittedNetwork(scored.eval(), _CLASSES, losses)


def _bounds(normal: Examples, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Least values, and 1 / range, over windows drawn by weight; 0 for what never varies."""
    shown = normal.take(np.random.default_rng(seed).choice(len(normal), _NORMAL, p=normal.weight))
    least, scales = [], []
    for values in (shown.steps[shown.mask], shown.table):
        low, high = (np.nan_to_num(bound.reduce(values, axis=0)) for bound in (np.fmin, np.fmax))
        span = np.where(high > low, high - low, np.inf)
        least.append(torch.tensor(low, dtype=torch.float32))
        scales.append(torch.tensor(1 / span, dtype=torch.float32))
    return least, scales


def _units(module: AeLstm, normal: Examples, seed: int) -> tuple[Tensor, Tensor]:
    """Matrices that turn the residuals of normal windows, drawn by weight, into ones of unit
    covariance."""
    shown = normal.take(np.random.default_rng(seed).choice(len(normal), _NORMAL, p=normal.weight))
    module.eval()
    with torch.no_grad():
        parts = [
            module.residuals(*tensors(shown, rows))[:2]
            for rows in np.array_split(np.arange(len(shown)), max(1, len(shown) // 4096))
        ]
    again, ahead = (_whitening(torch.cat(part).double()) for part in zip(*parts, strict=True))
    return again, ahead


def _whitening(residuals: Tensor) -> Tensor:
    """(columns, columns) W with W Wᵀ the inverse of their second moments."""
    moments = residuals.T @ residuals / len(residuals) + _RIDGE * torch.eye(
        residuals.shape[1], dtype=torch.float64
    )
    whitening: Tensor = torch.linalg.cholesky(torch.linalg.inv(moments)).float()
    return whitening


def _epochs(
    module: AeLstm,
    weights: list[nn.Parameter],
    normal: Examples,
    held_out: Examples,
    options: Fit,
    seed: int,
    progress: Progress,
) -> list[dict[str, float]]:
    optimiser = torch.optim.Adam(weights, lr=options.rate)
    benign = held_out.take(np.flatnonzero(held_out.label == 0)[:20_000])
    losses: list[dict[str, float]] = []
    best = {name: value.clone() for name, value in module.state_dict().items()}
    for epoch in range(options.epochs):
        rng = np.random.default_rng(seed + epoch)
        drawn = rng.choice(len(normal), options.windows, p=normal.weight)
        module.train()
        for start in range(0, len(drawn), options.batch):
            again, ahead = module(*tensors(normal, drawn[start : start + options.batch]))
            optimiser.zero_grad()
            (again + ahead).mean().backward()
            optimiser.step()
        losses.append(
            {"held_out": round(float(sum(part.mean() for part in _errors(module, benign))), 6)}
        )
        progress(
            f"ae_lstm: epoch {epoch + 1} of {options.epochs},"
            f" error on benign windows {losses[-1]['held_out']:.4f}"
        )
        if losses[-1] == min(losses, key=lambda loss: loss["held_out"]):
            best = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(best)
    return losses


def _errors(module: AeLstm, examples: Examples) -> tuple[Doubles, Doubles]:
    """(n) both errors."""
    module.eval()
    with torch.no_grad():
        parts = [
            module(*tensors(examples, rows))
            for rows in np.array_split(np.arange(len(examples)), max(1, len(examples) // 4096))
        ]
    again, ahead = (torch.cat(part).numpy().astype(np.float64) for part in zip(*parts, strict=True))
    return again, ahead


def _weighed(module: AeLstm, held_out: Examples, beta: float | None) -> Scored:
    """β by the best weighted log-loss of the logistic curve through log A(t), whose slope and
    offset it has."""
    again, ahead = _errors(module, held_out)
    benign, weight = held_out.label == 0, held_out.weight / held_out.weight.sum()
    units = tuple(
        float(np.average(error[benign], weights=weight[benign])) or 1.0 for error in (again, ahead)
    )
    candidates = []
    for share in _SHARES if beta is None else [beta]:
        anomaly = (1 - share) * again / units[0] + share * ahead / units[1]
        candidates.append((*_logistic(np.log(anomaly + 1e-6), ~benign, weight), float(share)))
    _, slope, offset, share = min(candidates)
    scored = Scored(module, (units[0], units[1]), share)
    scored.slope, scored.offset = slope, offset
    return scored


def _logistic(
    values: Doubles, bad: npt.NDArray[np.bool_], weight: Doubles
) -> tuple[float, float, float]:
    """Weighted log-loss, slope and offset of the logistic regression on one value (Newton's
    method)."""
    columns = np.stack([values, np.ones_like(values)], axis=1)
    theta = np.zeros(2)
    for _ in range(30):
        likely = 1 / (1 + np.exp(-np.clip(columns @ theta, -30, 30)))
        slope = columns.T @ (weight * (likely - bad)) + 1e-6 * theta
        bend = (columns * (weight * likely * (1 - likely))[:, None]).T @ columns + 1e-6 * np.eye(2)
        theta = theta - np.linalg.solve(bend, slope)
    likely = np.clip(1 / (1 + np.exp(-np.clip(columns @ theta, -30, 30))), 1e-9, 1 - 1e-9)
    loss = -float((weight * np.where(bad, np.log(likely), np.log(1 - likely))).sum())
    return loss, float(theta[0]), float(theta[1])


class NormalTrafficTrainer:
    """Kind `normal`: networks that learn what benign windows look like."""

    name = "normal"

    def train(
        self,
        family: NormalFamily,
        train_set: Examples,
        stop_set: Examples,
        options: Options,
        progress: Progress,
    ) -> TrainedMember:
        """As training.Trainer."""
        torch.manual_seed(options.seed)
        network = family.build(train_set.spec, len(np.unique(train_set.label)))
        fitted = fit(
            cast(AeLstm, network), train_set, stop_set, options.fit, options.seed, progress
        )
        return onnx_member(family, fitted, train_set)


PLUGIN = NormalTrafficTrainer()
