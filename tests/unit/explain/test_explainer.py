"""Evidence: the weights, the features and flows it names, and whether taking them away changes the
score."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ids_plugin import bundle
from ids_plugin.explain import Explainer
from ids_plugin.explain.earlier_flows import NAMED_FLOWS, Trust
from ids_plugin.explain.explainer import NAMED_FEATURES
from ids_plugin.schema.score import CLASSES, Scores
from ids_plugin.schema.window import Windows
from ids_plugin.scoring.scorer import Scorer
from ids_plugin.training.examples import windows
from tests.support import toy
from tests.unit.explain.toy_judge import LinearJudge, SilentJudge, ToyJudge


@cache
def batch() -> Windows:
    return next(windows(toy.network(99, minutes=15)))


@cache
def scorer() -> Scorer:
    return Scorer(bundle.read(bundle.find("anomaly_net")), cascade=False)


@cache
def scored() -> Scores:
    return scorer().score(batch())


def explainer() -> Explainer:
    reference = scorer().bundle.manifest.baseline
    return Explainer(scorer(), batch().spec, {name: one.median for name, one in reference.items()})


def alerting(count: int = 12) -> list[int]:
    rows = np.flatnonzero(scored().over)
    assert len(rows) > 100
    return [int(rows[at]) for at in np.linspace(0, len(rows) - 1, count).astype(int)]


def full_row() -> int:
    """A flow with all its earlier ones."""
    rows = np.arange(len(batch()))
    return int(rows[batch().steps(rows).mask.all(axis=1)][-1])


def known(row: int) -> dict[int, float]:
    """Table features of a row that the source knows."""
    values = batch().table(np.array([row]))[0].tolist()
    return {at: value for at, value in enumerate(values) if value == value}


def toy_explainer(judge: ToyJudge, usual: float = 77.0, trust: Trust = "tested") -> Explainer:
    return Explainer(
        judge, batch().spec, {feature.name: usual for feature in batch().spec.table}, trust
    )


def test_weights_sum_to_one_and_stand_beside_the_flows_of_the_window() -> None:
    for row in alerting():
        evidence = explainer().explain(batch(), row, int(scored().label[row]))
        assert sum(one.weight for one in evidence.flows) == pytest.approx(1, abs=1e-4)
        assert [one.lag for one in evidence.flows] == list(range(len(evidence.flows)))[::-1]
        assert evidence.flows[-1].flow.uid == batch().flows["uid"][row]
        earlier = [one.flow.uid for one in evidence.flows[:-1]]
        if batch().earlier(row):
            assert earlier == [one.uid for one in batch().earlier(row)]


def test_weights_are_the_networks_attention() -> None:
    row = full_row()
    judge = ToyJudge({}, [4, 2])
    flows = toy_explainer(judge).explain(batch(), row, 1).flows
    strongest = sorted(range(len(flows)), key=lambda at: -flows[at].weight)
    assert strongest[:NAMED_FLOWS] == [4, 2]


def test_attention_that_proves_untrue_gives_way_to_what_taking_flows_out_does() -> None:
    row = full_row()
    misled = ToyJudge({}, [1, 5], looked_at=[0, 2])
    evidence = toy_explainer(misled).explain(batch(), row, 1)
    assert evidence.method.split("+")[0] == "step_occlusion"
    assert {at for at, flow in enumerate(evidence.flows) if flow.weight > 0} == {1, 5}
    assert sum(flow.weight for flow in evidence.flows) == pytest.approx(1, abs=1e-4)
    trusted = toy_explainer(misled, trust="always").explain(batch(), row, 1)
    assert trusted.method.split("+")[0] == "attention"
    assert trusted.flows[0].weight > 0.2


def test_without_attention_flows_are_named_by_what_taking_them_out_does() -> None:
    row = full_row()
    judge = SilentJudge({}, [2, 6])
    evidence = toy_explainer(judge).explain(batch(), row, 1)
    assert evidence.method.split("+")[0] == "step_occlusion"
    assert {at for at, flow in enumerate(evidence.flows) if flow.weight > 0} == {2, 6}
    assert evidence.flows[2].weight == pytest.approx(evidence.flows[6].weight, rel=1e-4)
    deletion = toy_explainer(judge).deletion(batch(), row, 1, np.random.default_rng(1))
    assert deletion.flows is not None
    assert deletion.flows.passed


def test_where_no_flow_matters_none_is_named() -> None:
    row = full_row()
    evidence = toy_explainer(ToyJudge(known(row), looked_at=[0, 2])).explain(batch(), row, 1)
    assert evidence.method.split("+")[0] == "no_single_flow"
    assert len({flow.weight for flow in evidence.flows}) == 1
    judge = ToyJudge(known(row), looked_at=[0, 2])
    assert toy_explainer(judge).deletion(batch(), row, 1, np.random.default_rng(1)).flows is None


def test_named_features_are_those_that_contribute_most() -> None:
    row = full_row()
    shares = {at: float(strength) for strength, at in enumerate(list(known(row))[:8], -1)}
    features = toy_explainer(ToyJudge(known(row), named=shares)).explain(batch(), row, 1).features
    strongest = sorted((at for at in shares if shares[at] > 0), key=lambda at: -shares[at])[
        :NAMED_FEATURES
    ]
    assert [one.name for one in features] == [batch().spec.table[at].name for at in strongest]
    assert [one.contribution for one in features] == [shares[at] for at in strongest]


def test_what_is_unknown_or_speaks_against_is_never_named() -> None:
    row = full_row()
    unknown = [at for at, value in enumerate(batch().table(np.array([row]))[0]) if np.isnan(value)]
    for_it, against, *_ = known(row)
    judge = ToyJudge(known(row), named=dict.fromkeys(unknown, 9.0) | {for_it: 0.5, against: -5.0})
    features = toy_explainer(judge).explain(batch(), row, 1).features
    assert [one.name for one in features] == [batch().spec.table[for_it].name]


def test_a_feature_shows_what_was_seen_beside_what_is_usual() -> None:
    row = int(np.flatnonzero(scored().over & (scored().label == CLASSES.index("scan")))[-1])
    evidence = explainer().explain(batch(), row, CLASSES.index("scan"))
    reference = scorer().bundle.manifest.baseline
    for feature in evidence.features:
        assert feature.name in {one.name for one in batch().spec.table}
        assert (feature.expected is None) == (feature.name not in reference)
        assert feature.value is not None
        assert feature.contribution > 0
        assert (", usually " in feature.text) == (feature.expected is not None)
        baseline = f", usually {feature.expected_text}" if feature.expected_text else ""
        assert feature.text == f"{feature.label}: {feature.value_text}{baseline}"
        assert not feature.unit.startswith("log ")
    assert "192.168.1.66" in evidence.summary
    assert "400 ports" in evidence.summary or " ports of 192.168.1.3" in evidence.summary


def test_the_method_names_what_was_used() -> None:
    row = alerting()[0]
    methods = explainer().explain(batch(), row, int(scored().label[row])).method.split("+")
    assert set(methods) - {"attention", "step_occlusion", "no_single_flow"} == {
        "tree_shap",
        "occlusion",
    }
    honest = ToyJudge(known(row), [1, 5])
    assert toy_explainer(honest).explain(batch(), full_row(), 1).method == "attention+tree_shap"


def test_contributions_of_trees_are_exact() -> None:
    made = scorer().bundle
    entry = next(member for member in made.manifest.members if member.kind == "lightgbm")
    table = batch().table(np.array(alerting(40)))
    for label in entry.classes:
        shares = scorer().contributions(table, CLASSES.index(label))[entry.name].values
        opinion = scorer().member_probabilities(*batch().steps(np.array(alerting(40))), table)[
            entry.name
        ]
        benign = scorer().contributions(table, 0)[entry.name].values
        margin = shares.sum(axis=1) - benign.sum(axis=1)
        sure = opinion[:, CLASSES.index(label)], opinion[:, 0]
        assert np.allclose(margin, np.log(sure[0]) - np.log(sure[1]), atol=1e-6)


def test_occlusion_is_the_fall_of_the_log_odds() -> None:
    row = full_row()
    first, second = list(known(row))[:2]
    judge = LinearJudge({first: 0.02, second: -0.005}, weight=3.0)
    evidence = toy_explainer(judge, usual=-10.0).explain(batch(), row, 1)
    assert evidence.method == "no_single_flow+occlusion"
    assert [one.name for one in evidence.features] == [batch().spec.table[first].name]
    fall = 3 * 0.02 * (known(row)[first] + 10)
    assert evidence.features[0].contribution == pytest.approx(fall, abs=1e-5)


def test_faithfulness_is_the_fall_without_the_named_evidence() -> None:
    row = full_row()
    some = dict(list(known(row).items())[:3])
    honest = toy_explainer(ToyJudge(some, [1, 5])).explain(batch(), row, 1)
    assert honest.faithfulness == pytest.approx(1)
    wrong = dict.fromkeys(list(known(row))[10:13], 1.0)
    misled = ToyJudge(some, [1, 5], named=wrong, looked_at=[0, 2])
    elsewhere = toy_explainer(misled, trust="always").explain(batch(), row, 1)
    assert elsewhere.faithfulness == 0


def test_the_deletion_test_tells_honest_from_wrong_evidence() -> None:
    row = full_row()
    some = dict(list(known(row).items())[:3])
    honest = toy_explainer(ToyJudge(some, [1, 5])).deletion(
        batch(), row, 1, np.random.default_rng(1)
    )
    assert honest.passed
    assert honest.score == honest.together.named == 1
    assert honest.together.random < 0.8
    assert honest.flows is not None
    assert honest.flows.passed
    assert honest.features.passed
    wrong = dict.fromkeys(list(known(row))[10:13], 1.0)
    judge = ToyJudge(some, [1, 5], named=wrong, looked_at=[0, 2])
    deletion = toy_explainer(judge, trust="always").deletion(
        batch(), row, 1, np.random.default_rng(1)
    )
    assert deletion.flows is not None
    assert not deletion.passed | deletion.flows.passed | deletion.features.passed


def test_the_deletion_test_is_seeded() -> None:
    row = full_row()
    judge = toy_explainer(ToyJudge(known(row), [1, 5]))
    runs = [
        judge.deletion(batch(), row, 1, np.random.default_rng(seed)).together.random
        for seed in (1, 1, 2, 3, 4)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs)) > 1


def test_most_explanations_of_the_shipped_bundle_pass_the_deletion_test() -> None:
    rng = np.random.default_rng(1)
    rows = np.flatnonzero(scored().over)
    long = rows[batch().steps(rows).mask.sum(axis=1) >= 5]
    drawn = rng.permutation(long)[:30].tolist()
    passed = [
        explainer().deletion(batch(), row, int(scored().label[row]), rng).passed for row in drawn
    ]
    assert sum(passed) >= 0.9 * len(passed)


def test_a_flow_without_earlier_ones_is_explained_by_the_hosts_flows() -> None:
    rows = np.flatnonzero(~batch().steps(np.arange(len(batch()))).mask[:, :-1].any(axis=1))
    with_others = [row for row in rows.tolist() if len(batch().host_flows(row, 10)) > 2]
    row = with_others[-1]
    assert batch().earlier(row) == []
    evidence = explainer().explain(batch(), row, CLASSES.index("scan"))
    shown, itself = evidence.flows[:-1], evidence.flows[-1].flow
    assert [one.flow for one in shown] == batch().host_flows(row, 10)
    assert {one.flow.orig_h for one in shown} == {itself.orig_h}
    assert len({one.weight for one in evidence.flows}) == 1
    assert sum(one.weight for one in evidence.flows) == pytest.approx(1, abs=1e-4)


def test_the_very_first_flow_is_explained_by_itself() -> None:
    evidence = explainer().explain(batch(), 0, CLASSES.index("scan"))
    assert [(one.lag, one.weight) for one in evidence.flows] == [(0, 1.0)]


def test_behaviours_that_hardly_show_are_left_out() -> None:
    row = full_row()
    assert toy_explainer(ToyJudge(known(row))).explain(batch(), row, 1).behaviours == {"shows": 0.4}


def test_the_same_window_gives_the_same_evidence() -> None:
    row = alerting()[3]
    label = int(scored().label[row])
    assert explainer().explain(batch(), row, label) == explainer().explain(batch(), row, label)
