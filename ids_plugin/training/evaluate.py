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
    opinions = list(_opinions(judged, options))
    networks_found = [of_network(one) for one in judged]
    return {
        "bundle": bundle.id,
        "protocol": options.protocol,
        "seed": options.seed,
        "data": [{"name": n.name, "sha256": n.sha256, "flows": len(n.flows)} for n in networks],
        "networks": networks_found,
        "total": total(networks_found),
        "models": {name: figures(judged, [o[name] for o in opinions]) for name in opinions[0]},
        "classes": by_class(*likeliest(judged)),
        "confusion": _confusion(judged),
        "alone": _alone(judged),
        "deletion": _deletion([deletion for one in judged for deletion in one.deletions]),
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
    for one in deletions:
        if one.method:
            counts = by_method.setdefault(one.method, {"explained": 0, "tested": 0, "passed": 0})
            counts["explained"] += 1
            counts["tested"] += one.flows is not None
            counts["passed"] += one.flows is not None and one.flows.passed
    passed = sum(one.passed for one in deletions)
    return {
        "tested": len(deletions),
        "passed": passed,
        "share": round(passed / len(deletions), 4) if deletions else None,
        "features_passed": sum(one.features.passed for one in deletions),
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
    flows = pl.concat([one.alone.with_columns(network=pl.lit(one.name)) for one in judged])
    members = [name for name in flows.columns if name not in ("label", "host", "network")]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for label in CLASSES[1:]:
        mine = flows.filter(pl.col("label") == label)
        if not len(mine):
            continue
        hosts = mine.group_by("network", "host").agg(
            (pl.col(name) == label).any() for name in members
        )
        found[label] = {
            name: {
                "flows": round(float((mine[name] == label).mean() or 0.0), 4),  # type: ignore[arg-type]
                "hosts": round(float(hosts[name].mean() or 0.0), 4),  # type: ignore[arg-type]
            }
            for name in members
        }
    return found


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
        name: np.concatenate([getattr(one, name) for one in scores])
        for name in ("score", "label", "probability", "over", "threshold")
    }
    models = {
        name: np.concatenate([one.models[name] for one in scores]) for name in scores[0].models
    }
    return Scores(models=models, **columns)


def _opinions(judged: Sequence[JudgedNetwork], options: Options) -> Iterator[dict[str, Doubles]]:
    """Per network: model → (n) how malicious each flow is; the two rules first."""
    for at, one in enumerate(judged):
        if options.protocol == "leave-one-out":
            taught = [other.flows for index, other in enumerate(judged) if index != at]
        else:
            taught = [one.flows.filter(~one.tested)]
        models = {name: np.nan_to_num(score) for name, score in one.scores.models.items()}
        yield {
            "lookup": _lookup(taught, one.flows),
            "tcp_is_malicious": (one.flows["proto"] == "tcp").to_numpy().astype(np.float64),
            "bundle": one.scores.score,
            **models,
        }


def _lookup(taught: Sequence[pl.DataFrame], flows: pl.DataFrame) -> Doubles:
    """(n) share of malicious flows among those taught with the same key; of all taught where the
    key is new."""
    if not taught or not sum(len(one) for one in taught):
        return np.zeros(len(flows))
    seen = pl.concat([one.select(*LOOKUP, bad=pl.col("label") != "benign") for one in taught])
    table = seen.group_by(LOOKUP).agg(pl.col("bad").mean())
    found = flows.select(LOOKUP).join(
        table, on=LOOKUP, how="left", nulls_equal=True, maintain_order="left"
    )["bad"]
    return found.fill_null(float(seen["bad"].mean() or 0.0)).to_numpy()  # type: ignore[arg-type]


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
    wanted = [one for network in networks for one in network["wanted"]]
    delays = [one["delay_s"] for one in wanted if one["found"]]
    hours = sum(network["hours"] for network in networks)
    alerts, false = (
        sum(network[name] for network in networks) for name in ("alerts", "false_alerts")
    )
    return {
        "hours": round(hours, 2),
        "alerts": alerts,
        "alerts_per_day": round(24 * alerts / hours, 3) if hours else None,
        "wanted": len(wanted),
        "found": sum(one["found"] for one in wanted),
        "found_in_any_class": sum(one["found_in_any_class"] for one in wanted),
        "median_delay_s": float(np.median(delays)) if delays else None,
        "false_alerts": false,
        "false_alerts_per_day": round(24 * false / hours, 3) if hours else None,
    }


def figures(judged: Sequence[JudgedNetwork], scores: Sequence[Doubles]) -> dict[str, Any]:
    """Flow-level figures of one model, all networks together, over the flows judged; `scores`: a
    network's (n) each."""
    bad = np.concatenate(
        [(one.flows["label"] != "benign").to_numpy()[one.tested] for one in judged]
    )
    tcp = np.concatenate([(one.flows["proto"] == "tcp").to_numpy()[one.tested] for one in judged])
    score = np.concatenate([given[one.tested] for one, given in zip(judged, scores, strict=True)])
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
    attacks, calm = [], [np.zeros(0)]
    for one, score in zip(judged, scores, strict=True):
        tcp = (one.flows["proto"] == "tcp").to_numpy() & one.tested
        bad = (one.flows["label"] != "benign").to_numpy()
        if not bad.any():
            calm.append(score[tcp])
        elif np.sum(tcp & bad) >= WORTH_FINDING:
            attacks.append(score[tcp & bad])
    low = np.concatenate(calm)
    found: dict[str, list[float | None]] = {
        "tcp_auc_elsewhere": [],
        "tcp_recall_at_1%_elsewhere": [],
    }
    for high in attacks if len(low) else ():
        score, bad = np.concatenate([high, low]), np.arange(len(high) + len(low)) < len(high)
        found["tcp_auc_elsewhere"].append(_auc(bad, score))
        found["tcp_recall_at_1%_elsewhere"].append(_recall(bad, score, 0.01))
    return {
        name: round(float(np.mean([v for v in values if v is not None])), 4) if values else None
        for name, values in found.items()
    }


def likeliest(judged: Sequence[JudgedNetwork]) -> tuple[Ints, Ints]:
    """Numbers of the true class and of the likeliest one, of all flows judged."""
    truth = [_class_numbers(one.flows)[one.tested] for one in judged]
    said = [one.scores.probability.argmax(axis=1)[one.tested] for one in judged]
    return np.concatenate(truth), np.concatenate(said)


def by_class(truth: Ints, said: Ints) -> dict[str, Any]:
    """Accuracy, macro-F1 over the classes that occur, their precision, recall and F1, and the
    confusion matrix.

    Args:
        truth: (n) class numbers.
        said: (n) class numbers.
    """
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(matrix, (truth, said), 1)
    found: dict[str, dict[str, Any]] = {}
    for number in np.flatnonzero(matrix.sum(axis=1)).tolist():
        hit, called, there = (
            int(n) for n in (matrix[number, number], matrix[:, number].sum(), matrix[number].sum())
        )
        found[CLASSES[number]] = {
            "flows": there,
            "precision": round(hit / called, 4) if called else 0.0,
            "recall": round(hit / there, 4),
            "f1": round(2 * hit / (called + there), 4),
        }
    return {
        "accuracy": round(float(np.trace(matrix) / max(1, matrix.sum())), 4),
        "macro_f1": round(float(np.mean([one["f1"] for one in found.values()])), 4)
        if found
        else None,
        "classes": found,
        "confusion": {
            name: {
                CLASSES[to]: int(matrix[CLASSES.index(name), to])
                for to in np.flatnonzero(matrix[CLASSES.index(name)])
            }
            for name in found
        },
    }


def binary(bad: Bools, said: Bools, score: Doubles) -> dict[str, float | None]:
    """Malicious against benign: macro-F1 of what was `said`, area under the ROC curve and recall of
    the `score`."""
    return {
        "f1": _f1(bad, said),
        "auc": _auc(bad, score),
        "recall_at_1%": _recall(bad, score, 0.01),
        "recall_at_5%": _recall(bad, score, 0.05),
    }


def _f1(bad: Bools, said: Bools) -> float | None:
    """Macro-F1 of malicious against benign."""
    if not len(bad):
        return None
    each = []
    for truth, guess in ((bad, said), (~bad, ~said)):
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
    for one in judged:
        said = np.where(one.scores.over, np.array(CLASSES)[one.scores.label], "benign")
        parts.append(
            pl.DataFrame({"label": one.flows["label"], "said": said}).filter(pl.Series(one.tested))
        )
    counted = pl.concat(parts).group_by("label", "said").len()
    return {
        label: {
            said: count
            for _, said, count in counted.filter(pl.col("label") == label).sort("said").iter_rows()
        }
        for label in CLASSES
        if (counted["label"] == label).any()
    }
