"""Fits a torch family and exports it to ONNX."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ids_plugin.models import ModelFamily, Network, TorchFamily, WidthsFamily
from ids_plugin.schema.window import STEPS, Spec
from ids_plugin.training import TrainedMember
from ids_plugin.training.examples import Examples
from ids_plugin.training.options import Fit, Options, Progress

Inputs = tuple[Tensor, Tensor, Tensor]
"""steps, mask, table"""
MODEL = "model.onnx"
"""what a bundle calls the ONNX of its network"""
WEIGHTS = "weights.npz"
"""what a bundle calls the arrays of its network as trained; serving doesn't need them, compression
does"""
_SCALING = 20_000


class FittedNetwork:
    """A trained network and how its training went."""

    def __init__(
        self, module: nn.Module, classes: tuple[int, ...], losses: list[dict[str, float]]
    ) -> None:
        self.module = module
        self.classes = classes
        self.losses = losses

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(weight.numel() for weight in self.module.parameters())


def fit(
    family: TorchFamily,
    train: Examples,
    held_out: Examples,
    options: Fit,
    seed: int,
    progress: Progress,
) -> FittedNetwork:
    """The network with the least loss on `held_out` among the epochs; bit for bit the same for the
    same arguments."""
    torch.manual_seed(seed)
    classes = tuple(int(label) for label in np.unique(train.label))
    module = family.build(train.spec, len(classes))
    cast(Network, module).set_scaling(*scaling(train, seed))
    training_set = TrainingSet(
        train,
        held_out,
        classes,
        options,
        seed,
        lambda message: progress(f"{family.name}: {message}"),
    )
    return FittedNetwork(module, classes, learn(module, training_set))


@dataclass(frozen=True)
class TrainingSet:
    """What a network learns from, and how."""

    train: Examples
    held_out: Examples
    classes: tuple[int, ...]
    options: Fit
    seed: int
    progress: Progress
    soft: Callable[[Inputs], Tensor] | None = None
    """inputs → logits (m, classes) of a teacher, which then count beside the labels"""
    temperature: float = 2.0
    after: Callable[[], None] = lambda: None
    """called after every change of the weights"""

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor, inputs: Inputs) -> Tensor:
        """Against the labels; with a teacher half of that and half against what it says at the
        temperature (Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network,
        2015)."""
        hard = self.options.balance.loss(logits, target, weight, self.options.smoothing)
        if self.soft is None:
            return hard
        with torch.no_grad():
            wanted = torch.softmax(self.soft(inputs) / self.temperature, dim=-1)
        predicted = torch.log_softmax(logits / self.temperature, dim=-1)
        apart = nn.functional.kl_div(predicted, wanted, reduction="batchmean") * self.temperature**2
        return 0.5 * hard + 0.5 * apart


def learn(module: nn.Module, training_set: TrainingSet) -> list[dict[str, float]]:
    """Trains `module` from where it stands; it ends in evaluation mode with the weights of the
    epoch that lost least on the held-out windows. Returns the losses by epoch."""
    torch.use_deterministic_algorithms(True)
    options = training_set.options
    torch.set_num_threads(options.threads)
    optimiser = torch.optim.AdamW(module.parameters(), lr=options.rate, weight_decay=options.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.epochs)
    losses: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    for epoch in range(options.epochs):
        trained = _epoch(module, optimiser, training_set, training_set.seed + epoch)
        schedule.step()
        judged = _judge(module, training_set.held_out, training_set.classes)
        losses.append({"train": round(trained, 6), "held_out": round(judged, 6)})
        training_set.progress(
            f"epoch {epoch + 1} of {options.epochs}, loss {trained:.4f}, held out {judged:.4f}"
        )
        least = min(range(len(losses)), key=lambda number: losses[number]["held_out"])
        if least == epoch:
            best = {name: value.clone() for name, value in module.state_dict().items()}
        if epoch - least >= options.patience:
            break
    module.load_state_dict(best)
    module.eval()
    return losses


def weights(module: nn.Module) -> bytes:
    """The network's arrays as NumPy's `.npz`, from which `restore` makes it again."""
    arrays = {name: value.numpy() for name, value in module.state_dict().items()}
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def restore(family: WidthsFamily, spec: Spec, classes: int, packed: bytes) -> nn.Module:
    """The network whose `weights` these are, ready to serve.

    Raises:
        ValueError: they aren't those of this family for these windows and classes.
    """
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return rebuilt(family, spec, classes, state)
    except (KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"these aren't the weights of {family.name} for these windows") from error


def rebuilt(
    family: WidthsFamily, spec: Spec, classes: int, state: Mapping[str, Tensor]
) -> nn.Module:
    """A network of the widths that `state` has, with its weights, ready to serve."""
    widths = family.widths({name: tuple(value.shape) for name, value in state.items()})
    module = family.build(spec, classes, widths=widths)
    module.load_state_dict(state)
    return module.eval()


def scaling(train: Examples, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Mean and 1 / standard deviation over windows drawn by weight; 0 for what never varies."""
    shown = train.take(np.random.default_rng(seed).choice(len(train), _SCALING, p=train.weight))
    means, scales = [], []
    for values in (shown.steps[shown.mask], shown.table):
        known = ~np.isnan(values)
        count = np.maximum(known.sum(axis=0), 1)
        filled = np.nan_to_num(values.astype(np.float64))
        mean = filled.sum(axis=0) / count
        variance = (known * (filled - mean) ** 2).sum(axis=0) / count
        scale = np.where(variance > 1e-8, 1 / np.sqrt(np.maximum(variance, 1e-8)), 0.0)
        means.append(torch.tensor(mean, dtype=torch.float32))
        scales.append(torch.tensor(scale, dtype=torch.float32))
    return means, scales


