"""A rung of the ladder as one C header: constants and a few functions, C99, no allocation, no
library.

A whole network computes with integers alone. One in floating point gives the reference's bits where
the compiler neither fuses nor reorders (`-std=c99`, no `-ffast-math`; on x86 with SSE)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ids_plugin.compression.tiny.integer_network import (
    CENTROIDS,
    TOP,
    Layer,
    Network,
    arena,
    constants,
)
from ids_plugin.schema.uniflow import CLASSES, COLUMNS, LARGEST

_WIDTH = 110


def header(network: Network, title: str) -> str:
    """The header's text; `title` is its first line, a comment."""
    parts = [_top(network, title), _reading(network)]
    names = ["conv", *(f"dense{number}" for number in range(len(network.layers) - 1))]
    parts += [
        _layer(name, layer, network) for name, layer in zip(names, network.layers, strict=True)
    ]
    parts += [_prepare(network)]
    if network.whole:
        parts.append(_SCALE)
    parts += [
        _conv(network),
        *(_dense(number, network) for number in range(len(network.layers) - 1)),
        _classify(network),
    ]
    return "\n".join([*parts, "#endif", ""])


def _top(network: Network, title: str) -> str:
    order = "\n".join(
        f"     {number:>2}  {COLUMNS[f].name:<14} {COLUMNS[f].unit.replace('µ', 'u')}"
        for number, f in enumerate(network.features)
    )
    classes = ", ".join(
        f"IDS_{name.upper()} = {number}"
        for number, name in enumerate(CLASSES[: network.shape.classes])
    )
    kind = "int8_t" if network.whole else "float"
    shape = network.shape
    sizes = {
        "INPUTS": shape.inputs,
        "FILTERS": shape.filters,
        "KERNEL": shape.kernel,
        "BEFORE": shape.before,
        "POOL": shape.pool,
        "POOLED": shape.pooled,
        "CLASSES": shape.classes,
        "ONE": network.unit_length,
    }
    listed = ", ".join(f"IDS_{name} = {value}" for name, value in sizes.items())
    return f"""/* {title}
   The class of one direction of a connection. Give ids_prepare its counts, in this order:
{order}
   and what it makes of them to ids_classify. {constants(network)} \
bytes of constants; {arena(network)} bytes of working
   memory, the caller's two arrays included. Include it in one file; not reentrant. */
#ifndef IDS_MODEL_H
#define IDS_MODEL_H
#include <stdint.h>
#ifdef __AVR__
#include <avr/pgmspace.h>
#define IDS_FLASH PROGMEM
#define IDS_READ8(at) ((int8_t)pgm_read_byte(at))
#define IDS_READ32(at) ((int32_t)pgm_read_dword(at))
#define IDS_READF(at) pgm_read_float(at)
#else
#define IDS_FLASH
#define IDS_READ8(at) (*(at))
#define IDS_READ32(at) (*(at))
#define IDS_READF(at) (*(at))
#endif
enum {{ {classes} }};
enum {{ {listed} }};
typedef {kind} ids_value;"""


def _reading(network: Network) -> str:
    if not network.shared:
        return (
            "#define IDS_WEIGHT(table, at) "
            + ("IDS_READ8" if network.whole else "IDS_READF")
            + "(table + (at))"
        )
    return """static inline int8_t ids_shared(const int8_t *codebook, const int8_t *index, \
uint16_t at)
{
    uint8_t two = (uint8_t)IDS_READ8(index + (at >> 1));
    return IDS_READ8(codebook + ((at & 1) ? two >> 4 : two & 15));
}
#define IDS_WEIGHT(table, at) ids_shared(table##_codebook, table, (uint16_t)(at))"""


def _array(kind: str, name: str, values: Sequence[str]) -> str:
    lines, line = [], ""
    for value in values:
        if len(line) + len(value) + 2 > _WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += f"{value}, "
    return (
        f"static const {kind} {name}[{len(values)}] IDS_FLASH = {{\n"
        + "\n".join([*lines, line.rstrip()])
        + "\n};"
    )


def _layer(name: str, layer: Layer, network: Network) -> str:
    weight, bias = layer.weight.ravel(), layer.bias
    if not network.whole:
        tables = [(f"ids_{name}", weight), (f"ids_{name}_bias", bias)]
        return "\n".join(
            _array("float", table, [f"{float(v):.9e}f" for v in values]) for table, values in tables
        )
    biases = _array("int32_t", f"ids_{name}_bias", [str(int(v)) for v in bias])
    if not network.shared:
        return "\n".join([_array("int8_t", f"ids_{name}", [str(int(v)) for v in weight]), biases])
    codebook = np.zeros(CENTROIDS, np.int64)
    codebook[: len(layer.centroids)] = layer.centroids
    index = np.searchsorted(layer.centroids, weight)
    index = np.append(index, 0) if len(index) % 2 else index
    packed = (index[0::2] | index[1::2] << 4).astype(np.uint8).view(np.int8)
    return "\n".join(
        [
            _array("int8_t", f"ids_{name}_codebook", [str(int(v)) for v in codebook]),
            _array("int8_t", f"ids_{name}", [str(int(v)) for v in packed]),
            biases,
        ]
    )


