"""Severity falls where a detector is less sure; risk ranks by severity, then by score."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ids_plugin.alerts.severity import lowered, risk
from ids_plugin.detectors import Findings
from ids_plugin.detectors.counting.rules import DETECTORS
from ids_plugin.engines.detectors import Union
from ids_plugin.engines.opening import open_engine
from ids_plugin.explain.wording import amount
from ids_plugin.pipeline import Pipeline, judged
from ids_plugin.schema.alert import SEVERITIES
from ids_plugin.schema.evidence import Evidence
from ids_plugin.training.examples import ordered_batches
from tests.support import toy, toy_detectors


@pytest.mark.parametrize(
    ("severity", "doubt", "expected"),
    [
        ("critical", 0, "critical"),
        ("critical", 2, "medium"),
        ("high", 1, "medium"),
        ("medium", 1, "low"),
        ("low", 1, "low"),
        ("medium", 5, "low"),
    ],
)
def test_doubt_lowers_the_severity(severity: str, doubt: int, expected: str) -> None:
    assert lowered(severity, doubt) == expected


def test_risk_ranks_by_severity_then_by_score() -> None:
    ranked = [risk(*pair) for pair in itertools.product(SEVERITIES, (0.0, 0.3, 0.5, 0.99, 1.0))]
    assert ranked == sorted(ranked)
    assert (ranked[0], ranked[-1]) == (0.0, 99.0)
    assert [risk(name, 1.0) for name in SEVERITIES] == list(SEVERITIES.values())


def test_rules_that_backups_satisfy_are_doubted() -> None:
    doubted = {rule.name for detector in DETECTORS for rule in detector.rules if rule.doubt}
    assert doubted == {"nothing but uploads", "files by FTP"}


def test_the_union_takes_the_doubt_of_the_finding_it_takes() -> None:
    def findings(rows: list[int], score: float, doubt: list[int] | None) -> Findings:
        size = len(rows)
        return Findings(
            rows=np.array(rows),
            label=np.full(size, 1),
            score=np.full(size, score),
            threshold=np.full(size, 0.5),
            is_target=np.zeros(size, np.bool_),
            quiet_us=np.zeros(size, np.int64),
            explain=lambda position: Evidence((), (), "", 0.0, {}, ""),
            doubt=None if doubt is None else np.array(doubt),
        )

    union = Union({"a": findings([0, 2], 0.6, [2, 1]), "b": findings([2, 3], 0.7, None)}, 5)
    doubt = union.scores().doubt
    assert doubt is not None
    assert doubt.tolist() == [2, 0, 1, 0, 0]


def test_contacts_that_normal_traffic_shows_alert_with_less() -> None:
    """An alert group stands as high as its surest flow so far."""
    pipeline = Pipeline(toy_detectors.bundle())
    flows = toy.network(5)
    documents = [one for batch in ordered_batches(flows) for one in pipeline.step(batch)]
    documents += pipeline.finish()
    contacts = [one for one in documents if one["ids_plugin"]["detector"] == "control"]
    surest: dict[str, float] = {}
    for _, batch in judged(ordered_batches(flows), open_engine(toy_detectors.bundle())):
        for row in np.flatnonzero(batch.scores.over & (batch.scores.detector == "control")):
            host = batch.flows["orig_h"][int(row)]
            surest[host] = max(surest.get(host, 0.0), float(batch.scores.score[row]))
    assert {one["event"]["kind"] for one in contacts} == {"alert", "event"}
    for document in contacts:
        own = document["ids_plugin"]
        is_open = document["event"]["kind"] == "alert"
        score = own["score"] if is_open else surest[own["fold"]["subject"]]
        days = score / (1 - score)
        assert own["severity"] == ("high" if days >= 10 else "medium")
        assert document["event"]["severity"] == SEVERITIES[own["severity"]]
        assert document["event"]["risk_score"] == risk(own["severity"], own["score"])
        days_between = own["score"] / (1 - own["score"])
        text = amount(round(days_between, 1), "")
        assert f"shows such a contact once in {text} days" in own["evidence"]["summary"]
