"""Synthetic flows, scores and evidence for tests: small, deterministic, one behaviour at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.alerts import AlertGrouper, AllowList, BundleFacts
from ids_plugin.schema import flow as schema
from ids_plugin.schema.alert import Document
from ids_plugin.schema.evidence import Evidence, EvidenceFeature, EvidenceFlow
from ids_plugin.schema.ledger import Ledger
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import EarlierFlow

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SENSOR = "gateway"
BUNDLE = BundleFacts(id="ab" * 32, family="anomaly_net", version="1")

Row = dict[str, Any]


def flow(
    seconds: float, orig_h: str = "10.0.0.5", resp_h: str = "10.0.0.9", **columns: object
) -> Row:
    """One flow, `seconds` after START: a short TCP connection of a private host; `columns` change
    what is needed."""
    row: Row = dict.fromkeys((*schema.SCHEMA, "replaces"))
    row |= {
        "sensor": SENSOR,
        "source": "zeek",
        "open": False,
        "replaces": False,
        "ts": START + timedelta(seconds=seconds),
        "uid": f"C{orig_h}-{resp_h}-{seconds}-{columns.get('resp_p')}",
        "orig_h": orig_h,
        "orig_p": 49152 + int(seconds) % 16000,
        "resp_h": resp_h,
        "resp_p": 443,
        "proto": "tcp",
        "duration": timedelta(seconds=0.5),
        "orig_bytes": 300,
        "resp_bytes": 1200,
        "conn_state": "SF",
        "history": "ShADadFf",
        "local_orig": orig_h.startswith("10."),
        "local_resp": resp_h.startswith("10."),
        "orig_pkts": 6,
        "orig_ip_bytes": 612,
        "resp_pkts": 5,
        "resp_ip_bytes": 1460,
    }
    unknown = columns.keys() - row.keys()
    assert not unknown, f"no such columns: {unknown}"
    return row | columns


def unanswered(seconds: float, orig_h: str, resp_h: str, resp_p: int, **columns: object) -> Row:
    """A SYN that nobody answered."""
    nothing: Row = {
        "duration": None,
        "orig_bytes": None,
        "resp_bytes": None,
        "resp_pkts": 0,
        "resp_ip_bytes": 0,
    }
    sent: Row = {"conn_state": "S0", "history": "S", "orig_pkts": 1, "orig_ip_bytes": 60}
    return flow(seconds, orig_h, resp_h, resp_p=resp_p, **(nothing | sent | columns))


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """A Flow frame in the order in which its flows were known, with `known`, `clock` and
    `replaces`."""
    flows = pl.DataFrame(
        list(rows), schema={**schema.SCHEMA, "replaces": pl.Boolean()}, orient="row"
    )
    ordered = flows.with_columns(schema.known().alias("known")).sort(
        "known", "uid", maintain_order=True
    )
    return ordered.with_columns(pl.col("known").cum_max().alias("clock"))


def scores(labels: Sequence[str], score: Sequence[float], threshold: float = 0.5) -> Scores:
    """Scores of flows whose likeliest class is `labels`; two models that almost agree."""
    sure = np.array(score, np.float64)
    label = np.array([CLASSES.index(name) for name in labels], np.int64)
    probability = np.zeros((len(sure), len(CLASSES)))
    probability[np.arange(len(sure)), label] = sure
    probability[:, 0] = 1 - sure
    models = {"anomaly_net": sure * 0.99, "lightgbm": np.full(len(sure), np.nan)}
    limits = np.full(len(sure), threshold)
    return Scores(sure, label, probability, models, sure >= limits, limits)


def evidence(row: Mapping[str, Any], label: str = "scan", before: int = 5) -> Evidence:
    """Evidence of one flow (a named row of a Flow frame): itself, and `before` flows like it, a
    minute apart."""
    ts = round(row["ts"].timestamp() * 1e6)
    itself = earlier(row, ts)
    flows = [itself] + [
        itself._replace(
            uid=f"{row['uid']}-{lag}",
            ts=ts - lag * 60_000_000,
            known=itself.known - lag * 60_000_000,
        )
        for lag in range(1, before + 1)
    ]
    weights = np.array([0.6**lag for lag in range(before + 1)])
    weights /= weights.sum()
    features = (
        EvidenceFeature(
            "orig_fails_10m",
            84.0,
            0.2,
            0.41,
            "84 failed connections in 10 min, 0.2 expected",
            label="failed connections in 10 min",
            unit="flows",
            value_text="84",
            expected_text="0.2",
        ),
        EvidenceFeature(
            "interval",
            60.0,
            None,
            0.12,
            "60 s since the flow before",
            label="time since the flow before",
            unit="s",
            value_text="1 min",
            expected_text=None,
        ),
        EvidenceFeature(
            "orig_bytes",
            None,
            512.0,
            -0.03,
            "payload unknown, 512 B expected",
            label="payload sent",
            unit="B",
            value_text="unknown",
            expected_text="512 B",
        ),
    )
    return Evidence(
        flows=tuple(EvidenceFlow(one, lag, float(weights[lag])) for lag, one in enumerate(flows)),
        features=features,
        method="attention+tree_shap",
        faithfulness=0.73,
        behaviours={label: 0.94, "retrying": 0.31},
        summary=f"{row['orig_h']} made 84 connections that failed in 10 min, 0.2 expected "
        f"({label}).",
    )


def earlier(row: Mapping[str, Any], ts: int) -> EarlierFlow:
    """A flow as evidence has it."""
    duration = None if row["duration"] is None else round(row["duration"].total_seconds() * 1e6)
    known = ts + (duration or 0)
    same = {
        name: row[name]
        for name in EarlierFlow._fields
        if name not in ("ts", "known", "duration", "reverse")
    }
    return EarlierFlow(ts=ts, known=known, duration=duration, reverse=False, **same)


def fold(
    flows: pl.DataFrame,
    scored: Scores,
    *,
    allow: AllowList | None = None,
    batches: Sequence[int] = (),
) -> tuple[list[Document], Ledger]:
    """Documents and ledger of the flows, cut into batches before the rows `batches`, to the end of
    the input."""
    folder = AlertGrouper(SENSOR, BUNDLE, allow)
    documents: list[Document] = []
    ledger = Ledger()
    edges = [0, *sorted(batches), len(flows)]
    for start, stop in pairwise(edges):
        made, counts = step(folder, flows[start:stop], part(scored, start, stop))
        documents += made
        ledger += counts
    outcome = folder.finish()
    return documents + outcome.documents, ledger + outcome.ledger


def step(
    folder: AlertGrouper, flows: pl.DataFrame, scored: Scores
) -> tuple[list[Document], Ledger]:
    """One batch: plans, makes the evidence that is asked for, commits."""
    plan = folder.plan(flows, scored)
    named = {
        row: evidence(flows.row(row, named=True), CLASSES[scored.label[row]])
        for row in plan.rows.tolist()
    }
    outcome = folder.commit(plan, named)
    return outcome.documents, outcome.ledger


def part(scored: Scores, start: int, stop: int) -> Scores:
    """Rows `start` to `stop` of scores."""
    return scored.take(np.arange(start, stop))


def behaviour(name: str) -> list[Row]:
    """Flows of one behaviour, as a network would show them; `name` is one of schema.score.CLASSES
    but benign."""
    makers = {
        "scan": lambda: [
            unanswered(s * 0.4, "10.0.0.66", f"10.0.1.{s % 250}", 22 + s % 3) for s in range(300)
        ],
        "brute_force": lambda: [
            flow(
                s * 4,
                "10.0.0.66",
                "10.0.0.2",
                resp_p=22,
                service="ssh",
                orig_bytes=1900 + s % 7,
                resp_bytes=2400,
            )
            for s in range(60)
        ],
        "flood": lambda: [
            unanswered(s * 0.01, f"198.51.{s % 100}.{s % 251}", "10.0.0.7", 80, orig_p=1024 + s)
            for s in range(1000)
        ],
        "command_and_control": lambda: [
            flow(s * 61.5, "10.0.0.31", "203.0.113.9", resp_p=4975, orig_bytes=91, resp_bytes=34)
            for s in range(40)
        ],
        "exfiltration": lambda: [
            flow(
                s * 120,
                "10.0.0.20",
                "203.0.113.80",
                service="ssl",
                duration=timedelta(seconds=40),
                orig_bytes=48_000_000,
                orig_pkts=34_000,
                orig_ip_bytes=49_400_000,
            )
            for s in range(8)
        ],
        "spreading": lambda: [
            flow(
                s * 1.5,
                "10.0.0.31",
                f"10.0.0.{100 + s % 40}",
                resp_p=23,
                conn_state="SF" if s % 9 == 0 else "REJ",
            )
            for s in range(120)
        ],
        "inbound_noise": lambda: [
            unanswered(s * 30, f"192.0.2.{s % 200}", "10.0.0.80", (22, 23, 8080)[s % 3])
            for s in range(400)
        ],
        "other": lambda: [
            flow(
                s * 10,
                "10.0.0.12",
                "10.0.0.1",
                proto="icmp",
                orig_p=8,
                resp_p=0,
                conn_state="OTH",
                history=None,
                service=None,
            )
            for s in range(12)
        ],
    }
    return makers[name]()


def alerts_of(name: str) -> list[Document]:
    """Documents of one behaviour: an open and a closed one (or more)."""
    flows = frame(behaviour(name))
    sure = np.linspace(0.81, 0.97, len(flows)).tolist()
    return fold(flows, scores([name] * len(flows), sure))[0]
