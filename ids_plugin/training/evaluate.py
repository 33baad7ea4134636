"""What a bundle is worth on labelled networks: hosts found, false alerts, flow-level figures, and
honest floors.

Beside the bundle and each of its members or detectors stand two rules that know nothing: a lookup
table on (proto, conn_state, history), taught on the other networks (or the other part of the same
one), and "TCP = malicious". Flows are judged by the code of a scan, whatever the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin.alerts import policy
from ids_plugin.alerts.group_counts import CountedGroup, groups
from ids_plugin.alerts.policy import FlaggedFlows
from ids_plugin.bundle import Bundle
from ids_plugin.datasets.labelled_flows import Labelled
from ids_plugin.engines import Engine, JudgedBatch
from ids_plugin.engines.opening import open_engine
from ids_plugin.engines.windows import WindowEngine
from ids_plugin.explain import Deletion
from ids_plugin.pipeline import judged
from ids_plugin.schema.score import CLASSES, Scores, joined
from ids_plugin.schema.window import Windows
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.training.examples import ordered_batches

Protocol = Literal["leave-one-out", "time", "random"]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LOOKUP = ("proto", "conn_state", "history")
TRAIN_SHARE = 0.7
"""of the flows, for the lookup table under the protocols `time` and `random`"""
WORTH_FINDING = 5
"""attack flows a (host, class) has at least to be counted as found or not"""
MAX_PAUSE_US = 3_600_000_000
"""µs; longer pauses between flows are no time in which something was watched"""
HOUR_US = 3_600_000_000
LEFT_OUT_OF_DETECTORS = (
    "what each member alone finds, and the deletion test: they take windows apart, and detectors "
    "judge none"
)
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
    """Everything below, JSON-able; `left_out` says what a bundle with detectors has none of."""
    rng = np.random.default_rng(options.seed)
    engine = open_engine(bundle, cascade=options.cascade)
    judgements = []
    for network in networks:
        progress(f"{network.name}: {len(network.flows):,} flows")
        judgements.append(_judge(engine, network, options, rng))
    member_scores = list(_member_scores(judgements, options))
    figures_by_network = [of_network(network) for network in judgements]
    return {
        "bundle": bundle.id,
        "protocol": options.protocol,
        "seed": options.seed,
        "data": [{"name": n.name, "sha256": n.sha256, "flows": len(n.flows)} for n in networks],
        "networks": figures_by_network,
        "total": total(figures_by_network),
        "models": {
            name: figures(
                judgements,
                [scores[name] for scores in member_scores],
                _over_thresholds(judgements) if name == "bundle" else None,
            )
            for name in member_scores[0]
        },
        "classes": by_class(*likeliest(judgements)),
        "confusion": _confusion(judgements),
        "detectors": _by_detector(figures_by_network),
        "alone": _alone(judgements),
        "deletion": _deletion([row for network in judgements for row in network.deletions]),
        "left_out": [LEFT_OUT_OF_DETECTORS] if bundle.manifest.detectors else [],
    }


def _judge(
    engine: Engine, network: Labelled, options: Options, rng: np.random.Generator
) -> JudgedNetwork:
    flows, scores, alone = [], [], []
    deletions: list[Deletion] = []
    for _, batch in judged(ordered_batches(network.flows), engine):
        flows.append(batch.flows)
        scores.append(batch.scores)
        if isinstance(engine, WindowEngine):
            room = max(0, options.explained - len(deletions))
            deletions += _deletions(engine, batch, room, rng)
            alone.append(_members(engine.scorer, batch.windows))
    frame = pl.concat(flows)
    return JudgedNetwork(
        network.name,
        frame,
        joined(scores),
        _tested(frame, options, rng),
        tuple(deletions),
        pl.concat(alone) if alone else pl.DataFrame(),
    )


def _deletions(
    engine: WindowEngine, batch: JudgedBatch, room: int, rng: np.random.Generator
) -> list[Deletion]:
    """The deletion test of some flows over the threshold, at most `room`."""
    over = np.flatnonzero(batch.scores.over)
    mask = batch.windows.steps(over).mask
    long = over[mask.sum(axis=1) >= WORTH_FINDING]
    return [
        engine.explainer.deletion(batch.windows, row, int(batch.scores.label[row]), rng)
        for row in rng.permutation(long)[:room].tolist()
    ]


def _over_thresholds(judgements: Sequence[JudgedNetwork]) -> list[Bools] | None:
    """Per network (n) the flows over the threshold of a detector; None where members decide, whose
    scores are probabilities."""
    if judgements[0].scores.detector is None:
        return None
    return [network.scores.over for network in judgements]


def _by_detector(networks: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Detector → its alerts and false alerts in all networks; `networks` as of_network gives
    them."""
    summed: dict[str, dict[str, int]] = {}
    for network in networks:
        for name, counts in network["detectors"].items():
            entry = summed.setdefault(name, {"alerts": 0, "false_alerts": 0})
            for figure, count in counts.items():
                entry[figure] += count
    return dict(sorted(summed.items()))


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


