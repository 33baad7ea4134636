"""Small labelled networks for tests: web and DNS clients, a port scan, guessed passwords, a
beacon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from ids_plugin.schema import flow

_START = datetime(2024, 5, 6, 8, tzinfo=UTC)


def network(seed: int, minutes: int = 40) -> pl.DataFrame:
    """A Flow frame of one network, labelled."""
    rng = np.random.default_rng(seed)
    rows = _benign(rng, minutes)
    rows += _scan(rng, minutes) + _brute_force(rng, minutes) + _beacon(rng, minutes)
    frame = pl.DataFrame(
        [_row(seed, number, *row) for number, row in enumerate(rows)], infer_schema_length=None
    )
    missing = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in flow.SCHEMA.items()
        if name not in frame.columns
    ]
    return frame.with_columns(missing).select(
        pl.col(name).cast(dtype) for name, dtype in flow.SCHEMA.items()
    )


def write(folder: Path, count: int, first_seed: int = 0) -> Path:
    """`count` networks as labelled Parquet files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + count):
        network(seed).write_parquet(folder / f"toy-{seed}.parquet")
    return folder


Row = tuple[float, str, str, int, str, str, float, int, int, str, str | None]


def _benign(rng: np.random.Generator, minutes: int) -> list[Row]:
    rows: list[Row] = []
    for host in range(2, 7):
        for at in np.sort(rng.uniform(0, minutes * 60, 12 * minutes)).tolist():
            if rng.random() < 0.4:
                rows.append(
                    (
                        at,
                        f"192.168.1.{host}",
                        "192.168.1.1",
                        53,
                        "udp",
                        "SF",
                        0.02,
                        40,
                        120,
                        "benign",
                        None,
                    )
                )
                continue
            server = f"93.184.{rng.integers(4)}.{rng.integers(20)}"
            size = int(rng.lognormal(9, 1.5))
            state = "SF" if rng.random() < 0.97 else "S0"
            down = size if state == "SF" else 0
            last = rng.exponential(5)
            rows.append(
                (
                    at,
                    f"192.168.1.{host}",
                    server,
                    443,
                    "tcp",
                    state,
                    last,
                    900,
                    down,
                    "benign",
                    None,
                )
            )
    return rows


def _scan(rng: np.random.Generator, minutes: int) -> list[Row]:
    start = rng.uniform(0.2, 0.6) * minutes * 60
    ports = rng.permutation(2000)[:400].tolist()
    return [
        (
            start + 0.05 * at,
            "192.168.1.66",
            "192.168.1.3",
            port + 1,
            "tcp",
            "REJ",
            0.001,
            0,
            0,
            "scan",
            "T1046 ports",
        )
        for at, port in enumerate(ports)
    ]


def _brute_force(rng: np.random.Generator, minutes: int) -> list[Row]:
    start, pause = rng.uniform(0.2, 0.6) * minutes * 60, rng.uniform(0.5, 3)
    flow_of = (
        "192.168.1.67",
        "192.168.1.4",
        22,
        "tcp",
        "SF",
        2.0,
        1500,
        2000,
        "brute_force",
        "T1110 ssh",
    )
    return [(start + pause * at, *flow_of) for at in range(120)]


def _beacon(rng: np.random.Generator, minutes: int) -> list[Row]:
    period = rng.uniform(15, 40)
    times = np.arange(5, minutes * 60, period) + rng.uniform(
        -2, 2, len(np.arange(5, minutes * 60, period))
    )
    return [
        (
            at,
            "192.168.1.5",
            "198.51.100.7",
            8443,
            "tcp",
            "SF",
            0.5,
            300,
            200,
            "command_and_control",
            "T1071 beacon",
        )
        for at in times.tolist()
    ]


def _row(
    seed: int, number: int, at: float, orig: str, resp: str, port: int, proto: str, state: str, duration: float,  # noqa: E501
    sent: int, received: int, label: str, detail: str | None,
) -> dict[str, object]:  # fmt: skip
    answered = state == "SF"
    return {
        "sensor": f"toy-{seed}", "source": "zeek", "open": False, "uid": f"C{seed}x{number}",
        "orig_h": orig, "resp_h": resp,
        "ts": _START + timedelta(seconds=at), "duration": timedelta(seconds=duration) if answered else None,  # noqa: E501
        "orig_p": 30000 + number % 30000, "resp_p": port, "proto": proto, "conn_state": state,
        "orig_bytes": sent, "resp_bytes": received, "orig_pkts": 2 + sent // 1400, "orig_ip_bytes": 80 + sent,  # noqa: E501
        "resp_pkts": 1 + received // 1400 if answered else int(state == "REJ"),
        "resp_ip_bytes": received + 60 if answered else 40 * int(state == "REJ"), "label": label,
        "label_detail": detail,
    }  # fmt: skip
