"""What simulated flows hold, and how far rules get that know nothing of behaviour. They should not get far."""

from __future__ import annotations

import polars as pl

from ids_plugin.schema.score import CLASSES

LOOKUP = ("proto", "conn_state", "history")


def f1(truth: pl.Series, said: pl.Series) -> dict[str, float]:
    """Class → F1, over the classes that occur."""
    is_, named = truth.to_numpy(), said.to_numpy()
    present = [c for c in CLASSES if (is_ == c).any()]
    return {
        c: float(2 * ((is_ == c) & (named == c)).sum() / ((is_ == c).sum() + (named == c).sum()))
        for c in present
    }


def lookup(flows: pl.DataFrame, folds: int = 5) -> pl.Series:
    """Each flow's class by a table of (proto, conn_state, history) learnt on other networks, classes weighed alike.

    Row i belongs to the i-th flow. What the table doesn't know is benign.
    """
    fold = pl.col("sensor").rank("dense").cast(pl.Int64) % folds
    rows = (
        flows.select("sensor", "label", *LOOKUP)
        .with_row_index("row")
        .with_columns(fold.alias("fold"))
    )
    parts = []
    for number in range(folds):
        known = rows.filter(pl.col("fold") != number)
        weight = 1 / pl.len().over("label")
        table = (
            known.with_columns(weight.alias("weight"))
            .group_by(*LOOKUP, "label")
            .agg(pl.col("weight").sum())
        )
        best = (
            table.sort("weight", "label")
            .group_by(*LOOKUP, maintain_order=True)
            .agg(pl.col("label").last().alias("said"))
        )
        asked = rows.filter(pl.col("fold") == number)
        parts.append(
            asked.join(best, on=LOOKUP, how="left", nulls_equal=True).select("row", "said")
        )
    return pl.concat(parts).sort("row")["said"].fill_null("benign")


def balanced(attack: pl.Series, said: pl.Series) -> float:
    """Mean of the rule's recall on attacks and on the rest; .5 knows nothing, NaN: only one of the two occurs."""
    is_, yes = attack.to_numpy(), said.to_numpy()
    if is_.all() or not is_.any():
        return float("nan")
    return float(yes[is_].mean() + 1 - yes[~is_].mean()) / 2


def rules(flows: pl.DataFrame) -> dict[str, tuple[float, float]]:
    """Rule → accuracy and balanced accuracy of telling attacks from the rest by it alone."""
    attack = flows["label"] != "benign"
    odd = ~flows["conn_state"].is_in(["SF", "OTH", "S1"])
    said = {
        "tcp": flows["proto"] == "tcp",
        "no orderly end": odd,
        "unanswered": flows["conn_state"] == "S0",
    }
    right = {name: float((attack == yes).to_numpy().mean()) for name, yes in said.items()}
    return {f"{name} = attack": (right[name], balanced(attack, yes)) for name, yes in said.items()}


def quiet(flows: pl.DataFrame) -> float:
    """Share of the clock hours of all networks in which nothing is labelled an attack (noise of strangers isn't)."""
    calm = pl.col("label").is_in(["benign", "inbound_noise"]).all().alias("calm")
    hours = flows.group_by("sensor", pl.col("ts").dt.truncate("1h").alias("hour")).agg(calm)
    return float(hours["calm"].to_numpy().mean())


def report(flows: pl.DataFrame) -> str:
    """Counts per class, mixture of states, benign network-hours, and what trivial rules reach."""
    counts = flows.group_by("label").agg(
        pl.len().alias("flows"),
        pl.col("sensor").n_unique().alias("networks"),
        pl.col("label_detail").n_unique().alias("activities"),
        (pl.col("proto") == "tcp").mean().round(2).alias("tcp"),
        *(
            (pl.col("conn_state") == s).mean().round(3).alias(s)
            for s in ("SF", "S0", "REJ", "RSTO", "RSTR", "S1", "S3", "OTH")
        ),
    )
    with pl.Config(
        tbl_rows=20,
        tbl_cols=20,
        tbl_width_chars=160,
        tbl_formatting="NOTHING",
        tbl_hide_column_data_types=True,
    ):
        lines = [str(counts.sort("flows"))]
    lines.append(f"share of network-hours without an attack: {quiet(flows):.2f}")
    base = float((flows["label"] == "benign").to_numpy().mean())
    lines.append(f"nothing is an attack: accuracy {base:.3f}, balanced accuracy .5")
    lines += [
        f"{rule}: accuracy {a:.3f}, balanced accuracy {b:.3f}"
        for rule, (a, b) in rules(flows).items()
    ]
    said = lookup(flows)
    scores = f1(flows["label"], said)
    mean, attack = (
        sum(scores.values()) / len(scores),
        balanced(flows["label"] != "benign", said != "benign"),
    )
    lines.append(
        f"lookup on {', '.join(LOOKUP)}, networks held out: macro-F1 {mean:.3f}, balanced accuracy {attack:.3f}"
    )
    lines.append("  " + "  ".join(f"{name} {value:.2f}" for name, value in scores.items()))
    return "\n".join(lines)
