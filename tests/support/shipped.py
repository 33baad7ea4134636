"""The bundles in the package, by what they are made of."""

from __future__ import annotations

from functools import cache

from ids_plugin import bundle
from ids_plugin.bundle import Bundle


@cache
def window_bundle() -> Bundle:
    """A shipped bundle whose members score windows."""
    bundles = [bundle.read(bundle.find(name)) for name in bundle.shipped()]
    return next(
        made for made in bundles if made.manifest.combination and not made.manifest.detectors
    )
