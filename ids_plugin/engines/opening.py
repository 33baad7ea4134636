"""Chooses the engine that fits a bundle."""

from __future__ import annotations

from ids_plugin.bundle import Bundle
from ids_plugin.engines import Engine
from ids_plugin.engines.detectors import DetectorEngine
from ids_plugin.engines.windows import WindowEngine
from ids_plugin.windows.state import Limits


def open_engine(bundle: Bundle, *, cascade: bool = True, limits: Limits | None = None) -> Engine:
    """The engine of a bundle.

    Args:
        cascade: let a prefilter spare ordinary flows the members that cost most.
        limits: what a sensor's state may grow to.

    Raises:
        BundleError: the bundle doesn't load, or was made for other windows.
    """
    if bundle.manifest.detectors:
        return DetectorEngine(bundle, limits=limits)
    return WindowEngine(bundle, cascade=cascade, limits=limits)
