"""What a consumer counts, as Prometheus reads it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client import generate_latest

from consumers.runtime.metrics import Metrics


def test_the_lag_is_of_the_partitions_that_are_assigned_now() -> None:
    metrics = Metrics()
    metrics.set_lags({("zeek", 0): 5, ("zeek", 1): 7})
    metrics.set_lags({("zeek", 1): 0})
    samples = {
        sample.labels["partition"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "ids_lag_records"
    }
    assert samples == {"1": 0}
    metrics.set_lags({})
    assert b"ids_lag_records{" not in generate_latest(metrics.registry)


def test_promtool_finds_nothing_wrong_with_the_page() -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing: apt-get install prometheus")
    metrics = Metrics()
    for family in (value for value in vars(metrics).values() if hasattr(value, "_labelnames")):
        labels = [f"a {name}" for name in family._labelnames]
        metric = family.labels(*labels) if labels else family
        (metric.observe if hasattr(metric, "observe") else metric.inc)(1)
    page = generate_latest(metrics.registry)
    assert (
        b'ids_sensor_records{node="a node",sensor="a sensor",stream="a stream",what="a what"} 1.0'
        in page
    )
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", "")
