"""LightGBM's own C library, through ctypes: the Python package would import pandas and scikit-learn
where they are.

https://lightgbm.readthedocs.io/en/stable/C-API.html; exact tree contributions are TreeSHAP
(Lundberg et al. 2020)."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle, MemberEntry
from ids_plugin.errors import BundleError, MissingExtraError
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import Bools, Floats
from ids_plugin.scoring import Doubles

_FLOAT32 = 0
_PROBABILITY, _RAW, _CONTRIBUTION = 0, 1, 3
_PARAMETERS = b"num_threads=1"


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    libraries = [] if folder is None else sorted(folder.glob("**/*lib_lightgbm.*"))
    if not libraries:
        raise MissingExtraError("LightGBM's library is not installed", hint="pip install lightgbm")
    library = ctypes.CDLL(str(libraries[0]))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


class Trees:
    """A LightGBM model in memory."""

    def __init__(self, text: bytes, location: str = "lightgbm.txt") -> None:
        self._handle = ctypes.c_void_p()
        self._location = location
        library, iterations, outputs, inputs = (
            _library(),
            ctypes.c_int(),
            ctypes.c_int(),
            ctypes.c_int(),
        )
        self._call(
            library.LGBM_BoosterLoadModelFromString,
            text,
            ctypes.byref(iterations),
            ctypes.byref(self._handle),
        )
        self._call(library.LGBM_BoosterGetNumClasses, self._handle, ctypes.byref(outputs))
        self._call(library.LGBM_BoosterGetNumFeature, self._handle, ctypes.byref(inputs))
        self.outputs, self.inputs = outputs.value, inputs.value
        """numbers of outputs (1 for a yes/no model, otherwise one per class) and of columns"""

    def __del__(self) -> None:
        if self._handle and not sys.is_finalizing():
            _library().LGBM_BoosterFree(self._handle)

    def probabilities(self, rows: Floats) -> Doubles:
        """(m, outputs) from rows (m, inputs), float32 in C or Fortran order, NaN where unknown."""
        return self._predict(rows, _PROBABILITY, self.outputs)

    def raw(self, rows: Floats) -> Doubles:
        """(m, outputs): the sums of leaves, before the link function."""
        return self._predict(rows, _RAW, self.outputs)

    def contributions(self, rows: Floats) -> Doubles:
        """(m, outputs, inputs + 1): TreeSHAP values, the last column the expected value; their sum
        is `raw`."""
        flat = self._predict(rows, _CONTRIBUTION, self.outputs * (self.inputs + 1))
        return flat.reshape(len(rows), self.outputs, self.inputs + 1)

    def _predict(self, rows: Floats, kind: int, width: int) -> Doubles:
        if rows.ndim != 2 or rows.shape[1] != self.inputs or rows.dtype != np.float32:
            raise ValueError(
                f"wants float32 rows of {self.inputs} columns, not {rows.dtype} {rows.shape}"
            )
        out: npt.NDArray[np.float64] = np.empty((len(rows), width))
        if not len(rows):
            return out
        by_row = not rows.flags.f_contiguous or rows.flags.c_contiguous
        data = np.ascontiguousarray(rows) if by_row else rows
        self._call(
            _library().LGBM_BoosterPredictForMat,
            self._handle,
            data.ctypes.data_as(ctypes.c_void_p),
            _FLOAT32,
            ctypes.c_int32(len(rows)),
            ctypes.c_int32(self.inputs),
            int(by_row),
            kind,
            0,
            -1,
            _PARAMETERS,
            ctypes.byref(ctypes.c_int64()),
            out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        )
        return out

    def _call(self, function: Callable[..., int], *arguments: object) -> None:
        if function(*arguments):
            raise BundleError(
                f"LightGBM: {_library().LGBM_GetLastError().decode()}", location=self._location
            )


class TreeMember:
    """Trees over `Windows.table`; exact contributions of every feature."""

    contribution_method = "tree_shap"

    def __init__(self, trees: Trees, classes: tuple[int, ...]) -> None:
        self._trees = trees
        self._classes = list(classes)

    def probabilities(self, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        """As scoring.Member."""
        out = np.zeros((len(table), len(CLASSES)))
        out[:, self._classes] = self._trees.probabilities(table)
        return out

    def contributions(self, table: Floats, label: int) -> Doubles:
        """As scoring.ContributingMember: TreeSHAP contributions to the raw score of class
        `label`."""
        if label not in self._classes:
            return np.zeros((len(table), table.shape[1] + 1))
        return self._trees.contributions(table)[:, self._classes.index(label)]


class LightGBM:
    """Member kind `lightgbm`: entry {name, file, classes}."""

    name = "lightgbm"

    def open(self, bundle: Bundle, entry: MemberEntry) -> TreeMember:
        """As scoring.Plugin."""
        file = entry.require_file()
        trees = Trees(bundle.file(file), f"{bundle.location}/{file}")
        classes = tuple(CLASSES.index(name) for name in entry.classes)
        if trees.outputs != len(classes):
            raise BundleError(
                f"{trees.outputs} outputs for {len(classes)} classes", location=bundle.location
            )
        return TreeMember(trees, classes)


PLUGIN = LightGBM()