def _alone(judgements: Sequence[JudgedNetwork]) -> dict[str, dict[str, dict[str, float]]]:
    """Class → member → share of its flows, and of its hosts, that the member alone calls that
    class; empty where a bundle has no members."""
    if not judgements[0].alone.width:
        return {}
    flows = pl.concat(
        [network.alone.with_columns(network=pl.lit(network.name)) for network in judgements]
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


def _member_scores(
    judgements: Sequence[JudgedNetwork], options: Options
) -> Iterator[dict[str, Doubles]]:
    """Per network: model → (n) how malicious each flow is; the two rules first."""
    for position, network in enumerate(judgements):
        if options.protocol == "leave-one-out":
            training_flows = [
                other.flows for index, other in enumerate(judgements) if index != position
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
    return {
        "name": network.name,
        "flows": len(network.flows),
        "attack_flows": int((network.flows["label"] != "benign").sum()),
        "hours": round(_watched_hours(network.flows.filter(pl.Series(network.tested))), 4),
        "alerts": len(alerts),
        "false_alerts": len(false),
        "false": [(alert.key.subject, alert.key.kind, alert.flows) for alert in false],
        "wanted": _wanted(network, flagged),
        "detectors": _detector_counts(network.scores, flagged, alerts, false),
    }


def _watched_hours(flows: pl.DataFrame) -> float:
    """Hours from the first flow to the last, without pauses of more than an hour."""
    if not len(flows):
        return 0.0
    known = np.sort(policy.micros(flows, "known"))
    pauses = np.diff(known)
    span = known[-1] - policy.micros(flows, "ts").min() - pauses[pauses > MAX_PAUSE_US].sum()
    return float(span) / HOUR_US


def _detector_counts(
    scores: Scores,
    flagged: FlaggedFlows,
    alerts: Sequence[CountedGroup],
    false: Sequence[CountedGroup],
) -> dict[str, dict[str, int]]:
    """Detector → alerts that its finding opened, and how many of them are false; none where members
    decide."""
    if scores.detector is None:
        return {}
    counts: dict[str, dict[str, int]] = {}
    for figure, of_figure in (("alerts", alerts), ("false_alerts", false)):
        for alert in of_figure:
            name = str(scores.detector[flagged.rows[alert.members[0]]])
            entry = counts.setdefault(name, {"alerts": 0, "false_alerts": 0})
            entry[figure] += 1
    return counts


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
        of_host = alerts.filter(
            ((pl.col("subject") == host) | (pl.col("host") == host)) & (pl.col("known") >= first)
        )
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
    """The flagged flows with `known`, the `subject` and `kind` of their alert, and `host`: the one
    that really attacks, or is flooded, where a detector names another; null otherwise."""
    keys, number = flagged.key_numbers()
    subject = pl.Series([key.subject for key in keys], dtype=pl.String)
    kind = pl.Series([key.kind for key in keys], dtype=pl.String)
    flows = network.flows[flagged.rows]
    host = pl.Series([None] * len(flows), dtype=pl.String)
    if network.scores.detector is not None:
        own, _ = policy.labelled_keys(flows, _class_numbers(flows))
        is_attack = flows["label"] != "benign"
        host = pl.Series(own, dtype=pl.String).zip_with(is_attack, host)
    return flows.select("known").with_columns(subject=subject[number], kind=kind[number], host=host)


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
        "hours": round(hours, 4),
        "alerts": alerts,
        "alerts_per_day": round(24 * alerts / hours, 3) if hours else None,
        "wanted": len(wanted),
        "found": sum(host["found"] for host in wanted),
        "found_in_any_class": sum(host["found_in_any_class"] for host in wanted),
        "median_delay_s": float(np.median(delays)) if delays else None,
        "false_alerts": false,
        "false_alerts_per_day": round(24 * false / hours, 3) if hours else None,
    }


def figures(
    judgements: Sequence[JudgedNetwork],
    scores: Sequence[Doubles],
    over: Sequence[Bools] | None = None,
) -> dict[str, Any]:
    """Flow-level figures of one model, all networks together, over the flows judged.

    Args:
        judgements: the networks.
        scores: per network (n) how malicious each flow is.
        over: per network (n) which flows the model calls malicious; those that score 0.5 or more
            where None.
    """
    bad = np.concatenate(
        [(network.flows["label"] != "benign").to_numpy()[network.tested] for network in judgements]
    )
    tcp = np.concatenate(
        [(network.flows["proto"] == "tcp").to_numpy()[network.tested] for network in judgements]
    )
    score = np.concatenate(
        [of_network[network.tested] for network, of_network in zip(judgements, scores, strict=True)]
    )
    called = [of_network >= 0.5 for of_network in scores] if over is None else over
    is_called = np.concatenate(
        [of_network[network.tested] for network, of_network in zip(judgements, called, strict=True)]
    )
    return {
        "f1": _f1(bad, is_called),
        "auc": _auc(bad, score),
        "tcp_auc": _auc(bad[tcp], score[tcp]),
        "tcp_recall_at_1%": _recall(bad[tcp], score[tcp], 0.01),
        "tcp_recall_at_5%": _recall(bad[tcp], score[tcp], 0.05),
        **_elsewhere(judgements, scores),
    }


def _elsewhere(
    judgements: Sequence[JudgedNetwork], scores: Sequence[Doubles]
) -> dict[str, float | None]:
    """The TCP attack flows of each network with WORTH_FINDING or more against the TCP flows of the
    networks in which nothing is an attack, mean over those networks: what an infected network
    mislabels as benign doesn't judge."""
    attacks, benign = [], [np.zeros(0)]
    for network, score in zip(judgements, scores, strict=True):
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


def likeliest(judgements: Sequence[JudgedNetwork]) -> tuple[Ints, Ints]:
    """Numbers of the true class and of the likeliest one, of all flows judged; where detectors
    judge, of the class over its threshold."""
    truth = [_class_numbers(network.flows)[network.tested] for network in judgements]
    predicted = [_likeliest(network.scores)[network.tested] for network in judgements]
    return np.concatenate(truth), np.concatenate(predicted)


def _likeliest(scores: Scores) -> Ints:
    """(n) class numbers."""
    if scores.detector is not None:
        return np.where(scores.over, scores.label, CLASSES.index("benign"))
    return np.asarray(scores.probability.argmax(axis=1))


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


def _confusion(judgements: Sequence[JudgedNetwork]) -> dict[str, dict[str, int]]:
    """Label → what the bundle called it (benign below the threshold) → flows."""
    parts = []
    for network in judgements:
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
