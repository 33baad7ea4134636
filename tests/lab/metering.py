"""A run's capture, read by the project's own meter, with its labels."""

from __future__ import annotations

import gzip
import ipaddress
import json
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from ids_plugin.schema import flow
from ids_plugin.sources import Input, capture
from tests.lab import labels

BATCH = 100_000


def read(folder: Path) -> pl.DataFrame:
    """The flows of `folder`/capture.pcap or .pcap.gz: a Flow frame ordered by time, labelled, the
    folder as sensor."""
    path = folder / "capture.pcap"
    packed = not path.exists()
    with gzip.open(f"{path}.gz") if packed else path.open("rb") as opened:
        stream = cast(BinaryIO, opened)
        head = stream.read(65536)
        stream.seek(0)
        source = Input(name=path.name, stream=stream, head=head, sensor=folder.name)
        frames = [step.flows for step in capture.PLUGIN.read(source, BATCH)]
    flows = pl.concat(frames) if frames else flow.empty()
    nets = [
        ipaddress.ip_network(net)
        for net in json.loads((folder / "scenario.json").read_text())["local_nets"]
    ]
    local = [_is_local(pl.col(f"{end}_h"), nets).alias(f"local_{end}") for end in ("orig", "resp")]
    return labels.label(flows.with_columns(local), labels.read(folder / "labels.jsonl")).sort(
        "ts", "uid"
    )


def _is_local(
    column: pl.Expr, nets: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> pl.Expr:
    """Whether it is an address of the networks or link-local."""

    def one(text: str) -> bool:
        address = ipaddress.ip_address(text)
        return any(address in net for net in nets) or address.is_link_local

    return column.map_elements(one, return_dtype=pl.Boolean)


def write(folder: Path) -> Path:
    """Writes `folder`/flows.parquet; its path."""
    target = folder / "flows.parquet"
    read(folder).write_parquet(target, compression="zstd", compression_level=12)
    return target


def summary(path: Path) -> str:
    """Counts of flows by label and detail, as text."""
    counts = (
        pl.read_parquet(path)
        .group_by("label", "label_detail")
        .len()
        .sort("label", "len", descending=[False, True])
    )
    lines = [
        f"  {label:20} {number:7} {detail or ''}" for label, detail, number in counts.iter_rows()
    ]
    return "\n".join([f"{path}: {path.stat().st_size} bytes", *lines])
