"""What a bundle is worth on labelled networks: hosts found, false alerts, flow-level figures, and
honest floors.

Beside the bundle and each of its members stand two rules that know nothing: a lookup table on
(proto, conn_state, history), taught on the other networks (or the other part of the same one), and
"TCP = malicious".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.alerts import policy
from ids_plugin.alerts.group_counts import groups
from ids_plugin.alerts.policy import FlaggedFlows
from ids_plugin.bundle import Bundle
from ids_plugin.datasets.labelled_flows import Labelled
from ids_plugin.explain import Deletion, Explainer
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import Windows
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.training.examples import windows
from ids_plugin.windows import spec

Protocol = Literal["leave-one-out", "time", "random"]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LOOKUP = ("proto", "conn_state", "history")
TRAIN_SHARE = 0.7
"""of the flows, for the lookup table under the protocols `time` and `random`"""
WORTH_FINDING = 5
"""attack flows a (host, class) has at least to be counted as found or not"""
_NUMBERS = {name: number for number, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class Options:
    """What an evaluation is told."""

    protocol: Protocol = "leave-one-out"
    cascade: bool = True
    explained: int = 300
    """flows over the threshold, at most, whose explanations take the deletion test"""
    seed: int = 1


@dataclass(frozen=True)
class JudgedNetwork:
    """One network, scored."""

    name: str
    flows: pl.DataFrame
    """as windows give them"""
    scores: Scores
    tested: Bools
    """(n) flows the protocol judges"""
    deletions: tuple[Deletion, ...] = ()
    """results of the deletion test"""
    alone: pl.DataFrame = field(default_factory=pl.DataFrame)
    """attack flows: `label`, `host` (whose behaviour it is) and, per member, the class that member
    alone calls it"""


def evaluate(
    bundle: Bundle, networks: Sequence[Labelled], options: Options, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Everything below, JSON-able."""
    rng = np.random.default_rng(options.seed)
    judged = []
    for network in networks:
        progress(f"{network.name}: {len(network.flows):,} flows")
        judged.append(_judge(bundle, network, options, rng))
    member_scores = list(_member_scores(judged, options))
    figures_by_network = [of_network(network) for network in judged]
    return {
        "bundle": bundle.id,
        "protocol": options.protocol,
        "seed": options.seed,
        "data": [{"name": n.name, "sha256": n.sha256, "flows": len(n.flows)} for n in networks],
        "networks": figures_by_network,
        "total": total(figures_by_network),
        "models": {
            name: figures(judged, [o[name] for o in member_scores]) for name in member_scores[0]
        },
        "classes": by_class(*likeliest(judged)),
        "confusion": _confusion(judged),
        "alone": _alone(judged),
        "deletion": _deletion([deletion for network in judged for deletion in network.deletions]),
    }


def _judge(
    bundle: Bundle, network: Labelled, options: Options, rng: np.random.Generator
) -> JudgedNetwork:
    scorer = Scorer(bundle, cascade=options.cascade)
    explainer = Explainer(scorer, spec(), bundle.baseline)
    flows, scores, alone = [], [], []
    deletions: list[Deletion] = []
    for batch in windows(network.flows):
        scored = scorer.score(batch)
        mask = batch.steps(np.flatnonzero(scored.over)).mask
        long = np.flatnonzero(scored.over)[mask.sum(axis=1) >= WORTH_FINDING]
        room = max(0, options.explained - len(deletions))
        deletions += [
            explainer.deletion(batch, row, int(scored.label[row]), rng)
            for row in rng.permutation(long)[:room].tolist()
        ]
        flows.append(batch.flows)
        scores.append(scored)
        alone.append(_members(scorer, batch))
    frame = pl.concat(flows)
    return JudgedNetwork(
        network.name,
        frame,
        joined(scores),
        _tested(frame, options, rng),
        tuple(deletions),
        pl.concat(alone),
    )


def _deletion(deletions: Sequence[Deletion]) -> dict[str, Any]:
    """How many explanations name what matters more than chance does: as a whole, their features
    alone, and their earlier flows alone by how these were found."""
    by_method: dict[str, dict[str, int]] = {}
    for result in deletions:
        if result.method:
            counts = by_method.setdefault(result.method, {"explained": 0, "tested": 0, "passed": 0})
            counts["explained"] += 1
            counts["tested"] += result.flows is not None
            counts["passed"] += result.flows is not None and result.flows.passed
    passed = sum(result.passed for result in deletions)
    return {
        "tested": len(deletions),
        "passed": passed,
        "share": round(passed / len(deletions), 4) if deletions else None,
        "features_passed": sum(result.features.passed for result in deletions),
        "flows": dict(sorted(by_method.items())),
    }


