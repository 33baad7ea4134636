"""Trains the control detector: trees, a logistic model and an attention network over contacts.

What it promises, alerts a benign day, is measured out of fold: every score by models that saw
neither the source nor the malware family of the capture.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression

from ids_plugin.detectors.contact_profile.model import (
    FACT_COLUMN_START,
    NAMES,
    Logistic,
    penalised,
)
from ids_plugin.models.contact_attention import ContactAttention
from ids_plugin.training.contacts.examples import (
    BENIGN,
    CONTROL,
    UNCERTAIN,
    Bools,
    ContactExamples,
    Doubles,
    Floats,
    Ints,
)
from ids_plugin.training.contacts.network import (
    NetworkFit,
    fit_network,
    network_probability,
)

MONOTONE: Mapping[str, int] = {
    "port_peers": -1,
    "high_ports": -1,
    "looked_up": -1,
    "http_address": 1,
    "tls_self_signed": 1,
    "tls_name_mismatch": 1,
    "http_rare_agent": 1,
    "uri_mode": 1,
    "http_no_agent": 1,
    "tls_no_name": 1,
}
"""column → way in which alone it may move the trees' score"""
LOWEST_QUANTILE, HIGHEST_QUANTILE = 0.005, 0.995
JITTERED_COPIES = 2


@dataclass(frozen=True)
class ContactFit:
    """How the voters are fitted; found on left-out families of sources."""

    trees: int = 200
    leaves: int = 8
    rows_of_leaf: int = 20
    rows: int = 40
    """of a contact, at most"""
    jitter: float = 0.2
    """of the trees' columns, in standard deviations"""
    c: float = 0.2
    """inverse penalty of the logistic model"""
    linear_weight: float = 0.5
    network_weight: float = 1 / 3
    network_floor: float = 0.2
    """What trees and logistic model give less to, the network isn't asked about: its vote could
    carry it to no threshold."""
    shared_penalty: float = 1.5
    uncertain_weight: float = 0.5
    """of what is only probably normal, beside 1"""
    source_damping: float = 0.5
    """power of a source's weight by which it counts less"""
    has_network: bool = True
    excluded: tuple[str, ...] = ("idpstool",)
    """sources whose attacks aren't learnt from: a peer-to-peer botnet teaches that peer-to-peer
    traffic is control"""
    network: NetworkFit = field(default_factory=NetworkFit)


class Voters(NamedTuple):
    """The models, fitted."""

    trees: lgb.Booster
    logistic: Logistic
    network: ContactAttention | None


class Votes(NamedTuple):
    """(n) probabilities of each voter, before the penalty of shared peers."""

    trees: Doubles
    logistic: Doubles
    network: Doubles | None

    def combined(self, peer_hosts: Ints, fit: ContactFit) -> Doubles:
        """(n) the score of all."""
        mean = (1 - fit.linear_weight) * self.trees + fit.linear_weight * self.logistic
        if self.network is not None:
            joined = (1 - fit.network_weight) * mean + fit.network_weight * self.network
            mean = np.where(mean >= fit.network_floor, joined, mean)
        return penalised(mean, peer_hosts, fit.shared_penalty)


def sample(contact: Ints, rows: Ints, limit: int, random: np.random.Generator) -> Ints:
    """At most `limit` of the rows of every contact, ascending."""
    shuffled = random.permutation(rows)
    order = shuffled[np.argsort(contact[shuffled], kind="stable")]
    numbers = contact[order]
    first = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    return np.sort(order[rank < limit])


def weights(data: ContactExamples, fit: ContactFit) -> Doubles:
    """(n) 1 on average: contacts alike, malware families and captures by the root of what they
    bring, then sources likewise; both classes together alike."""
    is_control = data.label == CONTROL
    _, contact, count = np.unique(data.contact, return_inverse=True, return_counts=True)
    weight = 1.0 / count[contact]
    names = np.array(
        ["|".join(sorted(capture.malware)) for capture in data.captures] or [""], object
    )
    own = np.array([capture.name for capture in data.captures], object)
    family = np.where(is_control, names[data.capture], own[data.capture])
    kind = np.where(is_control, "", data.kind)
    for group in (family, data.source + "\n" + kind):
        number = np.unique(group.astype(str), return_inverse=True)[1]
        weight *= np.bincount(number, weight)[number] ** -fit.source_damping
    is_attack_capture = data.kind == "attack"
    is_uncertain = (data.label == UNCERTAIN) | ((data.label == BENIGN) & is_attack_capture)
    weight[is_uncertain] *= fit.uncertain_weight
    for part in (is_control, ~is_control):
        weight[part] *= 0.5 / weight[part].sum()
    return np.asarray(weight * len(data))


def training_rows(data: ContactExamples, is_held: Bools, fit: ContactFit) -> Ints:
    """Rows to train on where some are held out: none of their sources, none of their malware
    families."""
    held_families = {
        family
        for number in np.unique(data.capture[is_held & (data.label == CONTROL)])
        for family in data.captures[number].malware
    }
    barred = np.array([bool(capture.malware & held_families) for capture in data.captures])
    is_excluded = np.isin(data.source, fit.excluded) & (data.label == CONTROL)
    usable = np.isin(data.label, (CONTROL, BENIGN, UNCERTAIN))
    return np.flatnonzero(usable & ~is_held & ~barred[data.capture] & ~is_excluded)


