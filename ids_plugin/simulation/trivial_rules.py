"""What simulated flows hold, and how far rules get that know nothing of behaviour.

They should not get far: a corpus that they solve teaches a model nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from ids_plugin.schema.score import CLASSES

LOOKUP_COLUMNS = ("proto", "conn_state", "history")
HELD_OUT_PARTS = 5
"""parts of the networks, each of which is classified by a table learnt on the others"""
REPORTED_STATES = ("SF", "S0", "REJ", "RSTO", "RSTR", "S1", "S3", "OTH")


class RuleResult(NamedTuple):
    """How well one rule separates attacks from the rest."""

    accuracy: float
    balanced_accuracy: float


def class_f1(labels: pl.Series, predictions: pl.Series) -> dict[str, float]:
    """Class → F1, for the classes that occur in `labels`."""
    actual, predicted = labels.to_numpy(), predictions.to_numpy()
    scores = {}
    for name in CLASSES:
        is_class, says_class = actual == name, predicted == name
        if is_class.any():
            hits = 2 * (is_class & says_class).sum()
            scores[name] = float(hits / (is_class.sum() + says_class.sum()))
    return scores


def lookup_predictions(flows: pl.DataFrame, parts: int = HELD_OUT_PARTS) -> pl.Series:
    """Each flow's class by a table of (proto, conn_state, history) learnt on other networks.

    All classes weigh the same in the table. Row i belongs to the i-th flow. Combinations that the
    table doesn't know are benign.
    """
    part = pl.col("sensor").rank("dense").cast(pl.Int64) % parts
    rows = (
        flows.select("sensor", "label", *LOOKUP_COLUMNS)
        .with_row_index("row")
        .with_columns(part.alias("part"))
    )
    predictions = []
    for number in range(parts):
        table = _lookup_table(rows.filter(pl.col("part") != number))
        held_out = rows.filter(pl.col("part") == number)
        joined = held_out.join(table, on=LOOKUP_COLUMNS, how="left", nulls_equal=True)
        predictions.append(joined.select("row", "prediction"))
    return pl.concat(predictions).sort("row")["prediction"].fill_null("benign")


def _lookup_table(rows: pl.DataFrame) -> pl.DataFrame:
    """The class of most weight for every combination of LOOKUP_COLUMNS, as column `prediction`."""
    weight = 1 / pl.len().over("label")
    weights = (
        rows.with_columns(weight.alias("weight"))
        .group_by(*LOOKUP_COLUMNS, "label")
        .agg(pl.col("weight").sum())
    )
    return (
        weights.sort("weight", "label")
        .group_by(*LOOKUP_COLUMNS, maintain_order=True)
        .agg(pl.col("label").last().alias("prediction"))
    )


def balanced_accuracy(is_attack: pl.Series, says_attack: pl.Series) -> float:
    """Mean of a rule's recall on attacks and on the rest.

    A rule that knows nothing has 0.5. The result is NaN where only attacks occur, or none.
    """
    actual, predicted = is_attack.to_numpy(), says_attack.to_numpy()
    if actual.all() or not actual.any():
        return float("nan")
    return float(predicted[actual].mean() + 1 - predicted[~actual].mean()) / 2


def rule_results(flows: pl.DataFrame) -> dict[str, RuleResult]:
    """Rule → how well it separates attacks from the rest on its own."""
    is_attack = flows["label"] != "benign"
    has_no_orderly_end = ~flows["conn_state"].is_in(["SF", "OTH", "S1"])
    rules = {
        "tcp = attack": flows["proto"] == "tcp",
        "no orderly end = attack": has_no_orderly_end,
        "unanswered = attack": flows["conn_state"] == "S0",
    }
    results = {}
    for name, says_attack in rules.items():
        accuracy = float((is_attack == says_attack).to_numpy().mean())
        results[name] = RuleResult(accuracy, balanced_accuracy(is_attack, says_attack))
    return results


def quiet_hour_share(flows: pl.DataFrame) -> float:
    """Share of the clock hours of all networks without an attack; inbound noise is none."""
    is_quiet = pl.col("label").is_in(["benign", "inbound_noise"]).all().alias("is_quiet")
    hour = pl.col("ts").dt.truncate("1h").alias("hour")
    hours = flows.group_by("sensor", hour).agg(is_quiet)
    return float(hours["is_quiet"].to_numpy().mean())


class Check(NamedTuple):
    """What simulated flows hold, and what trivial rules reach."""

    class_counts: pl.DataFrame
    """one row a class: flows, networks, activities, share of TCP, share of each connection state"""
    quiet_hour_share: float
    benign_share: float
    rules: dict[str, RuleResult]
    lookup_f1: dict[str, float]
    lookup_balanced_accuracy: float

    @property
    def lookup_macro_f1(self) -> float:
        """Mean of the lookup table's F1 over the classes."""
        return sum(self.lookup_f1.values()) / len(self.lookup_f1)

    def document(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "classes": self.class_counts.to_dicts(),
            "quiet_hour_share": self.quiet_hour_share,
            "benign_share": self.benign_share,
            "rules": {name: result._asdict() for name, result in self.rules.items()},
            "lookup": {
                "macro_f1": self.lookup_macro_f1,
                "balanced_accuracy": self.lookup_balanced_accuracy,
                "f1": self.lookup_f1,
            },
        }

    def report(self) -> str:
        """The figures as text for a person."""
        with pl.Config(
            tbl_rows=20,
            tbl_cols=20,
            tbl_width_chars=160,
            tbl_formatting="NOTHING",
            tbl_hide_column_data_types=True,
        ):
            lines = [str(self.class_counts)]
        lines.append(f"share of network-hours without an attack: {self.quiet_hour_share:.2f}")
        lines.append(
            f"nothing is an attack: accuracy {self.benign_share:.3f}, balanced accuracy .5"
        )
        for name, (accuracy, balanced) in self.rules.items():
            lines.append(f"{name}: accuracy {accuracy:.3f}, balanced accuracy {balanced:.3f}")
        lines.append(
            f"lookup on {', '.join(LOOKUP_COLUMNS)}, networks held out: macro-F1 "
            f"{self.lookup_macro_f1:.3f}, balanced accuracy {self.lookup_balanced_accuracy:.3f}"
        )
        scores = [f"{name} {score:.2f}" for name, score in self.lookup_f1.items()]
        lines.append("  " + "  ".join(scores))
        return "\n".join(lines)


def check(flows: pl.DataFrame) -> Check:
    """What a labelled Flow frame holds, and what trivial rules reach on it."""
    predictions = lookup_predictions(flows)
    return Check(
        class_counts=_class_counts(flows),
        quiet_hour_share=quiet_hour_share(flows),
        benign_share=float((flows["label"] == "benign").to_numpy().mean()),
        rules=rule_results(flows),
        lookup_f1=class_f1(flows["label"], predictions),
        lookup_balanced_accuracy=balanced_accuracy(
            flows["label"] != "benign", predictions != "benign"
        ),
    )


def _class_counts(flows: pl.DataFrame) -> pl.DataFrame:
    """One row a class, the rarest first."""
    state_shares = [
        (pl.col("conn_state") == state).mean().round(3).alias(state) for state in REPORTED_STATES
    ]
    counts = flows.group_by("label").agg(
        pl.len().alias("flows"),
        pl.col("sensor").n_unique().alias("networks"),
        pl.col("label_detail").n_unique().alias("activities"),
        (pl.col("proto") == "tcp").mean().round(2).alias("tcp"),
        *state_shares,
    )
    return counts.sort("flows")
