"""tiny_cnn's training: what it reads and refuses, which features it keeps, and that it learns and
repeats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
from sklearn.feature_selection import chi2

from ids_plugin.bundle import pack
from ids_plugin.errors import InputError, UsageError
from ids_plugin.models.tiny_cnn import OPTIMISED, ORIGINAL
from ids_plugin.schema.uniflow import CLASSES, FEATURES
from ids_plugin.training.tiny import Options, chi_square, load, rows_of, select, train, vectors
from tests.support import uniflows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uniflows.runs(tmp_path_factory.mktemp("uniflow") / "runs", rows=300)


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    assert (ORIGINAL.parameters, OPTIMISED.parameters) == (26_365, 645)


def test_chi_square_is_scikit_learns(folder: Path) -> None:
    counts, label = rows_of(load([f"uniflow:{folder}"]))
    values = vectors(counts)
    assert np.allclose(chi_square(values, label), np.nan_to_num(chi2(values, label)[0]), rtol=1e-4)


def test_the_features_that_tell_classes_apart_are_kept_in_their_order(folder: Path) -> None:
    kept = select(*rows_of(load([f"uniflow:{folder}"])), 4)
    assert {"prt_dst", "max_iat", "num_bytes"} < {FEATURES[at] for at in kept}
    assert list(kept) == sorted(kept)


@pytest.mark.slow
def test_it_learns_repeats_and_says_what_with(folder: Path) -> None:
    options = Options((f"uniflow:{folder}",), epochs=8, rate=2e-2, rate_original=5e-3)
    bundle = train(options)
    assert pack(bundle) == pack(train(options))
    assert bundle.manifest.task == "class of one direction of a connection"
    assert bundle.classes == CLASSES
    data = bundle.manifest.training.data
    assert (len(data["train"]), len(data["measure"])) == (2, 1)
    (held,) = [
        run for run in load([f"uniflow:{folder}"]) if run.sha256 == data["measure"][0].sha256
    ]
    for member in bundle.manifest.members:
        used = [FEATURES.index(name) for name in member.features]
        session = onnxruntime.InferenceSession(
            bundle.file(member.require_file()), providers=["CPUExecutionProvider"]
        )
        (logits,) = session.run(None, {"unit": vectors(held.counts[:, used])})
        assert (logits.argmax(axis=1) == held.label).mean() > 0.35, member.name


def test_equal_rows_of_a_run_are_one_and_counted(tmp_path: Path) -> None:
    frame = uniflows.made(20, 1)
    pl.concat([frame, frame.head(7)]).write_parquet(tmp_path / "twice.parquet")
    (run,) = load([f"uniflow:{tmp_path}"])
    assert (len(run.label), run.duplicates) == (20, 7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda frame: frame.drop("std_iat"), "column 'std_iat' is missing"),
        (lambda frame: frame.with_columns(pl.lit("worm").alias("class")), "'worm' is none of"),
        (lambda frame: frame.with_columns(pl.col("num_pkts") * 1.5), "column 'num_pkts'"),
        (lambda frame: frame.with_columns(pl.lit(None, pl.Int64).alias("proto")), "column 'proto'"),
        (lambda frame: frame.with_columns(-pl.col("max_iat").cast(pl.Int64)), "column 'max_iat'"),
    ],
)
def test_bad_rows_are_refused_by_file_and_column(
    change: Callable[[pl.DataFrame], pl.DataFrame], named: str, tmp_path: Path
) -> None:
    change(uniflows.made(10, 1)).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=named) as caught:
        load([f"uniflow:{tmp_path}"])
    assert "bad.parquet" in str(caught.value)


def test_what_it_cannot_learn_from_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="learns from uniflows"):
        load(["lab:flows"])
    with pytest.raises(InputError, match="no Parquet file"):
        load([f"uniflow:{tmp_path}"])
    (tmp_path / "text.parquet").write_text("class,prt_src")
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        load([f"uniflow:{tmp_path / 'text.parquet'}"])
    normal = uniflows.made(30, 1).filter(pl.col("class") == "normal")
    normal.write_parquet(tmp_path / "normal.parquet")
    with pytest.raises(InputError, match="aggressive_scan"):
        train(Options((f"uniflow:{tmp_path / 'normal.parquet'}",), (f"uniflow:{folder}",)))
    with pytest.raises(UsageError, match="three runs"):
        train(Options((f"uniflow:{folder / 'run-0.parquet'}",)))