def fit_voters(data: ContactExamples, rows: Ints, fit: ContactFit, seed: int) -> Voters:
    """All voters, fitted to `rows`; the same for the same arguments."""
    random = np.random.default_rng(seed)
    chosen = sample(data.contact, rows, fit.rows, random)
    tables = data.take(chosen)
    trees, logistic = _fit_tables(tables, weights(tables, fit), fit, random, seed)
    if not fit.has_network:
        return Voters(trees, logistic, None)
    shown = data.take(sample(data.contact, rows, fit.network.rows, np.random.default_rng(seed)))
    return Voters(trees, logistic, fit_network(shown, weights(shown, fit), fit.network, seed))


def _fit_tables(
    data: ContactExamples, weight: Doubles, fit: ContactFit, random: np.random.Generator, seed: int
) -> tuple[lgb.Booster, Logistic]:
    """Trees and logistic model; every row is seen twice, with and without facts of other logs."""
    blank = data.features.copy()
    blank[:, FACT_COLUMN_START:] = np.nan
    features = np.concatenate([data.features, blank])
    is_control = np.tile((data.label == CONTROL).astype(np.int64), 2)
    weight = np.tile(weight, 2) / 2
    logistic = _fit_logistic(features, is_control, weight, fit)
    return _fit_trees(features, is_control, weight, fit, random, seed), logistic


def _fit_logistic(features: Floats, is_control: Ints, weight: Doubles, fit: ContactFit) -> Logistic:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low = np.nanquantile(features, LOWEST_QUANTILE, axis=0).astype(np.float64)
        high = np.nanquantile(features, HIGHEST_QUANTILE, axis=0).astype(np.float64)
        clipped = np.clip(features.astype(np.float64), low, high)
        mean = np.nan_to_num(np.nanmean(clipped, axis=0))
        scale = np.nan_to_num(np.nanstd(clipped, axis=0) + 1e-6, nan=1.0)
    standard = np.nan_to_num((clipped - mean) / scale)
    model = LogisticRegression(C=fit.c, max_iter=1000)
    model.fit(standard, is_control, sample_weight=weight)
    return Logistic(low, high, mean, scale, model.coef_[0], float(model.intercept_[0]))


def _fit_trees(
    features: Floats,
    is_control: Ints,
    weight: Doubles,
    fit: ContactFit,
    random: np.random.Generator,
    seed: int,
) -> lgb.Booster:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        spread = np.nan_to_num(np.nanstd(features, axis=0))
    copies = [features]
    for _ in range(JITTERED_COPIES):
        noise = random.normal(0, fit.jitter, features.shape).astype(np.float32)
        copies.append(features + noise * spread)
    count = len(copies)
    parameters = {
        "objective": "binary",
        "num_leaves": fit.leaves,
        "learning_rate": 0.05,
        "feature_fraction": 0.4,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "min_data_in_leaf": fit.rows_of_leaf,
        "lambda_l2": 5.0,
        "max_bin": 63,
        "monotone_constraints": [MONOTONE.get(name, 0) for name in NAMES],
        "num_threads": 1,
        "verbose": -1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
    }
    dataset = lgb.Dataset(
        np.concatenate(copies), np.tile(is_control, count), weight=np.tile(weight, count) / count
    )
    return lgb.train(parameters, dataset, fit.trees)


def votes(voters: Voters, data: ContactExamples) -> Votes:
    """(n) what each voter says of examples."""
    if not len(data):
        nothing = np.zeros(0)
        return Votes(nothing, nothing, None if voters.network is None else nothing)
    return Votes(
        np.asarray(voters.trees.predict(data.features, num_threads=1)),
        voters.logistic.probability(data.features),
        None if voters.network is None else network_probability(voters.network, data),
    )


class OutOfFold(NamedTuple):
    """(n) votes by voters that saw neither the row's source nor its malware family."""

    with_logs: Votes
    conn_only: Votes
    """as if conn.log were all that is known"""


Pair = tuple[int, int]


def pair_votes(
    data: ContactExamples, pair: Pair, fit: ContactFit, seed: int
) -> dict[int, OutOfFold]:
    """Fold → votes on its rows, by voters that saw neither fold of the pair; (f, f) leaves out one.

    Empty where nothing is left to train on.
    """
    train = np.arange(len(data))
    for fold in pair:
        train = np.intersect1d(train, training_rows(data, data.fold == fold, fit))
    if not (data.label[train] == CONTROL).any():
        return {}
    voters = fit_voters(data, train, fit, seed)
    result = {}
    for fold in sorted(set(pair)):
        held = data.take(data.fold == fold)
        result[fold] = OutOfFold(votes(voters, held), votes(voters, held.without_facts()))
    return result


def out_of_fold(data: ContactExamples, fit: ContactFit, seed: int) -> OutOfFold:
    """Votes on every row, fold by fold."""
    parts = {
        fold: pair_votes(data, (fold, fold), fit, seed)[fold]
        for fold in sorted(set(data.fold.tolist()))
    }
    return assembled(data, parts)


def assembled(data: ContactExamples, parts: Mapping[int, OutOfFold]) -> OutOfFold:
    """Votes on the rows of each fold as votes on all rows; NaN in folds that have none."""
    modes = []
    for mode in range(len(OutOfFold._fields)):
        columns = []
        for voter in range(len(Votes._fields)):
            column = np.full(len(data), np.nan)
            for fold, part in parts.items():
                vote = part[mode][voter]
                if vote is not None:
                    column[data.fold == fold] = vote
            columns.append(column)
        has_network = not np.isnan(columns[2]).all()
        modes.append(Votes(columns[0], columns[1], columns[2] if has_network else None))
    return OutOfFold(*modes)