def _members(scorer: Scorer, batch: Windows) -> pl.DataFrame:
    """What every member alone calls the attack flows of a batch."""
    rows = np.flatnonzero((batch.flows["label"] != "benign").to_numpy())
    attacks = _attacks(batch.flows).select("label", "host")
    steps = batch.steps(rows)
    called = {
        name: pl.Series(np.array(CLASSES)[probability.argmax(axis=1)], dtype=pl.String)
        for name, probability in scorer.member_probabilities(
            steps.values, steps.mask, batch.table(rows)
        ).items()
    }
    return attacks.with_columns(**called)


def _alone(judged: Sequence[JudgedNetwork]) -> dict[str, dict[str, dict[str, float]]]:
    """Class → member → share of its flows, and of its hosts, that the member alone calls that
    class."""
    flows = pl.concat(
        [network.alone.with_columns(network=pl.lit(network.name)) for network in judged]
    )
    members = [name for name in flows.columns if name not in ("label", "host", "network")]
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for label in CLASSES[1:]:
        of_class = flows.filter(pl.col("label") == label)
        if not len(of_class):
            continue
        hosts = of_class.group_by("network", "host").agg(
            (pl.col(name) == label).any() for name in members
        )
        shares[label] = {
            name: {
                "flows": round(float((of_class[name] == label).mean() or 0.0), 4),  # type: ignore[arg-type]
                "hosts": round(float(hosts[name].mean() or 0.0), 4),  # type: ignore[arg-type]
            }
            for name in members
        }
    return shares


def _tested(flows: pl.DataFrame, options: Options, rng: np.random.Generator) -> Bools:
    """Which flows are judged: all, the last ones in time, or a random part."""
    if options.protocol == "time":
        return np.arange(len(flows)) >= TRAIN_SHARE * len(flows)
    if options.protocol == "random":
        return np.asarray(rng.random(len(flows)) >= TRAIN_SHARE)
    return np.ones(len(flows), np.bool_)


def joined(scores: Sequence[Scores]) -> Scores:
    """The scores of consecutive batches as one."""
    columns = {
        name: np.concatenate([getattr(batch, name) for batch in scores])
        for name in ("score", "label", "probability", "over", "threshold")
    }
    models = {
        name: np.concatenate([batch.models[name] for batch in scores]) for name in scores[0].models
    }
    return Scores(models=models, **columns)


def _member_scores(
    judged: Sequence[JudgedNetwork], options: Options
) -> Iterator[dict[str, Doubles]]:
    """Per network: model → (n) how malicious each flow is; the two rules first."""
    for position, network in enumerate(judged):
        if options.protocol == "leave-one-out":
            training_flows = [
                other.flows for index, other in enumerate(judged) if index != position
            ]
        else:
            training_flows = [network.flows.filter(~network.tested)]
        models = {name: np.nan_to_num(score) for name, score in network.scores.models.items()}
        yield {
            "lookup": _lookup(training_flows, network.flows),
            "tcp_is_malicious": (network.flows["proto"] == "tcp").to_numpy().astype(np.float64),
            "bundle": network.scores.score,
            **models,
        }


def _lookup(training_flows: Sequence[pl.DataFrame], flows: pl.DataFrame) -> Doubles:
    """(n) share of malicious flows among those taught with the same key; of all taught where the
    key is new."""
    if not training_flows or not sum(len(flows_of_network) for flows_of_network in training_flows):
        return np.zeros(len(flows))
    seen = pl.concat(
        [
            flows_of_network.select(*LOOKUP, bad=pl.col("label") != "benign")
            for flows_of_network in training_flows
        ]
    )
    table = seen.group_by(LOOKUP).agg(pl.col("bad").mean())
    share = flows.select(LOOKUP).join(
        table, on=LOOKUP, how="left", nulls_equal=True, maintain_order="left"
    )["bad"]
    return share.fill_null(float(seen["bad"].mean() or 0.0)).to_numpy()  # type: ignore[arg-type]


def of_network(network: JudgedNetwork) -> dict[str, Any]:
    """Hosts found, delays in s, alerts, false alerts and hours of one network.

    Alerts are those that a scan of the tested flows gives.
    """
    flagged = policy.flag(
        network.flows, network.scores, np.flatnonzero(network.scores.over & network.tested)
    )
    alerts = groups(flagged)
    is_attack = (network.flows["label"][flagged.rows] != "benign").to_numpy()
    false = [alert for alert in alerts if not is_attack[alert.members].any()]
    tested = network.flows.filter(pl.Series(network.tested))
    length = pl.col("known").max() - pl.col("ts").min()
    span = tested.select(length.dt.total_seconds()).item() or 0.0
    return {
        "name": network.name,
        "flows": len(network.flows),
        "attack_flows": int((network.flows["label"] != "benign").sum()),
        "hours": round(span / 3600, 2),
        "alerts": len(alerts),
        "false_alerts": len(false),
        "false": [(alert.key.subject, alert.key.kind, alert.flows) for alert in false],
        "wanted": _wanted(network, flagged),
    }


