"""docs/detection.md has the rules, thresholds and columns of the code and the default bundle."""

from __future__ import annotations

from ids_plugin.detectors.counting.rules import DETECTORS
from tests.support import detection_page


def test_the_tables_are_those_of_the_code() -> None:
    page = detection_page.PAGE.read_text()
    assert page == detection_page.with_tables(page), "python -m tests.support.detection_page"


def test_every_rule_has_its_reason() -> None:
    rules = {(detector.label, rule.name) for detector in DETECTORS for rule in detector.rules}
    assert rules == detection_page.REASONS.keys()
