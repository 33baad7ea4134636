"""Trees, a logistic model and maybe a network over contact profiles, averaged; the odds fall with
the hosts that share the peer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ids_plugin.detectors import Doubles
from ids_plugin.detectors.contact_profile.facts import LOOKUP_FEATURES
from ids_plugin.detectors.contact_profile.network import (
    ContactNetwork,
    NetworkInputs,
    network_inputs,
)
from ids_plugin.detectors.contact_profile.profiles import Profiles
from ids_plugin.schema.window import Floats
from ids_plugin.scoring.lightgbm import Trees
from ids_plugin.windows.contacts import FACTS, FEATURES, Ints

COLUMNS: tuple[tuple[str, str, str], ...] = (*FEATURES, *FACTS, *LOOKUP_FEATURES)
"""name, unit and meaning of every column that the models see"""
NAMES: tuple[str, ...] = tuple(name for name, _, _ in COLUMNS)
FACT_COLUMN_START = len(FEATURES)
"""from here on columns are facts of other logs than conn"""
SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Logistic:
    """A logistic model over clipped, standardised columns; an unknown column adds nothing."""

    low: Doubles
    high: Doubles
    mean: Doubles
    scale: Doubles
    coefficients: Doubles
    intercept: float

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Logistic:
        """From its JSON.

        Raises:
            ValueError: it was made for other columns.
            KeyError, TypeError: it is no such document.
        """
        if tuple(document["features"]) != NAMES:
            raise ValueError("it was made for other columns")
        low, high, mean, scale, coefficients = (
            np.array([np.nan if value is None else value for value in document[name]], np.float64)
            for name in ("low", "high", "mean", "scale", "coefficients")
        )
        return cls(low, high, mean, scale, coefficients, float(document["intercept"]))

    def contributions(self, rows: Floats) -> Doubles:
        """(m, COLUMNS): what each column adds to the log-odds."""
        standard = (np.clip(rows.astype(np.float64), self.low, self.high) - self.mean) / self.scale
        return np.asarray(np.nan_to_num(standard * self.coefficients))

    def probability(self, rows: Floats) -> Doubles:
        """(m) summed column by column, so that a row's result doesn't depend on the batch."""
        total = np.full(len(rows), self.intercept)
        for column in self.contributions(rows).T:
            total += column
        return np.asarray(1 / (1 + np.exp(-total)))


@dataclass(frozen=True)
class Calibration:
    """How often benign traffic reaches a score: (score, alerts a day), highest score first."""

    points: npt.NDArray[np.float64]

    def days_between(self, score: Doubles) -> Doubles:
        """(m) days of benign traffic in which such a score comes once."""
        rising = self.points[::-1]
        return np.asarray(np.exp(-np.interp(score, rising[:, 0], np.log(rising[:, 1]))))


@dataclass(frozen=True)
class ContactModel:
    """The models of a bundle, and what their scores are worth."""

    trees: Trees
    logistic: Logistic
    network: ContactNetwork | None
    linear_weight: float
    """of the logistic model beside the trees"""
    network_weight: float
    """of the network beside both; 0 where there is none"""
    network_floor: float
    """mean of the other two below which the network isn't asked"""
    shared_penalty: float
    """log-odds that a peer loses with every doubling of the hosts that deal with it"""
    with_logs: Calibration
    """for contacts of which another log says something"""
    conn_only: Calibration

    @classmethod
    def read(cls, files: Mapping[str, bytes], location: str) -> ContactModel:
        """From `settings`, `logistic`, `trees` and, maybe, `network`.

        Raises:
            ValueError, KeyError, TypeError: a file is no such document, or was made for other
                columns.
            BundleError: the trees or the network don't load.
        """
        document = json.loads(files["settings"])
        trees = Trees(files["trees"], f"{location}, trees of contacts")
        if trees.inputs != len(NAMES):
            raise ValueError(f"its trees have {trees.inputs} columns, not {len(NAMES)}")
        network = None
        if "network" in files:
            network = ContactNetwork(files["network"], f"{location}, network of contacts")
        return cls(
            trees,
            Logistic.read(json.loads(files["logistic"])),
            network,
            float(document["linear"]),
            0.0 if network is None else float(document["network"]),
            float(document.get("network_floor", 0.0)),
            float(document["shared"]),
            *(
                Calibration(np.array(document["calibration"][name], np.float64))
                for name in ("with_logs", "conn_only")
            ),
        )

    def score(self, profiles: Profiles) -> Doubles:
        """(m) score, before calibration."""
        mean = (1 - self.linear_weight) * self.trees.probabilities(profiles.features)[:, 0]
        mean = mean + self.linear_weight * self.logistic.probability(profiles.features)
        if self.network is not None:
            asked = np.flatnonzero(mean >= self.network_floor)
            vote = self.network.probability(network_inputs_of(profiles.take(asked)))
            mean[asked] = (1 - self.network_weight) * mean[asked] + self.network_weight * vote
        return penalised(mean, profiles.peer_hosts, self.shared_penalty)

    def attention(self, profiles: Profiles) -> Doubles | None:
        """(m, WINDOW_FLOWS) what the network looked at; None without a network."""
        if self.network is None:
            return None
        return self.network.attention(network_inputs_of(profiles))

    def days_between(self, score: Doubles, has_logs: npt.NDArray[np.bool_]) -> Doubles:
        """(m) days of benign traffic in which such a score comes once."""
        return np.where(
            has_logs, self.with_logs.days_between(score), self.conn_only.days_between(score)
        )

    def contributions(self, rows: Floats) -> Doubles:
        """(m, COLUMNS): what each column adds to the log-odds, by trees and logistic model, weighed
        as they vote."""
        trees = self.trees.contributions(rows)[:, 0, :-1]
        logistic = self.logistic.contributions(rows)
        both = (1 - self.linear_weight) * trees + self.linear_weight * logistic
        return np.asarray((1 - self.network_weight) * both)


def penalised(probability: Doubles, peer_hosts: Ints, penalty: float) -> Doubles:
    """(m) the probability with its log-odds lowered for every doubling of the hosts that share the
    peer."""
    inside = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    odds = np.log(inside / (1 - inside)) - penalty * np.log2(peer_hosts)
    return np.asarray(1 / (1 + np.exp(-odds)))


def network_inputs_of(profiles: Profiles) -> NetworkInputs:
    """What the network reads of profiles."""
    return network_inputs(profiles.tokens, profiles.flows, profiles.features)


def has_log_facts(rows: Floats) -> npt.NDArray[np.bool_]:
    """(m) whether a fact of another log than conn is known."""
    return np.asarray(~np.isnan(rows[:, FACT_COLUMN_START:]).all(axis=1))
