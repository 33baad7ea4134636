"""Prometheus rules for the wire: promtool tests them, and what they ask for is what consumers
tell."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from consumers.runtime.metrics import Metrics
from consumers.shipping import file_shipper

ROOT = Path(__file__).parents[2]
FILE = ROOT / "dashboards/rules/prometheus/ids_plugin.yml"
TESTS = Path(__file__).parent / "prometheus.yml"
STANDARD = {"up", "ALERTS"}
ELSEWHERE = {"job", "instance", "le"}
"""labels that Prometheus or the library adds"""


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


RULES = [rule for group in load(FILE)["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SELECTOR = re.compile(r"\b(ids_\w+|[a-z_]+:[a-z_:]+)(?:\{([^}]*)\})?")


def exported() -> dict[str, set[str]]:
    """Name on the page → labels."""
    metrics = Metrics()
    found = {"ids_ship_behind_bytes": set[str]()}
    assert "ids_ship_behind_bytes" in Path(file_shipper.__file__).read_text()
    for one in vars(metrics).values():
        if hasattr(one, "_labelnames"):
            names = {
                "counter": [f"{one._name}_total"],
                "histogram": [f"{one._name}_bucket", f"{one._name}_count"],
            }
            for name in names.get(one._type, [one._name]):
                found[name] = set(one._labelnames)
    return found


def promtool(*arguments: str) -> str:
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_them() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(FILE))


def test_alerts_fire_where_they_have_to_and_nowhere_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    fired = set()
    for case in load(TESTS)["tests"]:
        for one in case.get("alert_rule_test", ()):
            fired |= {one["alertname"]} if one["exp_alerts"] else set()
        for one in case.get("promql_expr_test", ()):
            fired |= {
                name
                for sample in one["exp_samples"]
                for name in re.findall(r'alertname="(\w+)"', sample["labels"])
            }
    assert fired == ALERTS.keys()


def test_what_they_ask_for_is_told_with_these_labels() -> None:
    known, asked = exported(), set()
    for rule in RULES:
        for name, labels in SELECTOR.findall(rule["expr"]):
            if name in RECORDED:
                continue
            asked.add(name)
            assert name in known, rule
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels)) <= known[name] | ELSEWHERE, (
                rule
            )
        by = {
            label
            for labels in re.findall(r"by \(([^)]*)\)", rule["expr"])
            for label in re.split(r",\s*", labels)
        }
        assert by <= set().union(*known.values()) | ELSEWHERE
    assert {"ids_lag_records", "ids_ready", "ids_bundle_info", "ids_records_total"} <= asked


def test_outcomes_that_they_ask_for_are_counted() -> None:
    from consumers import deliver, detect, normalise

    told = "".join(
        Path(str(module.__file__)).read_text() for module in (normalise, detect, deliver)
    )
    for rule in RULES:
        for outcomes in re.findall(r'outcome=~?"([^"]+)"', rule["expr"]):
            for outcome in outcomes.split("|"):
                assert f'"{outcome}"' in told, outcome


@pytest.mark.parametrize("name", ALERTS)
def test_each_says_what_is_wrong_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 60
    mentioned = set(re.findall(r"\bIds[A-Z]\w+", rule["annotations"]["description"]))
    assert mentioned <= ALERTS.keys()


def test_the_page_names_each() -> None:
    page = (ROOT / "docs/rules.md").read_text()
    assert set(re.findall(r"`(Ids\w+)`", page)) == ALERTS.keys()
