"""The bundles in the package, by what they are made of."""

from __future__ import annotations

from functools import cache

from ids_plugin import bundle
from ids_plugin.bundle import Bundle


@cache
def window_bundle() -> Bundle:
    """A shipped bundle whose members score windows."""
    return next(
        made for made in _bundles() if made.manifest.combination and not made.manifest.detectors
    )


@cache
def detector_bundle() -> Bundle:
    """A shipped bundle with a detector for each class."""
    return next(made for made in _bundles() if made.manifest.detectors)


@cache
def _bundles() -> tuple[Bundle, ...]:
    return tuple(bundle.read(bundle.find(name)) for name in bundle.shipped())
