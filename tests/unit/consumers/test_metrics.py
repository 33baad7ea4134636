"""What a consumer counts, as Prometheus reads it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client import generate_latest

from consumers.runtime.metrics import Metrics


def test_the_lag_is_of_the_partitions_that_are_ours_now() -> None:
    metrics = Metrics()
    metrics.behind({("zeek", 0): 5, ("zeek", 1): 7})
    metrics.behind({("zeek", 1): 0})
    samples = {one.labels["partition"]: one.value for family in metrics.registry.collect() for one in family.samples
               if one.name == "ids_lag_records"}  # fmt: skip
    assert samples == {"1": 0}
    metrics.behind({})
    assert b"ids_lag_records{" not in generate_latest(metrics.registry)


def test_promtool_finds_nothing_wrong_with_the_page() -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing: apt-get install prometheus")
    metrics = Metrics()
    for family in (one for one in vars(metrics).values() if hasattr(one, "_labelnames")):
        labels = [f"a {name}" for name in family._labelnames]
        one = family.labels(*labels) if labels else family
        (one.observe if hasattr(one, "observe") else one.inc)(1)
    page = generate_latest(metrics.registry)
    assert (
        b'ids_sensor_records{node="a node",sensor="a sensor",stream="a stream",what="a what"} 1.0'
        in page
    )
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", "")
