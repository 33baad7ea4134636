"""Flows of a sensor → profiles of its contacts, the same for serving and for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ids_plugin.detectors.contact_profile.facts import (
    LOOKUP_FEATURES,
    FactMemory,
    contact_flows,
    is_tracked,
    lookup_features,
)
from ids_plugin.schema.window import Floats, Ints
from ids_plugin.windows.contacts import FEATURE_NAMES, WINDOW_FLOWS, Contacts, Keys


class Profiles(NamedTuple):
    """The m flows of a batch at which a contact is judged."""

    rows: Ints
    """(m) of the batch, ascending"""
    features: Floats
    """(m, model.NAMES)"""
    peer_hosts: Ints
    """(m) hosts that have dealt with the peer on this port"""
    tokens: Keys
    """(m, WINDOW_FLOWS) the flows behind the features, latest last"""
    flows: Ints
    """(m) flows of the contact so far"""
    contact: Keys
    """(m) key of the contact"""

    def take(self, positions: Ints) -> Profiles:
        """Some of them."""
        return Profiles(
            self.rows[positions],
            self.features[positions],
            self.peer_hosts[positions],
            self.tokens[positions],
            self.flows[positions],
            self.contact[positions],
        )


class ProfileMemory:
    """The contacts of a sensor, and what has to be remembered to read facts."""

    def __init__(self) -> None:
        self.contacts, self.facts = Contacts(), FactMemory()

    def step(self, flows: pl.DataFrame) -> Profiles:
        """Profiles of a Flow frame in known order, with `clock` and the fact columns."""
        tracked = flows.select(is_tracked().fill_null(value=False).alias("is_tracked"))
        positions = np.flatnonzero(tracked["is_tracked"].to_numpy())
        if not len(positions):
            return _nothing()
        flows = flows[positions]
        arrays = contact_flows(flows, self.facts)
        lookups = lookup_features(flows, arrays, self.facts)
        parts = self.contacts.step(arrays)
        own = np.concatenate([part.row for part in parts])
        profile = np.concatenate([part.features for part in parts])
        return Profiles(
            positions[own],
            np.concatenate([profile, lookups[own]], axis=1).astype(np.float32),
            np.concatenate([part.peer_hosts for part in parts]),
            np.concatenate([part.tokens.T for part in parts]),
            np.concatenate([part.count for part in parts]),
            np.concatenate([part.contact for part in parts]),
        )

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers."""
        return {"contacts": self.contacts.state(), "facts": self.facts.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        self.contacts.restore(state["contacts"])
        self.facts.restore(state["facts"])


def _nothing() -> Profiles:
    numbers = np.zeros(0, np.int64)
    columns = len(FEATURE_NAMES) + len(LOOKUP_FEATURES)
    keys = np.zeros(0, np.uint64)
    tokens = np.zeros((0, WINDOW_FLOWS), np.uint64)
    return Profiles(numbers, np.zeros((0, columns), np.float32), numbers, tokens, numbers, keys)
