"""A checkpoint comes back exactly, in the same bytes, or not at all."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ids_plugin import checkpoint
from ids_plugin.errors import CheckpointError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
texts = st.text(max_size=5)
keys = st.one_of(texts, st.sampled_from(["$", "$array", "$$frame", "$float"]))
arrays = st.tuples(
    st.sampled_from(["?", "i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i4"]),
    st.sampled_from([(0,), (1,), (7,), (0, 3), (2, 3), (2, 0, 2), ()]),
    st.integers(0, 1 << 32),
).map(lambda drawn: drawn_array(*drawn))
columns: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "text": (pl.String(), texts),
    "flag": (pl.Boolean(), st.booleans()),
    "port": (pl.UInt16(), st.integers(0, 65_535)),
    "bytes": (pl.Int64(), st.integers(-(1 << 63), (1 << 63) - 1)),
    "share": (pl.Float32(), st.sampled_from([0.0, -1.5, math.inf])),
    "ts": (
        pl.Datetime("us", "UTC"),
        st.integers(0, 1 << 50).map(lambda us: EPOCH + dt.timedelta(microseconds=us)),
    ),
    "took": (
        pl.Duration("us"),
        st.integers(0, 1 << 40).map(lambda us: dt.timedelta(microseconds=us)),
    ),
}
rows = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in columns.items()}),
    max_size=9,
)
frames = rows.map(
    lambda drawn: pl.DataFrame(drawn, schema={name: dtype for name, (dtype, _) in columns.items()})
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    texts,
    arrays,
    frames,
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def drawn_array(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    data = (
        np.random.default_rng(seed)
        .integers(0, 2 if kind.kind == "b" else 256, size)
        .astype(np.uint8)
    )
    return data.view(kind).reshape(shape)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        little = left.astype(left.dtype.newbyteorder("<"))
        return bool(
            left.shape == right.shape
            and little.dtype == right.dtype
            and little.tobytes() == right.tobytes()
        )
    if isinstance(left, pl.DataFrame):
        return bool(left.schema == right.schema and left.equals(right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


@settings(max_examples=200)
@given(trees)
def test_what_was_kept_comes_back(tree: Any) -> None:
    data = checkpoint.dump(tree)
    loaded = checkpoint.load(data)
    assert same(tree, loaded)
    assert checkpoint.dump(loaded) == data


@settings(max_examples=100)
@given(trees, st.data())
def test_damage_is_noticed(tree: Any, drawn: st.DataObject) -> None:
    data = checkpoint.dump(tree)
    position = drawn.draw(st.integers(0, len(data) - 1))
    flipped = bytes([data[position] ^ drawn.draw(st.integers(1, 255))])
    with pytest.raises(CheckpointError):
        checkpoint.load(data[:position] + flipped + data[position + 1 :])
    with pytest.raises(CheckpointError):
        checkpoint.load(data[:position])
    with pytest.raises(CheckpointError):
        checkpoint.load(data + flipped)


def test_arrays_that_came_back_can_be_written_to() -> None:
    for array in (np.zeros(3, np.int8), np.zeros((2, 2), np.float64), np.zeros(0, np.int64)):
        checkpoint.load(checkpoint.dump(array))[...] = 7


@pytest.mark.parametrize(
    "odd", [b"bytes", {1: 2}, np.array(["a"]), object(), pl.DataFrame({"a": [[1]]}), 1 << 70]
)
def test_what_cannot_be_kept_is_refused(odd: Any) -> None:
    with pytest.raises(TypeError):
        checkpoint.dump({"here": [odd]})


def test_mostly_zeros_take_no_room() -> None:
    assert len(checkpoint.dump(np.arange(100_000, dtype=np.int64) // 1000)) < 2_000
