"""A kind of scoring member: a host that is refused by many others is scanning.

Its file in the bundle is JSON: how many hosts must have refused before it votes, and how sure it
then is.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from ids_plugin.bundle import Bundle, MemberEntry
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.windows import spec

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
COUNTED = "orig_acts_failed_services_600s"
"""services of other hosts that failed the originator in ten minutes, on a log scale"""
BENIGN, SCAN = CLASSES.index("benign"), CLASSES.index("scan")
CALM = 0.02
"""probability of a scan while too few have refused"""


class Refusals:
    """Votes for `scan` from a number of refusals on."""

    def __init__(self, least: float, certainty: float) -> None:
        self._least, self._certainty = least, certainty
        names = [feature.name for feature in spec().table]
        self._column = names.index(COUNTED)

    def probabilities(self, steps: Floats, mask: Bools, table: Floats) -> Doubles:
        """(m, len(CLASSES)): scan or benign, nothing between."""
        refused = np.expm1(np.nan_to_num(table[:, self._column].astype(np.float64)))
        scan = np.where(refused >= self._least, self._certainty, CALM)
        result = np.zeros((len(table), len(CLASSES)))
        result[:, SCAN], result[:, BENIGN] = scan, 1 - scan
        return result


class RefusalsKind:
    """Opens members of the kind `refusals`."""

    name = "refusals"

    def open(self, bundle: Bundle, entry: MemberEntry) -> Refusals:
        """The member that an entry of the manifest describes.

        Raises:
            BundleError: its file is no such JSON.
        """
        try:
            settings: dict[str, Any] = json.loads(bundle.file(entry.require_file()))
            return Refusals(float(settings["least"]), float(settings["certainty"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"no settings of refusals: {error!r}", location=entry.file) from error


PLUGIN = RefusalsKind()
