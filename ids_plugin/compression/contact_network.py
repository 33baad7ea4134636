"""The network of a control detector in int8: a bundle with it → a smaller, faster bundle."""

from __future__ import annotations

from ids_plugin.bundle import Bundle, seal
from ids_plugin.compression.int8 import quantised
from ids_plugin.detectors.contact_profile.network import ContactNetwork, NetworkInputs

STEP = "int8"


def with_small_networks(bundle: Bundle, shown: NetworkInputs) -> Bundle:
    """The bundle with every network of contacts in static int8; a bundle without one stays.

    Args:
        shown: inputs like those that it will see; they fix the scales.
    """
    files = dict(bundle.files)
    costs = []
    for entry in bundle.manifest.detectors:
        name = entry.document.get("files", {}).get("network")
        if name is None:
            continue
        before = files[name]
        files[name] = quantised(before, shown)
        moved = ContactNetwork(before, name).probability(shown) - ContactNetwork(
            files[name], name
        ).probability(shown)
        costs.append(
            {
                "step": STEP,
                "file": name,
                "bytes_before": len(before),
                "bytes": len(files[name]),
                "largest_change": round(float(abs(moved).max()), 4),
                "mean_change": round(float(abs(moved).mean()), 5),
            }
        )
    if not costs:
        return bundle
    steps = [*bundle.manifest.compression, *costs]
    return seal(bundle.manifest.replaced(compression=steps), files)