def _wanted(network: JudgedNetwork, flagged: FlaggedFlows) -> list[dict[str, Any]]:
    """Every (host, class) that attacks, or is flooded: found in its class, in any, and how long
    after."""
    wanted = (
        _attacks(network.flows.filter(pl.Series(network.tested)))
        .group_by("host", "kind", maintain_order=True)
        .agg(first=pl.col("known").min(), flows=pl.len())
    )
    alerts = _flagged_table(network, flagged)
    results = []
    for host, kind, first, flows in wanted.iter_rows():
        if flows < WORTH_FINDING:
            continue
        of_host = alerts.filter((pl.col("subject") == host) & (pl.col("known") >= first))
        in_class = of_host.filter(pl.col("kind") == kind)
        delay = (in_class["known"].min() - first).total_seconds() if len(in_class) else None
        results.append({
            "host": host, "class": kind, "flows": flows, "found": bool(len(in_class)),
            "found_in_any_class": bool(len(of_host)), "delay_s": delay,
        })  # fmt: skip
    return results


def _attacks(flows: pl.DataFrame) -> pl.DataFrame:
    """The attack flows, with `host` (whose behaviour each is) and `kind` (the class that an alert
    of it has)."""
    attacks = flows.filter(pl.col("label") != "benign")
    host, kind = policy.labelled_keys(attacks, _class_numbers(attacks))
    return attacks.with_columns(
        host=pl.Series(host, dtype=pl.String),
        kind=pl.Series(np.array(CLASSES)[kind], dtype=pl.String),
    )


def _flagged_table(network: JudgedNetwork, flagged: FlaggedFlows) -> pl.DataFrame:
    """The flagged flows with `known` and the `subject` and `kind` of their alert."""
    keys, number = flagged.key_numbers()
    subject = pl.Series([key.subject for key in keys], dtype=pl.String)
    kind = pl.Series([key.kind for key in keys], dtype=pl.String)
    return network.flows.select("known")[flagged.rows].with_columns(
        subject=subject[number], kind=kind[number]
    )


def _class_numbers(flows: pl.DataFrame) -> Ints:
    """(n) index of each flow's label in CLASSES."""
    return flows["label"].replace_strict(_NUMBERS, return_dtype=pl.Int64).to_numpy()