def _prepare(network: Network) -> str:
    if network.whole:
        made = f"unit[i] = (int8_t)(scaled > {TOP} ? {TOP} : scaled);"
    else:
        made = "unit[i] = (float)scaled / (float)IDS_ONE;"
    return f"""
static inline uint16_t ids_log(uint32_t count)
{{
    uint32_t more = (count > {LARGEST}u ? {LARGEST}u : count) + 1u, rest = more;
    uint8_t power = 0;
    while (rest >>= 1)
        power++;
    more = power >= 8 ? more >> (power - 8) : more << (8 - power);
    return (uint16_t)(256u * power + (uint16_t)more - 256u);
}}

static inline uint16_t ids_root(uint32_t square)
{{
    uint32_t root = 0, bit = (uint32_t)1 << 30;
    while (bit > square)
        bit >>= 2;
    for (; bit; bit >>= 2) {{
        if (square >= root + bit) {{
            square -= root + bit;
            root = (root >> 1) + bit;
        }} else {{
            root >>= 1;
        }}
    }}
    return (uint16_t)root;
}}

/* counts[IDS_INPUTS] to the unit[IDS_INPUTS] that ids_classify reads */
static inline void ids_prepare(const uint32_t *counts, ids_value *unit)
{{
    uint32_t square = 0, scaled;
    uint16_t length, i;
    for (i = 0; i < IDS_INPUTS; i++)
        square += (uint32_t)ids_log(counts[i]) * ids_log(counts[i]);
    length = ids_root(square);
    for (i = 0; i < IDS_INPUTS; i++) {{
        scaled = length ? ((uint32_t)IDS_ONE * ids_log(counts[i]) + length / 2) / length : 0;
        scaled = scaled > IDS_ONE ? IDS_ONE : scaled;
        {made}
    }}
}}"""


_SCALE = f"""
static inline int8_t ids_scale(int32_t sum, int32_t multiplier, uint8_t shift)
{{
    int64_t scaled;
    if (sum <= 0)
        return 0;
    scaled = ((int64_t)sum * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
    return (int8_t)(scaled > {TOP} ? {TOP} : scaled);
}}"""


def _sum(network: Network) -> tuple[str, str]:
    """Type of a sum, and how a bias is read."""
    return ("int32_t", "IDS_READ32") if network.whole else ("float", "IDS_READF")


def _handed_on(network: Network, layer: Layer, name: str) -> str:
    if network.whole:
        return f"ids_scale({name}, {layer.multiplier}, {layer.shift})"
    return f"({name} > 0.0f ? {name} : 0.0f)"


def _product(network: Network, weight: str, value: str) -> str:
    return f"(int16_t)({weight} * {value})" if network.whole else f"{weight} * {value}"


def _conv(network: Network) -> str:
    kind, read = _sum(network)
    product = _product(network, "IDS_WEIGHT(ids_conv, f * IDS_KERNEL + k)", "in[i]")
    return f"""
static inline void ids_conv_layer(const ids_value *in, ids_value *out)
{{
    int16_t f, p, t, k, i;
    for (f = 0; f < IDS_FILTERS; f++)
        for (p = 0; p < IDS_POOLED; p++) {{
            {kind} most = 0;
            for (t = 0; t < IDS_POOL; t++) {{
                {kind} sum = {read}(ids_conv_bias + f);
                for (k = 0; k < IDS_KERNEL; k++) {{
                    i = (int16_t)(p * IDS_POOL + t + k - IDS_BEFORE);
                    if (i >= 0 && i < IDS_INPUTS)
                        sum += {product};
                }}
                if (t == 0 || sum > most)
                    most = sum;
            }}
            out[f * IDS_POOLED + p] = {_handed_on(network, network.layers[0], "most")};
        }}
}}"""


def _dense(number: int, network: Network) -> str:
    kind, read = _sum(network)
    inputs, outputs = network.shape.widths[number : number + 2]
    last = number == len(network.layers) - 2
    target = kind if last else "ids_value"
    value = "sum" if last else _handed_on(network, network.layers[number + 1], "sum")
    return f"""
static inline void ids_dense{number}_layer(const ids_value *in, {target} *out)
{{
    uint16_t o, i;
    for (o = 0; o < {outputs}; o++) {{
        {kind} sum = {read}(ids_dense{number}_bias + o);
        for (i = 0; i < {inputs}; i++)
            sum += {_product(network, f"IDS_WEIGHT(ids_dense{number}, o * {inputs} + i)", "in[i]")};
        out[o] = {value};
    }}
}}"""


def _classify(network: Network) -> str:
    kind, _ = _sum(network)
    widths = network.shape.widths[:-1]
    rooms = [
        ("ids_first", max(widths[0::2])),
        *[("ids_second", width) for width in [max(widths[1::2], default=0)] if width],
    ]
    buffers = ("ids_first", "ids_second")
    calls = ["    ids_conv_layer(unit, ids_first);"]
    for number in range(len(network.layers) - 1):
        target = "ids_scores" if number == len(network.layers) - 2 else buffers[(number + 1) % 2]
        calls.append(f"    ids_dense{number}_layer({buffers[number % 2]}, {target});")
    body = "\n".join(calls)
    return f"""
static ids_value {", ".join(f"{name}[{width}]" for name, width in rooms)};
/* what the last ids_classify gave each class */
static {kind} ids_scores[IDS_CLASSES];

/* the class, 0 to IDS_CLASSES - 1 */
static inline int ids_classify(const ids_value *unit)
{{
    int best = 0, i;
{body}
    for (i = 1; i < IDS_CLASSES; i++)
        if (ids_scores[i] > ids_scores[best])
            best = i;
    return best;
}}"""
