"""Checkpoints as bytes: state is a tree of plain values, NumPy arrays and Polars frames; no pickle.

The tree holds dictionaries, lists, strings, numbers, arrays and frames.

    bytes 0–3    `IDSS`
    byte  4      VERSION
    bytes 5–20   BLAKE2b (16 bytes) of what follows
    bytes 21–    zstd of: length of the JSON (4 bytes, little-endian) · JSON · arrays in sequence

In the JSON an array is `{"$array": [dtype, shape, bytes]}`. A frame is
`{"$frame": [[name, dtype, parts], ...]}`: parts are the arrays of the values (0 where a value is
null) and of the nulls. A number that JSON cannot express is `{"$float": "nan"}`. A key of the tree
that begins with `$` gets a second `$`. The bytes of an array's items are transposed (all first
bytes come first), because most of them are zero. The same tree always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa
import zstandard

from ids_plugin.errors import CheckpointError

VERSION = 1
_MAGIC = b"IDSS"
_DIGEST_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + 1 + _DIGEST_BYTES
_COLUMN_DTYPES: dict[str, pl.DataType] = {
    str(dtype): dtype
    for dtype in (
        pl.String(), pl.Boolean(), pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(),
        pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64(), pl.Float32(), pl.Float64(),
        pl.Datetime("us"), pl.Datetime("us", "UTC"), pl.Duration("us"),
    )
}  # fmt: skip
"""Dtypes that the columns of a frame may have, by name."""
_ARRAY_KINDS = "biuf"
"""NumPy kinds that arrays may have: Booleans, integers, floats."""


def dump(tree: Any) -> bytes:
    """The bytes of a tree.

    Raises:
        TypeError: the tree holds a value of another type than the above.
    """
    buffers: list[bytes | memoryview] = []
    text = orjson.dumps(_packed(tree, buffers))
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    parts = [compressor.compress(part) for part in (struct.pack("<I", len(text)), text, *buffers)]
    body = b"".join([*parts, compressor.flush()])
    return b"".join([_MAGIC, bytes([VERSION]), _digest(body), body])


def load(data: bytes) -> Any:
    """The tree that `dump` wrote; its arrays own their memory and are writable.

    Raises:
        CheckpointError: the bytes are damaged, cut short, or of another version.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        raise CheckpointError("not a checkpoint")
    if data[len(_MAGIC) : len(_MAGIC) + 1] != bytes([VERSION]):
        raise CheckpointError(f"a checkpoint of another version than {VERSION}")
    body = data[_HEADER_BYTES:]
    if _digest(body) != data[len(_MAGIC) + 1 : _HEADER_BYTES]:
        raise CheckpointError("the checkpoint is damaged or cut short")
    content = memoryview(zstandard.ZstdDecompressor().decompressobj().decompress(body))
    (length,) = struct.unpack_from("<I", content)
    return _unpacked(orjson.loads(content[4 : 4 + length]), _Buffers(content[4 + length :]))


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


def _packed(value: Any, buffers: list[bytes | memoryview]) -> Any:
    """The JSON form of a value; the contents of arrays are appended to `buffers`."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, dict):
        return {_escaped(key): _packed(child, buffers) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(child, buffers) for child in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in _ARRAY_KINDS:
        buffers.append(_transposed(value))
        return {"$array": [value.dtype.newbyteorder("<").str, list(value.shape), value.nbytes]}
    if isinstance(value, pl.DataFrame):
        columns = [[series.name, str(series.dtype), _parts(series)] for series in value]
        return {"$frame": _packed(columns, buffers)}
    raise TypeError(f"can't be kept: {type(value).__name__}")


def _unpacked(value: Any, buffers: _Buffers) -> Any:
    if isinstance(value, list):
        return [_unpacked(child, buffers) for child in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        dtype, shape, size = value["$array"]
        return _array(dtype, shape, buffers.take(size))
    if "$frame" in value:
        return pl.DataFrame([_column(*column) for column in _unpacked(value["$frame"], buffers)])
    if "$float" in value:
        return float(value["$float"])
    return {
        key[1:] if key.startswith("$") else key: _unpacked(child, buffers)
        for key, child in value.items()
    }


def _escaped(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key can't be kept: {key!r}")
    return f"${key}" if key.startswith("$") else key


class _Buffers:
    """Reads the arrays that follow the JSON, one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._position = content, 0

    def take(self, size: int) -> memoryview:
        start = self._position
        self._position += size
        return self._content[start : self._position]


def _transposed(array: npt.NDArray[Any]) -> memoryview:
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return np.ascontiguousarray(
        little.reshape(-1).view(np.uint8).reshape(-1, array.dtype.itemsize).T
    ).data


def _array(dtype: str, shape: list[int], data: memoryview) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    columns = np.frombuffer(data, np.uint8).reshape(kind.itemsize, -1)
    return columns.T.copy().reshape(-1).view(kind).reshape(shape)


def _parts(column: pl.Series) -> dict[str, Any]:
    """The arrays that a column is made of."""
    if str(column.dtype) not in _COLUMN_DTYPES:
        raise TypeError(f"a column can't be kept: {column.dtype}")
    null = {"null": column.is_null().to_numpy()} if column.null_count() else {}
    if column.dtype != pl.String:
        return null | {"values": column.to_physical().fill_null(value=0).to_numpy()}
    text = column.fill_null("")
    joined = str(text.str.join().item()).encode()
    return null | {
        "lengths": text.str.len_bytes().to_numpy(),
        "text": np.frombuffer(joined, np.uint8),
    }


def _column(name: str, dtype: str, parts: dict[str, npt.NDArray[Any]]) -> pl.Series:
    if dtype == "String":
        ends = np.cumsum(np.r_[0, parts["lengths"].astype(np.int64)])
        buffers = (pa.py_buffer(ends), pa.py_buffer(parts["text"]))
        column = pl.Series(name, pa.LargeStringArray.from_buffers(len(ends) - 1, *buffers))
    else:
        column = pl.Series(name, parts["values"]).cast(_COLUMN_DTYPES[dtype])
    if "null" not in parts:
        return column
    return (
        column.to_frame()
        .select(pl.when(pl.Series(~parts["null"])).then(pl.col(name)).alias(name))
        .to_series()
    )