def total(networks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same of several networks together; `networks` as of_network gives them."""
    wanted = [host for network in networks for host in network["wanted"]]
    delays = [host["delay_s"] for host in wanted if host["found"]]
    hours = sum(network["hours"] for network in networks)
    alerts, false = (
        sum(network[name] for network in networks) for name in ("alerts", "false_alerts")
    )
    return {
        "hours": round(hours, 2),
        "alerts": alerts,
        "alerts_per_day": round(24 * alerts / hours, 3) if hours else None,
        "wanted": len(wanted),
        "found": sum(host["found"] for host in wanted),
        "found_in_any_class": sum(host["found_in_any_class"] for host in wanted),
        "median_delay_s": float(np.median(delays)) if delays else None,
        "false_alerts": false,
        "false_alerts_per_day": round(24 * false / hours, 3) if hours else None,
    }


def figures(judged: Sequence[JudgedNetwork], scores: Sequence[Doubles]) -> dict[str, Any]:
    """Flow-level figures of one model, all networks together, over the flows judged; `scores`: a
    network's (n) each."""
    bad = np.concatenate(
        [(network.flows["label"] != "benign").to_numpy()[network.tested] for network in judged]
    )
    tcp = np.concatenate(
        [(network.flows["proto"] == "tcp").to_numpy()[network.tested] for network in judged]
    )
    score = np.concatenate(
        [of_network[network.tested] for network, of_network in zip(judged, scores, strict=True)]
    )
    return {
        "f1": _f1(bad, score >= 0.5),
        "auc": _auc(bad, score),
        "tcp_auc": _auc(bad[tcp], score[tcp]),
        "tcp_recall_at_1%": _recall(bad[tcp], score[tcp], 0.01),
        "tcp_recall_at_5%": _recall(bad[tcp], score[tcp], 0.05),
        **_elsewhere(judged, scores),
    }


def _elsewhere(
    judged: Sequence[JudgedNetwork], scores: Sequence[Doubles]
) -> dict[str, float | None]:
    """The TCP attack flows of each network with WORTH_FINDING or more against the TCP flows of the
    networks in which nothing is an attack, mean over those networks: what an infected network
    mislabels as benign doesn't judge."""
    attacks, benign = [], [np.zeros(0)]
    for network, score in zip(judged, scores, strict=True):
        tcp = (network.flows["proto"] == "tcp").to_numpy() & network.tested
        bad = (network.flows["label"] != "benign").to_numpy()
        if not bad.any():
            benign.append(score[tcp])
        elif np.sum(tcp & bad) >= WORTH_FINDING:
            attacks.append(score[tcp & bad])
    low = np.concatenate(benign)
    by_figure: dict[str, list[float | None]] = {
        "tcp_auc_elsewhere": [],
        "tcp_recall_at_1%_elsewhere": [],
    }
    for high in attacks if len(low) else ():
        score, bad = np.concatenate([high, low]), np.arange(len(high) + len(low)) < len(high)
        by_figure["tcp_auc_elsewhere"].append(_auc(bad, score))
        by_figure["tcp_recall_at_1%_elsewhere"].append(_recall(bad, score, 0.01))
    return {
        name: round(float(np.mean([v for v in values if v is not None])), 4) if values else None
        for name, values in by_figure.items()
    }


def likeliest(judged: Sequence[JudgedNetwork]) -> tuple[Ints, Ints]:
    """Numbers of the true class and of the likeliest one, of all flows judged."""
    truth = [_class_numbers(network.flows)[network.tested] for network in judged]
    predicted = [network.scores.probability.argmax(axis=1)[network.tested] for network in judged]
    return np.concatenate(truth), np.concatenate(predicted)


def by_class(truth: Ints, predicted: Ints) -> dict[str, Any]:
    """Accuracy, macro-F1 over the classes that occur, their precision, recall and F1, and the
    confusion matrix.

    Args:
        truth: (n) class numbers.
        predicted: (n) class numbers.
    """
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    by_name: dict[str, dict[str, Any]] = {}
    for number in np.flatnonzero(matrix.sum(axis=1)).tolist():
        hit, called, support = (
            int(n) for n in (matrix[number, number], matrix[:, number].sum(), matrix[number].sum())
        )
        by_name[CLASSES[number]] = {
            "flows": support,
            "precision": round(hit / called, 4) if called else 0.0,
            "recall": round(hit / support, 4),
            "f1": round(2 * hit / (called + support), 4),
        }
    return {
        "accuracy": round(float(np.trace(matrix) / max(1, matrix.sum())), 4),
        "macro_f1": round(float(np.mean([figures["f1"] for figures in by_name.values()])), 4)
        if by_name
        else None,
        "classes": by_name,
        "confusion": {
            name: {
                CLASSES[to]: int(matrix[CLASSES.index(name), to])
                for to in np.flatnonzero(matrix[CLASSES.index(name)])
            }
            for name in by_name
        },
    }


def binary(bad: Bools, predicted: Bools, score: Doubles) -> dict[str, float | None]:
    """Malicious against benign: macro-F1 of `predicted`, area under the ROC curve and recall of
    the `score`."""
    return {
        "f1": _f1(bad, predicted),
        "auc": _auc(bad, score),
        "recall_at_1%": _recall(bad, score, 0.01),
        "recall_at_5%": _recall(bad, score, 0.05),
    }


def _f1(bad: Bools, predicted: Bools) -> float | None:
    """Macro-F1 of malicious against benign."""
    if not len(bad):
        return None
    each = []
    for truth, guess in ((bad, predicted), (~bad, ~predicted)):
        right = float((truth & guess).sum())
        total = float(truth.sum() + guess.sum())
        each.append(2 * right / total if total else 1.0)
    return round(sum(each) / 2, 4)


def _auc(bad: Bools, score: Doubles) -> float | None:
    """Area under the ROC curve by ranks (Mann-Whitney), ties counted half."""
    positive, negative = int(bad.sum()), int((~bad).sum())
    if not positive or not negative:
        return None
    ranks = pl.Series(score).rank("average").to_numpy()
    return round(float(ranks[bad].sum() - positive * (positive + 1) / 2) / (positive * negative), 4)


def _recall(bad: Bools, score: Doubles, false: float) -> float | None:
    """Share of the attacks above the threshold that at most a `false` share of the benign flows
    exceeds."""
    if not bad.any() or bad.all():
        return None
    threshold = float(np.quantile(score[~bad], 1 - false, method="higher"))
    return round(float((score[bad] > threshold).mean()), 4)


def _confusion(judged: Sequence[JudgedNetwork]) -> dict[str, dict[str, int]]:
    """Label → what the bundle called it (benign below the threshold) → flows."""
    parts = []
    for network in judged:
        predicted = np.where(network.scores.over, np.array(CLASSES)[network.scores.label], "benign")
        parts.append(
            pl.DataFrame({"label": network.flows["label"], "said": predicted}).filter(
                pl.Series(network.tested)
            )
        )
    counted = pl.concat(parts).group_by("label", "said").len()
    return {
        label: {
            predicted: count
            for _, predicted, count in counted.filter(pl.col("label") == label)
            .sort("said")
            .iter_rows()
        }
        for label in CLASSES
        if (counted["label"] == label).any()
    }
