"""Fits the network of the control detector, and exports it to ONNX."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ids_plugin.detectors.contact_profile.network import (
    FACT_START,
    NUMBERS,
    TABLE,
    NetworkInputs,
    network_inputs,
)
from ids_plugin.models.contact_attention import ContactAttention, ContactAttentionShape
from ids_plugin.training.contacts.examples import CONTROL, ContactExamples, Doubles

ONNX_OPSET = 20
_EXAMPLE_ROWS = 64


@dataclass(frozen=True)
class NetworkFit:
    """How the network is fitted; found on left-out families of sources."""

    epochs: int = 15
    batch: int = 256
    rate: float = 2e-3
    decay: float = 0.05
    smoothing: float = 0.02
    """of the labels"""
    rows: int = 16
    """of a contact, at most"""
    log_dropout: float = 0.5
    """share of the rows that are shown without facts of other logs"""
    column_dropout: float = 0.1
    flow_dropout: float = 0.15
    table_dropout: float = 0.1
    jitter: float = 0.1
    """of sizes and times of a whole contact, in units of 100 log steps"""
    flow_jitter: float = 0.03
    """of those of single flows"""


def tensors(inputs: NetworkInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs as torch has them."""
    return (
        torch.from_numpy(inputs.steps),
        torch.from_numpy(inputs.mask),
        torch.from_numpy(inputs.table),
    )


def inputs_of(data: ContactExamples) -> NetworkInputs:
    """What the network reads of examples."""
    return network_inputs(data.tokens, data.flows, data.features)


def fit_network(
    data: ContactExamples, weight: Doubles, fit: NetworkFit, seed: int
) -> ContactAttention:
    """The network fitted to all of `data`; the same weights for the same arguments.

    Args:
        weight: (n) of the examples, 1 on average.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    steps, mask, table = tensors(inputs_of(data))
    label = torch.from_numpy((data.label == CONTROL).astype(np.float32))
    target = label * (1 - 2 * fit.smoothing) + fit.smoothing
    weights = torch.from_numpy(weight.astype(np.float32))
    network = ContactAttention(ContactAttentionShape())
    batches = -(-len(data) // fit.batch)
    optimiser = torch.optim.AdamW(network.parameters(), fit.rate, weight_decay=fit.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, fit.rate, total_steps=fit.epochs * batches
    )
    loss = nn.BCEWithLogitsLoss(reduction="none")
    network.train()
    for _ in range(fit.epochs):
        order = torch.randperm(len(data), generator=generator)
        for start in range(0, len(data), fit.batch):
            part = order[start : start + fit.batch]
            shown = _with_noise(steps[part], mask[part], table[part], fit, generator)
            optimiser.zero_grad()
            (loss(network(*shown)[0], target[part]) * weights[part]).mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return network.eval()


def _with_noise(
    steps: Tensor, mask: Tensor, table: Tensor, fit: NetworkFit, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Facts of some rows, some columns, some flows and some of the table are left out; sizes and
    times are moved a little."""
    rows, flows, columns = steps.shape
    steps = steps.clone()
    moved = fit.jitter * torch.randn(rows, 1, NUMBERS, generator=generator)
    moved = moved + fit.flow_jitter * torch.randn(rows, flows, NUMBERS, generator=generator)
    steps[:, :, :NUMBERS] += moved
    is_blind = torch.rand(rows, generator=generator) < fit.log_dropout
    steps[is_blind, :, FACT_START:] = 0
    steps = steps * (torch.rand(rows, 1, columns, generator=generator) > fit.column_dropout)
    is_there = torch.rand(rows, flows, generator=generator) > fit.flow_dropout
    is_there[:, -1] = True
    shown = (torch.rand(rows, len(TABLE), generator=generator) > fit.table_dropout).repeat(1, 2)
    looked_up = TABLE.index("looked_up")
    shown[is_blind, looked_up] = False
    shown[is_blind, looked_up + len(TABLE)] = False
    return steps, mask & is_there, table * shown


def network_probability(network: ContactAttention, data: ContactExamples) -> Doubles:
    """(n) of control."""
    parts = np.array_split(np.arange(len(data)), max(1, len(data) // 4096))
    with torch.no_grad():
        logits = [network(*tensors(inputs_of(data.take(part))))[0] for part in parts]
    return np.asarray(torch.sigmoid(torch.cat(logits)).numpy().astype(np.float64))


class _Served(nn.Module):
    """The outputs that the product reads."""

    def __init__(self, network: ContactAttention) -> None:
        super().__init__()
        self.network = network

    def forward(self, steps: Tensor, mask: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        logit, weights = self.network(steps, mask, table)
        return torch.sigmoid(logit).unsqueeze(-1), weights


def exported(network: ContactAttention, example: NetworkInputs) -> bytes:
    """ONNX with outputs `probability` (m, 1) and `attention` (m, flows); m is free."""
    names = ["steps", "mask", "table"]
    outputs = ["probability", "attention"]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        made = Path(folder) / "model.onnx"
        torch.onnx.export(
            _Served(network).eval(),
            tuple(part[:_EXAMPLE_ROWS] for part in tensors(example)),
            made,
            dynamo=False,
            opset_version=ONNX_OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
        )
        return made.read_bytes()
