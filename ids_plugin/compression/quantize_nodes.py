"""Moves quantisation up a graph, towards what computes: the same numbers, in one byte instead of
four on the way.

A quantised network quantises where a layer reads. What stands between the layer before and that
place (a mask, a choice of steps, a rectifier, an unknown value's replacement) gives the same with
bytes, and what it costs is mostly the bytes it moves. Every rule here is exact: rounding is
monotone, so it may come before a choice, a maximum or a copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

NEW_VALUE_PREFIX = "hoisted_"
"""of names in the models that are made; it is part of their bytes, so it stays"""
Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


def move_quantize_nodes_up(model: bytes) -> bytes:
    """The model with every QuantizeLinear of a scalar scale as near to what computes as it can
    be."""
    graph = _Graph(onnx.load_from_string(model))
    while any(graph.rewrite(node) for node in graph.quantisers()):
        pass
    return graph.serialised()


class _Graph:
    """A model whose nodes can be replaced by the name of what they give."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.count = 0
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(
                    helper.get_attribute_value(node.attribute[0])
                )
        self._index()

    def _index(self) -> None:
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers = Counter(name for node in self.nodes for name in node.input)
        self.readers.update(value.name for value in self.model.graph.output)

    def quantisers(self) -> list[onnx.NodeProto]:
        """Those of activations, one scale for all."""
        return [
            node
            for node in self.nodes
            if node.op_type == "QuantizeLinear"
            and node.input[0] in self.makers
            and node.input[2] in self.constants
            and self.constants[node.input[1]].size == 1
        ]

    def rewrite(self, quantiser: onnx.NodeProto) -> bool:
        """Moves it past what made its input; False where no rule does."""
        above = self.makers[quantiser.input[0]]
        rule = _RULES.get(above.op_type)
        if rule is None or (self.readers[above.output[0]] != 1 and rule is not _flagged):
            return False
        made = rule(self, above, _Quantiser(self, quantiser))
        if made is None:
            return False
        position = self.nodes.index(quantiser)
        made[-1].output[0] = quantiser.output[0]
        self.nodes[position : position + 1] = made
        if self.readers[above.output[0]] == 1:
            self.nodes.remove(above)
        self._index()
        return True

    def wide(self, name: str, like: str) -> str:
        """The constant `name` in the whole shape of a row of the input `like`: long runs of bytes
        go faster."""
        inputs = [value for value in self.model.graph.input if value.name == like]
        if not inputs:
            return name
        row = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim][1:]
        return self.constant(np.ascontiguousarray(np.broadcast_to(self.constants[name], row)))

    def yes_or_no(self, name: str) -> bool:
        """Whether it is made of truth values."""
        maker = self.makers.get(name)
        if maker is None:
            kinds = {
                value.name: value.type.tensor_type.elem_type for value in self.model.graph.input
            }
            return kinds.get(name) == onnx.TensorProto.BOOL
        return maker.op_type in {"IsNaN", "Not"} or (
            maker.op_type in _MOVES and self.yes_or_no(maker.input[0])
        )

    def constant(self, value: Array) -> str:
        """Name of a new initialiser."""
        self.count += 1
        name = f"{NEW_VALUE_PREFIX}{self.count}"
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        self.constants[name] = value
        return name

    def node(
        self, kind: str, inputs: list[str], like: onnx.NodeProto | None = None
    ) -> onnx.NodeProto:
        """A new node, with the attributes of `like`."""
        self.count += 1
        made = helper.make_node(
            kind,
            inputs,
            [f"{NEW_VALUE_PREFIX}{self.count}"],
            name=f"{NEW_VALUE_PREFIX}{self.count}",
        )
        if like is not None:
            made.attribute.extend(like.attribute)
        return made

    def serialised(self) -> bytes:
        """The model, with what nobody reads any more left out."""
        while True:
            used = {name for node in self.nodes for name in node.input} | {
                o.name for o in self.model.graph.output
            }
            used_nodes = [node for node in self.nodes if any(name in used for name in node.output)]
            if len(used_nodes) == len(self.nodes):
                break
            self.nodes = used_nodes
        initialisers = [tensor for tensor in self.model.graph.initializer if tensor.name in used]
        del (
            self.model.graph.node[:],
            self.model.graph.initializer[:],
            self.model.graph.value_info[:],
        )
        self.model.graph.node.extend(_ordered(self.nodes, self.makers))
        self.model.graph.initializer.extend(initialisers)
        return bytes(self.model.SerializeToString())


class _Quantiser:
    """One QuantizeLinear that is moved."""

    def __init__(self, graph: _Graph, node: onnx.NodeProto) -> None:
        self.graph, self.parameters = graph, list(node.input[1:])
        self.scale, self.zero = (graph.constants[name] for name in self.parameters)

    def over(self, name: str) -> tuple[list[onnx.NodeProto], str]:
        """Nodes that quantise `name`, and the name of what they give; a constant is quantised at
        once."""
        if name in self.graph.constants:
            return [], self.graph.constant(self.of(self.graph.constants[name]))
        made = self.graph.node("QuantizeLinear", [name, *self.parameters])
        return [made], made.output[0]

    def of(self, value: Array | float) -> Array:
        """`value` as ONNX quantises it: halves to even, saturating."""
        bounds = np.iinfo(self.zero.dtype)
        rounded = np.rint(np.asarray(value, np.float32) / self.scale) + self.zero.astype(np.float32)
        return np.asarray(np.clip(rounded, bounds.min, bounds.max).astype(self.zero.dtype))


