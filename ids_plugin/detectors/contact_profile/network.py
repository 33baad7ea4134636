"""The network's vote: tokens of a contact → numbers of an attention network, which runs in ONNX
Runtime."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ids_plugin.detectors import Doubles
from ids_plugin.detectors.contact_profile.facts import LOOKUP_FEATURES
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Bools, Floats, Ints
from ids_plugin.scoring.onnx import OnnxMember
from ids_plugin.windows.contacts import (
    FEATURE_NAMES,
    HTTP,
    OUTCOME,
    TLS,
    URI,
    WINDOW_FLOWS,
)
from ids_plugin.windows.sorting import MISSING

LABEL = CLASSES.index("command_and_control")
NUMBERS = 4
"""bytes of a token that are sizes and times: gap, up, down, duration"""
OUTCOMES = 5
FACT_START = NUMBERS + OUTCOMES
"""from here on the numbers of a flow are facts of other logs than conn"""
TOKEN_NUMBERS = FACT_START + 8 + 8 + 1
TABLE = ("flows", "span", "port_peers", "high_ports", "external", "looked_up")
"""columns of the contact that its tokens don't know; a second half says which are known"""
TABLE_SCALE = np.array([3, 8, 2, 3, 1, 1], np.float32)
STEPS_OF_A_UNIT = 100.0
URI_STEPS_OF_A_UNIT = 50.0
_NAMES = (*FEATURE_NAMES, *(name for name, _, _ in LOOKUP_FEATURES))
_TABLE_COLUMNS = [_NAMES.index(name) for name in TABLE]
Tokens = npt.NDArray[np.uint64]


class NetworkInputs(NamedTuple):
    """What the network reads of m contacts."""

    steps: Floats
    """(m, WINDOW_FLOWS, TOKEN_NUMBERS), oldest first"""
    mask: Bools
    """(m, WINDOW_FLOWS) a flow is there"""
    table: Floats
    """(m, 2 * TABLE)"""


def network_inputs(tokens: Tokens, count: Ints, features: Floats) -> NetworkInputs:
    """Tokens (m, WINDOW_FLOWS), flows of the contact (m) and its features (m, NAMES), as numbers
    around 0."""
    planes = np.ascontiguousarray(tokens).view(np.uint8).reshape(len(tokens), WINDOW_FLOWS, 8)
    numbers = planes[:, :, :NUMBERS]
    scaled = numbers.astype(np.float32) / np.float32(STEPS_OF_A_UNIT) - 1
    uri = planes[:, :, URI].astype(np.float32) / np.float32(URI_STEPS_OF_A_UNIT)
    steps = np.concatenate(
        [
            np.where(numbers < MISSING, scaled, np.float32(0)),
            _bits(planes[:, :, OUTCOME], OUTCOMES),
            _bits(planes[:, :, HTTP], 8),
            _bits(planes[:, :, TLS], 8),
            np.where(planes[:, :, URI] < MISSING, uri, np.float32(0))[:, :, None],
        ],
        axis=2,
    )
    mask = np.arange(WINDOW_FLOWS) >= WINDOW_FLOWS - np.minimum(count, WINDOW_FLOWS)[:, None]
    values = features[:, _TABLE_COLUMNS]
    is_known = ~np.isnan(values)
    table = np.concatenate([np.where(is_known, values / TABLE_SCALE, 0), is_known], axis=1)
    return NetworkInputs(steps.astype(np.float32), mask, table.astype(np.float32))


def _bits(plane: npt.NDArray[np.uint8], count: int) -> Floats:
    return ((plane[:, :, None] >> np.arange(count, dtype=np.uint8)) & 1).astype(np.float32)


class ContactNetwork:
    """The network of a bundle."""

    def __init__(self, model: bytes, location: str) -> None:
        """
        Raises:
            BundleError: ONNX Runtime can't load it.
        """
        self._member = OnnxMember(model, (LABEL,), location)

    def probability(self, inputs: NetworkInputs) -> Doubles:
        """(m) of control."""
        return self._member.probabilities(*inputs)[:, LABEL]

    def attention(self, inputs: NetworkInputs) -> Doubles:
        """(m, WINDOW_FLOWS) weights of the flows, 0 where none is; each row sums to 1.

        Raises:
            BundleError: the network has no such output.
        """
        weights = self._member.attention(*inputs)
        if weights is None:
            raise BundleError("the network of contacts gives no attention")
        return weights
