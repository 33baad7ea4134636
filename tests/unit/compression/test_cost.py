"""What a network costs, counted by hand where that can be done."""

from __future__ import annotations

from dataclasses import asdict

import torch

from ids_plugin import registry
from ids_plugin.compression.cost import deflated, macs, measured, parameters
from ids_plugin.compression.int8 import quantised
from ids_plugin.models import l_tcn, lstm
from ids_plugin.schema.window import STEPS
from ids_plugin.training.torch_network import FittedNetwork, export
from ids_plugin.windows import spec
from tests.unit.compression.test_quantize_nodes import CLASSES, examples

COLUMNS, TABLE = 2 * len(spec().sequence), 2 * len(spec().table)
HEAD = TABLE * 48 + 48 * 24


def model(network: torch.nn.Module) -> bytes:
    return export(FittedNetwork(network.eval(), CLASSES, []), examples(2))


def test_multiplications_of_an_lstm() -> None:
    plain = model(lstm.PLUGIN.build(spec(), 8, widths=lstm.LstmWidths(20)))
    assert macs(plain) == STEPS * 4 * 20 * (COLUMNS + 20) + HEAD + (20 + 24) * 48 + 48 * 8


def test_the_published_form_of_the_tcn_multiplies_at_every_step() -> None:
    widths = l_tcn.LightweightTcnWidths((8, 16, 8, 16))
    pairs = [((COLUMNS + 1), 8), (8, 16), (16, 8), (8, 16)]
    rest = HEAD + (16 + 24) * 48 + 48 * 8
    full, tree = (
        model(l_tcn.PLUGIN.build(spec(), 8, widths=widths, tree=tree)) for tree in (False, True)
    )
    assert macs(full) == STEPS * sum(3 * before * after for before, after in pairs) + rest
    reached = [len(steps) for steps in l_tcn.positions()]
    assert macs(tree) == sum(3 * a * b * n for (a, b), n in zip(pairs, reached, strict=True)) + rest


def test_int8_has_the_same_numbers_in_fewer_bytes() -> None:
    network = registry.load("models", "cnn").build(spec(), 8)
    plain = model(network)
    small = quantised(plain, examples(32))
    assert (
        parameters(plain) == parameters(small) == sum(one.numel() for one in network.parameters())
    )
    assert macs(plain) == macs(small)
    assert deflated(small) < deflated(plain)


def test_time_and_memory_are_measured_against_the_first() -> None:
    found = measured({"one": model(registry.load("models", "cnn").build(spec(), 8))})["one"]
    assert found.times_faster == 1
    assert all(value > 0 for value in asdict(found).values())
    assert found.batch_1_us > found.batch_1000_us
