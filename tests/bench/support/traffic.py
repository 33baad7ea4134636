"""Large logs for benches: a busy gateway's ordinary traffic with a few attack flows in it, drawn by
seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

START = 1_790_000_000.0
RATE = 400.0
"""flows a second"""
CLIENTS, SERVERS = 1_500, 12_000
PIECE = 250_000
"""rows in memory while writing"""


def write_zeek_json(path: Path, flows: int, attack_share: float = 0.001, seed: int = 1) -> Path:
    """A Zeek conn.log in JSON of `flows` lines, in the order of their ends."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as stream:
        for first in range(0, flows, PIECE):
            piece(rng, first, min(PIECE, flows - first), attack_share).write_ndjson(stream)
    return path


def piece(rng: np.random.Generator, first: int, rows: int, attack_share: float) -> pl.DataFrame:
    """Rows `first` … of the log: clients that browse and resolve names, the busiest about thirty
    times as much as the typical one, and one that scans a server's ports."""
    busy = np.exp(np.random.default_rng(7).normal(0.0, 1.0, CLIENTS))
    client = rng.choice(CLIENTS, rows, p=busy / busy.sum())
    server = (client * 31 + rng.zipf(1.4, rows)) % SERVERS
    dns = rng.random(rows) < 0.35
    attack = rng.random(rows) < attack_share
    failed = attack | (rng.random(rows) < 0.02)
    sent = np.where(dns, 45, np.exp(rng.normal(6.5, 1.2, rows))).astype(np.int64)
    received = np.where(dns, 130, np.exp(rng.normal(8.5, 1.8, rows))).astype(np.int64)
    end = START + (first + np.arange(rows)) / RATE
    duration = np.round(np.where(dns, rng.exponential(0.02, rows), rng.exponential(4.0, rows)), 6)
    received[failed] = sent[failed] = 0
    return pl.DataFrame(
        {
            "ts": np.round(end - duration, 6),
            "uid": _uids(first, rows),
            "id.orig_h": _named("10.0.{}.{}", np.where(attack, CLIENTS + 7, client)),
            "id.orig_p": rng.integers(32_768, 61_000, rows),
            "id.resp_h": pl.Series(
                np.where(
                    dns & ~attack,
                    "10.0.200.1",
                    _named("198.18.{}.{}", np.where(attack, 3, server)).to_numpy(),
                )
            ),
            "id.resp_p": np.where(
                attack,
                rng.integers(1, 20_000, rows),
                np.where(dns, 53, rng.choice([80, 443], rows)),
            ),
            "proto": np.where(dns & ~attack, "udp", "tcp"),
            "duration": duration,
            "orig_bytes": sent,
            "resp_bytes": received,
            "conn_state": np.where(failed, "S0", "SF"),
            "local_orig": np.ones(rows, np.bool_),
            "local_resp": dns & ~attack,
            "missed_bytes": np.zeros(rows, np.int64),
            "history": np.where(failed, "S", np.where(dns, "Dd", "ShADadFf")),
            "orig_pkts": np.maximum(1, sent // 800),
            "orig_ip_bytes": sent + 40 * np.maximum(1, sent // 800),
            "resp_pkts": received // 1_200 + ~failed,
            "resp_ip_bytes": received + 40 * (received // 1_200 + ~failed),
        }
    )


def _uids(first: int, rows: int) -> pl.Series:
    return (
        pl.Series(np.arange(first, first + rows))
        .cast(pl.String)
        .str.zfill(17)
        .str.replace("^0", "C")
    )


def _named(pattern: str, number: npt.NDArray[np.int64]) -> pl.Series:
    names = np.array(
        [pattern.format(one // 250, one % 250 + 1) for one in range(SERVERS + CLIENTS)]
    )
    return pl.Series(names[number])
