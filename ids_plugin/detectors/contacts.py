"""Remote control: a host's dealings with one peer, judged from the fifth flow on by what repeats
and what is said.

The score says how rare such a contact is in benign traffic: days / (1 + days), where benign traffic
shows one in so many days. An alert group stays open for a day, so that a controller that is polled
for weeks alerts once a day.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ids_plugin.bundle import Bundle
from ids_plugin.detectors import Findings, SensorDetector
from ids_plugin.detectors.contact_profile.drift import DriftCounts
from ids_plugin.detectors.contact_profile.evidence import Baselines, ContactEvidence
from ids_plugin.detectors.contact_profile.facts import with_fact_columns
from ids_plugin.detectors.contact_profile.model import ContactModel, has_log_facts
from ids_plugin.detectors.contact_profile.profiles import ProfileMemory
from ids_plugin.errors import BundleError
from ids_plugin.schema.score import CLASSES
from ids_plugin.windows.state import BatchWindows

LABEL = CLASSES.index("command_and_control")
DAY_US = 86_400_000_000
DEFAULT_DAYS_BETWEEN = 3.0
"""Days of benign traffic in which a contact alerts once, unless the bundle says otherwise."""
NOTABLE_SCORE = 0.2
"""Scores below it are no findings."""
SURE_DAYS_BETWEEN = 10.0
"""Contacts that benign traffic shows more often alert with less than the severity of their
class."""
MOST_DAYS_BETWEEN = 1e6
"""a threshold that no score exceeds"""


class ContactDetector:
    """A model of contacts, with the threshold of a bundle."""

    def __init__(
        self, name: str, model: ContactModel, days_between: float, baselines: Baselines
    ) -> None:
        """
        Args:
            days_between: days of benign traffic in which a contact may alert once.
            baselines: what benign contacts show.
        """
        self.name = name
        self.model = model
        self.threshold = days_between / (1 + days_between)
        self.thresholds = {CLASSES[LABEL]: self.threshold}
        self.lowest_score = min(NOTABLE_SCORE, self.threshold)
        self.baselines = baselines

    def sensor(self, before: SensorDetector | None = None) -> SensorDetector:
        """The contacts of a sensor; they don't depend on the bundle."""
        if isinstance(before, ContactMemory):
            return ContactMemory(self, before.profiles)
        return ContactMemory(self, ProfileMemory())


class ContactMemory:
    """The contacts of one sensor."""

    def __init__(self, detector: ContactDetector, profiles: ProfileMemory) -> None:
        self._detector = detector
        self.profiles = profiles
        self._drift = DriftCounts(detector.baselines)

    def drift(self) -> dict[str, tuple[int, int]]:
        """Column → values outside of the range of benign training contacts, and values known."""
        return self._drift.counts()

    def step(self, windows: BatchWindows) -> Findings:
        """Flows of contacts that are rare in benign traffic."""
        detector = self._detector
        flows = with_fact_columns(windows.flows)
        profiles = self.profiles.step(flows)
        self._drift.add(profiles.features)
        score = detector.model.score(profiles)
        days = detector.model.days_between(score, has_log_facts(profiles.features))
        calibrated = days / (1 + days)
        notable = np.flatnonzero(calibrated >= detector.lowest_score)
        count = len(notable)
        chosen = profiles.take(notable)
        return Findings(
            rows=chosen.rows,
            label=np.full(count, LABEL, np.int64),
            score=calibrated[notable],
            threshold=np.full(count, detector.threshold),
            is_target=np.zeros(count, np.bool_),
            quiet_us=np.full(count, DAY_US, np.int64),
            explain=ContactEvidence(
                detector.model,
                windows,
                flows,
                chosen,
                score[notable],
                days[notable],
                detector.baselines,
            ),
            doubt=(days[notable] < SURE_DAYS_BETWEEN).astype(np.int64),
        )

    def state(self) -> dict[str, Any]:
        """The contacts', what is remembered to read facts, and the counts of drift."""
        return {**self.profiles.state(), "drift": self._drift.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self.profiles.restore(state)
        self._drift.restore(state.get("drift", {}))


class ContactKind:
    """Models over contact profiles: entry {name, files: {settings, logistic, trees, baselines,
    network?}, days_between}."""

    name = "contacts"

    def open(self, bundle: Bundle, entry: Mapping[str, Any]) -> ContactDetector:
        """The detector of a bundle's files.

        Raises:
            BundleError: a file is no such document, or was made for other columns.
        """
        try:
            files = {name: bundle.file(file) for name, file in entry["files"].items()}
            model = ContactModel.read(files, bundle.location)
            baselines = {
                str(column): tuple(map(float, numbers))
                for column, numbers in json.loads(files["baselines"]).items()
            }
            days_between = float(entry.get("days_between", DEFAULT_DAYS_BETWEEN))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"no model of contacts: {error!r}", location=str(entry.get("files"))
            ) from error
        return ContactDetector(entry["name"], model, days_between, baselines)

    def with_thresholds(
        self, entry: Mapping[str, Any], thresholds: Mapping[str, float]
    ) -> dict[str, Any]:
        """The entry with the days between two alerts that a threshold means, rounded up."""
        threshold = thresholds[CLASSES[LABEL]]
        days = threshold / (1 - threshold) if threshold < 1 else MOST_DAYS_BETWEEN
        rounded = math.ceil(round(min(days, MOST_DAYS_BETWEEN) * 1e6, 3)) / 1e6
        return {**entry, "days_between": rounded}


PLUGIN = ContactKind()