Made = list[onnx.NodeProto] | None
Rule = Callable[[_Graph, onnx.NodeProto, _Quantiser], Made]


def _copied(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    """Choosing, cutting, turning, the largest: only the first input is data."""
    before, name = quantiser.over(above.input[0])
    return [*before, graph.node(above.op_type, [name, *above.input[1:]], above)]


def _joined(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    parts = [quantiser.over(name) for name in above.input]
    before = [node for nodes, _ in parts for node in nodes]
    return [*before, graph.node("Concat", [name for _, name in parts], above)]


def _rectified(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    """A zero point of 0 rectifies by itself; another is what nothing may be below."""
    before, name = quantiser.over(above.input[0])
    return (
        before
        if int(quantiser.zero) == 0
        else [*before, graph.node("Clip", [name, quantiser.parameters[1]])]
    )


def _padded(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    """With zeros, which is what no value given means."""
    if len([name for name in above.input if name]) != 2:
        return None
    before, name = quantiser.over(above.input[0])
    return [
        *before,
        graph.node("Pad", [name, above.input[1], graph.constant(quantiser.of(0.0))], above),
    ]


def _clipped(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    bounds = [graph.constants.get(name) for name in above.input[1:]]
    if len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return None
    before, name = quantiser.over(above.input[0])
    ends = [quantiser.of(bound) for bound in bounds if bound is not None]
    if (int(ends[0]), int(ends[1])) == (
        np.iinfo(quantiser.zero.dtype).min,
        np.iinfo(quantiser.zero.dtype).max,
    ):
        return before
    return [*before, graph.node("Clip", [name, *(graph.constant(end) for end in ends)])]


def _chosen(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    parts = [quantiser.over(name) for name in above.input[1:]]
    before = [node for nodes, _ in parts for node in nodes]
    return [*before, graph.node("Where", [above.input[0], *(name for _, name in parts)])]


def _flagged(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    """A flag as a number is one of two bytes."""
    if not graph.yes_or_no(above.input[0]):
        return None
    true_byte, false_byte = (graph.constant(quantiser.of(value)) for value in (1.0, 0.0))
    return [graph.node("Where", [above.input[0], true_byte, false_byte])]


def _multiplied(graph: _Graph, above: onnx.NodeProto, quantiser: _Quantiser) -> Made:
    """Times a mask of 0 and 1: the value, or what stands for 0. Standardised, with the mean in
    place of what is unknown: what stands for 0 in place of it."""
    zero = quantiser.of(0.0)
    for value, factor in (above.input, reversed(above.input)):
        flags = _flags(graph, factor)
        if flags is not None:
            before, name = quantiser.over(value)
            return [
                *flags,
                *before,
                graph.node("Where", [flags[-1].output[0], name, graph.constant(zero)]),
            ]
    apart = graph.makers.get(above.input[0])
    if apart is None or apart.op_type != "Sub" or above.input[1] not in graph.constants:
        return None
    known = graph.makers.get(apart.input[0])
    if known is None or known.op_type != "Where" or known.input[1] != apart.input[1]:
        return None
    mean, scale = (graph.wide(name, known.input[2]) for name in (apart.input[1], above.input[1]))
    moved = graph.node("Sub", [known.input[2], mean])
    scaled = graph.node("Mul", [moved.output[0], scale])
    before, name = quantiser.over(scaled.output[0])
    return [
        moved,
        scaled,
        *before,
        graph.node("Where", [known.input[0], graph.constant(zero), name]),
    ]


def _flags(graph: _Graph, name: str) -> list[onnx.NodeProto] | None:
    """Nodes that end in the flags that `name` is the number form of; None where it isn't."""
    maker = graph.makers.get(name)
    if maker is None:
        return None
    if maker.op_type == "Cast":
        return [graph.node("Identity", [maker.input[0]])]
    if maker.op_type in _MOVES:
        above = _flags(graph, maker.input[0])
        return (
            None
            if above is None
            else [*above, graph.node(maker.op_type, [above[-1].output[0], *maker.input[1:]], maker)]
        )
    return None


_MOVES = ("Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVES, _copied),
    "Cast": _flagged,
    "Clip": _clipped,
    "Concat": _joined,
    "Mul": _multiplied,
    "Pad": _padded,
    "ReduceMax": _copied,
    "Relu": _rectified,
    "Where": _chosen,
}


def _ordered(
    nodes: list[onnx.NodeProto], makers: dict[str, onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """The nodes so that each comes after what it reads."""
    made = {name for node in nodes for name in node.output}
    ordered: list[onnx.NodeProto] = []
    available: set[str] = set()
    waiting = list(nodes)
    while waiting:
        ready = [
            node
            for node in waiting
            if all(name in available or name not in made for name in node.input)
        ]
        ordered += ready
        available.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not any(node is other for other in ready)]
    return ordered