def tensors(examples: Examples, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Inputs:
    """Steps, mask and table of the examples at `rows`."""
    return (
        torch.from_numpy(examples.steps[rows]),
        torch.from_numpy(examples.mask[rows]),
        torch.from_numpy(examples.table[rows]),
    )


def _epoch(
    module: nn.Module, optimiser: torch.optim.Optimizer, training_set: TrainingSet, seed: int
) -> float:
    rng = np.random.default_rng(seed)
    train, options = training_set.train, training_set.options
    drawn = options.balance.draw(train, options.windows, rng)
    weight = torch.tensor(train.weight, dtype=torch.float32)
    target = torch.from_numpy(np.searchsorted(training_set.classes, train.label))
    module.train()
    total = 0.0
    for start in range(0, len(drawn), options.batch):
        rows = drawn[start : start + options.batch]
        steps, mask, table = tensors(train, rows)
        hidden = torch.from_numpy(rng.random(len(rows)) < options.blind)
        table = torch.where(hidden[:, None], torch.nan, table)
        logits, _, extra = module(steps, mask, table)
        loss = training_set.loss(logits, target[rows], weight[rows], (steps, mask, table))
        optimiser.zero_grad()
        (loss + options.auxiliary * extra.mean()).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        training_set.after()
        total += float(loss.detach()) * len(rows)
    return total / len(drawn)


def _judge(module: nn.Module, held_out: Examples, classes: tuple[int, ...]) -> float:
    """Weighted cross-entropy; windows of classes that were not trained don't count."""
    module.eval()
    known = np.flatnonzero(np.isin(held_out.label, classes))
    target = torch.from_numpy(np.searchsorted(classes, held_out.label[known]))
    weight = torch.from_numpy(held_out.weight[known])
    with torch.no_grad():
        logits = [
            module(*tensors(held_out, part))[0]
            for part in np.array_split(known, max(1, len(known) // 4096))
        ]
    each = nn.functional.cross_entropy(torch.cat(logits), target, reduction="none")
    return float((each * weight).sum() / weight.sum())


class _Serving(nn.Module):
    """What is exported: probabilities and, where there is one, attention; without what only
    training needs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        logits, weights, _ = self.module(steps, mask, table)
        probability = torch.softmax(logits, dim=-1)
        return (probability,) if weights is None else (probability, weights)


def export(fitted: FittedNetwork, examples: Examples) -> bytes:
    """ONNX with inputs steps, mask, table and outputs probability (m, classes) and, where there is
    one, attention (m, STEPS); any m."""
    shown = (
        torch.zeros(1, STEPS, examples.steps.shape[2]),
        torch.ones(1, STEPS, dtype=torch.bool),
        torch.zeros(1, examples.table.shape[1]),
    )
    serving = _Serving(fitted.module).eval()
    names = ["steps", "mask", "table", *["probability", "attention"][: len(serving(*shown))]]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.onnx"
        torch.onnx.export(
            serving, shown, made, dynamo=False, opset_version=20, input_names=names[:3],
            output_names=names[3:], dynamic_axes={name: {0: "batch"} for name in names},
        )  # fmt: skip
        return made.read_bytes()


def onnx_member(family: ModelFamily, fitted: FittedNetwork, examples: Examples) -> TrainedMember:
    """A fitted network as a bundle has it, without the weights that only compression reads."""
    record = {"parameters": fitted.parameters, "losses": fitted.losses, "paper": family.paper}
    return TrainedMember("onnx", MODEL, export(fitted, examples), fitted.classes, record)


class TorchTrainer:
    """Kind `torch`: networks that classify windows."""

    name = "torch"

    def train(
        self,
        family: TorchFamily,
        train_set: Examples,
        stop_set: Examples,
        options: Options,
        progress: Progress,
    ) -> TrainedMember:
        """As training.Trainer."""
        fitted = fit(family, train_set, stop_set, options.fit, options.seed, progress)
        member = onnx_member(family, fitted, train_set)
        return replace(member, weights=weights(fitted.module))


PLUGIN = TorchTrainer()
