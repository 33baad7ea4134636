"""`ids-plugin evaluate`: hosts found, false alerts and floors beside them, under every protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ids_plugin import bundle, cli
from ids_plugin.commands.evaluate import PROTOCOLS
from ids_plugin.schema.score import CLASSES
from tests.support import toy
from tests.support.logs import conn

SEEDS, MINUTES = (31, 32), 7
FIGURES = {"f1", "auc", "tcp_auc", "tcp_recall_at_1%", "tcp_recall_at_5%"} | {
    f"tcp_{figure}_elsewhere" for figure in ("auc", "recall_at_1%")
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("networks")
    for seed in SEEDS:
        toy.network(seed, minutes=MINUTES).write_parquet(folder / f"toy-{seed}.parquet")
    return f"lab:{folder}"


def result(data: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert (
        cli.main(
            [
                "evaluate",
                "--bundle",
                "anomaly_net",
                "--data",
                data,
                "--explained",
                "3",
                "--json",
                "--quiet",
                *options,
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol(protocol: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(data, capsys, "--protocol", protocol)
    shipped = bundle.read(bundle.find("anomaly_net"))
    assert (found["bundle"], found["protocol"], found["seed"]) == (shipped.id, protocol, 1)
    assert [one["name"] for one in found["networks"]] == ["toy-31", "toy-32"]
    assert {len(one["sha256"]) for one in found["data"]} == {64}
    members = {member.name for member in shipped.manifest.members}
    assert found["models"].keys() == {"lookup", "tcp_is_malicious", "bundle"} | members
    for figures in found["models"].values():
        assert figures.keys() == FIGURES
        assert all(value is None or 0 <= value <= 1 for value in figures.values())
    flows = sum(one["flows"] for one in found["networks"])
    judged = sum(sum(row.values()) for row in found["confusion"].values())
    assert judged == flows if protocol == "leave-one-out" else 0.2 * flows < judged < 0.4 * flows
    assert found["confusion"].keys() <= set(CLASSES)
    assert found["deletion"]["tested"] == 6
    total = found["total"]
    wanted = [one for network in found["networks"] for one in network["wanted"]]
    assert (total["wanted"], total["found"]) == (len(wanted), sum(one["found"] for one in wanted))
    assert total["false_alerts"] == sum(one["false_alerts"] for one in found["networks"])
    assert total["alerts_per_day"] == pytest.approx(24 * total["alerts"] / total["hours"], abs=1e-3)
    whole = sum(MINUTES for _ in SEEDS) / 60
    assert (total["hours"] < 0.9 * whole) == (protocol == "time")
    if protocol == "leave-one-out":
        assert ("192.168.1.66", "scan", True) in [
            (one["host"], one["class"], one["found"]) for one in wanted
        ]


def test_the_floors_are_what_they_say(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(data, capsys)
    assert found["models"]["lookup"]["auc"] > found["models"]["tcp_is_malicious"]["auc"]
    assert found["models"]["tcp_is_malicious"]["tcp_auc"] == 0.5
    assert found["models"]["bundle"]["auc"] > 0.9


def test_attacks_against_networks_without_any(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tcp_auc_elsewhere", "tcp_recall_at_1%_elsewhere"):
        assert result(data, capsys)["models"]["bundle"][name] is None
    network = toy.network(33, minutes=MINUTES)
    network.filter(pl.col("label") == "benign").write_parquet(tmp_path / "calm.parquet")
    found = result(data, capsys, "--data", data, f"lab:{tmp_path}")["models"]
    assert found["tcp_is_malicious"]["tcp_auc_elsewhere"] == 0.5
    assert found["bundle"]["tcp_auc_elsewhere"] > 0.8


def test_figures_are_those_of_another_library(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    flows = pl.concat([toy.network(seed, minutes=MINUTES) for seed in SEEDS])
    bad, tcp = (flows["label"] != "benign").to_numpy(), (flows["proto"] == "tcp").to_numpy()
    found = result(data, capsys)["models"]["tcp_is_malicious"]
    assert found["f1"] == pytest.approx(metrics.f1_score(bad, tcp, average="macro"), abs=1e-4)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(bad, tcp), abs=1e-4)


def test_hosts_that_attack_are_those_to_be_found(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for network in result(data, capsys)["networks"]:
        wanted = {(one["host"], one["class"]): one for one in network["wanted"]}
        assert wanted.keys() == {
            ("192.168.1.66", "scan"),
            ("192.168.1.67", "brute_force"),
            ("192.168.1.5", "command_and_control"),
        }
        assert wanted["192.168.1.66", "scan"]["flows"] == 400
        for one in wanted.values():
            assert one["found_in_any_class"] >= one["found"]
            assert (one["delay_s"] is None) == (not one["found"])
            assert 0 <= (one["delay_s"] or 0) <= 60 * MINUTES


def test_the_same_seed_gives_the_same_figures(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, other = (
        result(data, capsys, "--protocol", "random", "--seed", seed) for seed in ("4", "4", "5")
    )
    assert first == second
    assert other["confusion"] != first["confusion"]


def test_people_get_tables(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["evaluate", "--bundle", "anomaly_net", "--data", data, "--explained", "2"]) == 0
    )
    shown = capsys.readouterr()
    for word in ("192.168.1.66", "false alerts", "lookup", "confusion", "deletion test: "):
        assert word in shown.out
    assert "toy-31: " in shown.err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--data", f"lab:{tmp_path}/none.parquet"]) == 3
    assert cli.main(["evaluate", "--data", "nothing:here"]) == 2
    assert cli.main(["evaluate", "--data", f"lab:{tmp_path}", "--bundle", "none"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_logs_of_zeek_with_labels_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, labels = tmp_path / "conn.log", tmp_path / "labels.csv"
    log.write_text("".join(json.dumps(conn(n)) + "\n" for n in range(40)))
    labels.write_text("uid,class\n" + "".join(f"{conn(n)['uid']},scan\n" for n in range(0, 40, 2)))
    found = result(f"zeek:{log}", capsys, "--labels", str(labels), "--protocol", "time")
    assert found["networks"][0]["attack_flows"] == 20
    for command in (
        ["evaluate"],
        ["train", "--out", "x"],
        ["compress", "anomaly_net", "--out", "x"],
    ):
        assert cli.main([*command, "--data", f"zeek:{log}"]) == 2
        assert "--labels FILE" in capsys.readouterr().err
        assert cli.main([*command, "--data", f"unsw:{log}"]) == 2
        assert "ready-made features, no flows" in capsys.readouterr().err
