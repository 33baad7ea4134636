"""What `bundle show` says of a bundle with detectors."""

from __future__ import annotations

from typing import Any

import pytest

from ids_plugin.bundle import Bundle, seal
from ids_plugin.bundle.card import MAX_SOURCES, card
from ids_plugin.errors import BundleError
from tests.support import toy_detectors


def described(*changes: dict[str, Any]) -> Bundle:
    """The toy bundle whose entries say more."""
    made = toy_detectors.bundle()
    entries = [
        {**entry.document, **more}
        for entry, more in zip(made.manifest.detectors, changes, strict=True)
    ]
    return seal(made.manifest.replaced(detectors=entries), made.files)


def lines(bundle: Bundle) -> list[str]:
    return [f"{name}: {text}" for name, text in card(bundle)]


def test_detectors_and_their_thresholds_are_named() -> None:
    shown = lines(toy_detectors.bundle())
    rules = "detector: counters, kind counters: each class alerts at the thresholds of its rules"
    assert rules in shown
    assert (
        "detector: control, kind contacts: "
        "alerts where benign traffic shows the like once in 1.5 days" in shown
    )
    assert not any(line.startswith(("members", "window", "compression")) for line in shown)


def test_thresholds_of_a_calibration_are_shown() -> None:
    shown = lines(described({"thresholds": {"scan": 0.625, "flood": 1.0}}, {"days_between": 12}))
    assert "detector: counters, kind counters: alerts from scores of flood never, scan 0.6250" in (
        shown
    )
    assert any("once in 12 days" in line for line in shown)


def test_sources_figures_and_weak_spots_are_shown() -> None:
    sources = [f"set {number}" for number in range(MAX_SOURCES + 3)]
    shown = lines(
        described(
            {"classes": ["scan", "flood"]},
            {
                "classes": ["command_and_control"],
                "trained_on": {"sources": sources, "captures": 741, "flows": 284611, "hours": 80},
                "figures": {"found": 16, "false alerts a day": 0.3},
                "weak_spots": ["one long connection isn't seen"],
            },
        )
    )
    (trained,) = (line for line in shown if line.startswith("control: trained on"))
    assert trained.endswith("set 11, 3 more: 741 captures, 284,611 flows, 80.0 h")
    assert "control: measured: found 16, false alerts a day 0.3" in shown
    assert "weak spot: control: one long connection isn't seen" in shown
    assert "counters: names: scan, flood" in shown
    (unnamed,) = (line for line in shown if line.startswith("weak spot: no detector names"))
    assert "exfiltration" in unnamed
    assert "scan" not in unnamed


def test_keys_of_another_type_are_refused() -> None:
    with pytest.raises(BundleError, match=r"detectors\[1\]\.figures\.found has to be a number"):
        described({}, {"figures": {"found": "many"}})
