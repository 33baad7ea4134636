"""A run's capture as uniflows (schema.uniflow) with the five classes of `tiny_cnn`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ids_plugin.flowmeter.uniflows import read
from ids_plugin.schema import uniflow
from tests.lab import labels

PROTO = {6: "tcp", 17: "udp"}
KEPT = ("class", "detail", *uniflow.FEATURES)


def labelled(folder: Path) -> pl.DataFrame:
    """`class` (of schema.uniflow.CLASSES), `detail` (the activity) and the sixteen numbers, in
    order of time.

    Both directions of an attack's connections have its class. What is an attack of none of the five
    is left out.
    """
    with (folder / "capture.pcap").open("rb") as stream:
        found = read(stream)
    names = {"ip_src": "orig_h", "ip_dst": "resp_h", "prt_src": "orig_p", "prt_dst": "resp_p"}
    ports = found.with_columns(pl.col("proto").replace_strict(PROTO).alias("proto")).rename(names)
    told = labels.label(ports, labels.read(folder / "labels.jsonl"))
    found = found.with_columns(told["label_detail"].alias("detail"), _class(told).alias("class"))
    return found.sort("ts", maintain_order=True).filter(pl.col("class") != "").select(KEPT)


def _class(told: pl.DataFrame) -> pl.Series:
    at = (
        [pl.col("orig_p") == port for port in (22, 1883)],
        [pl.col("resp_p") == port for port in (22, 1883)],
    )
    guesses = pl.col("label") == "brute_force"
    return told.select(
        pl.when(pl.col("label") == "benign").then(pl.lit("normal"))
        .when((pl.col("label") == "scan") & (pl.col("proto") == "tcp")).then(pl.lit("aggressive_scan"))  # noqa: E501
        .when((pl.col("label") == "scan") & (pl.col("proto") == "udp")).then(pl.lit("udp_scan"))
        .when(guesses & (at[0][0] | at[1][0])).then(pl.lit("ssh_brute_force"))
        .when(guesses & (at[0][1] | at[1][1])).then(pl.lit("mqtt_brute_force"))
        .otherwise(pl.lit(""))
    ).to_series()  # fmt: skip


def write(folder: Path) -> Path:
    """Writes `folder`/uniflow.parquet; its path."""
    target = folder / "uniflow.parquet"
    small = [pl.col(name).cast(pl.UInt32) for name in uniflow.FEATURES]
    labelled(folder).with_columns(small).write_parquet(
        target, compression="zstd", compression_level=19
    )
    return target


def summary(path: Path) -> str:
    """Counts by class and activity, as text."""
    counts = (
        pl.read_parquet(path)
        .group_by("class", "detail")
        .len()
        .sort("class", "len", descending=[False, True])
    )
    lines = [
        f"  {name:18} {number:7} {detail or ''}" for name, detail, number in counts.iter_rows()
    ]
    return "\n".join([f"{path}: {path.stat().st_size} bytes", *lines])
