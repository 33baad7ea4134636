"""Published sets of ready-made features, in files of the published shape with rows of our own."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ids_plugin.datasets.feature_tables import NAMES, Table, load_table
from ids_plugin.datasets.labelled_flows import load
from ids_plugin.datasets.published_layouts import SETS, Layout
from ids_plugin.errors import InputError, UsageError
from ids_plugin.schema.score import CLASSES
from tests.support.shared_data import shared

FORMS = [(name, at) for name in NAMES for at in range(len(SETS[name]))]
KDD = ("duration", "protocol_type", "service", "flag")


def labels(layout: Layout) -> list[str]:
    """Two of the form's labels, as a file has them: the first benign."""
    bad = next(name for name, kind in layout.classes.items() if kind != "benign")
    good = next(name for name, kind in layout.classes.items() if kind == "benign")
    return ["0", "1"] if layout.by_file else [good, bad]


def rows(layout: Layout) -> list[dict[str, str]]:
    """Six records, three of each of two classes, all different."""
    said = labels(layout)
    return [
        {
            **{column: str(number * 100 + at) for number, column in enumerate(layout.numbers)},
            **dict.fromkeys(layout.texts, "abc"[at % 3]),
            **dict.fromkeys(layout.beside, "-"),
            layout.label: said[at % 2],
        }
        for at in range(6)
    ]


def written(
    folder: Path, layout: Layout, records: list[dict[str, str]], name: str = "set.csv"
) -> Path:
    """A file of these records; of sets without a header in NSL-KDD's order."""
    frame = pl.DataFrame(records)
    if not layout.header:
        frame = frame.select(*KDD, *(one for one in layout.numbers if one not in KDD), layout.label)
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_csv(folder / name, include_header=layout.header)
    return folder / name


def file_name(layout: Layout) -> str:
    return "uniflow_scan_A.csv" if layout.by_file else "set.csv"


@pytest.mark.parametrize(("name", "at"), FORMS)
def test_every_form_is_read_with_its_classes(name: str, at: int, tmp_path: Path) -> None:
    layout = SETS[name][at]
    records = rows(layout)
    path = written(tmp_path, layout, [*records, records[3]], file_name(layout))
    table = load_table(f"{name}:{path}")
    assert table.counts == {"read": 7, "not_finite": 0, "duplicates": 1, "rows": 6}
    assert table.features.columns == list(layout.features)
    assert set(table.features.schema.values()) <= {pl.Float64(), pl.String()}
    assert [CLASSES[number] == "benign" for number in table.numbers()] == [True, False] * 3
    assert set(table.label) <= set(CLASSES)
    assert table.features[layout.numbers[1]].to_list() == [100.0 + at for at in range(6)]
    assert not {"ip_src", "saddr", "src_ip", "Src_IP", "Timestamp", "ts", "uid"} & set(
        table.features.columns
    )


@pytest.mark.parametrize("name", [name for name in NAMES if SETS[name][0].header])
def test_missing_and_extra_columns_are_named_with_the_file(name: str, tmp_path: Path) -> None:
    layout = SETS[name][0]
    lost = layout.numbers[2]
    path = written(
        tmp_path, layout, [{k: v for k, v in one.items() if k != lost} for one in rows(layout)]
    )
    with pytest.raises(InputError, match=f"{path}: column '{lost}' is missing"):
        load_table(f"{name}:{path}")
    path = written(tmp_path, layout, [{**one, "Surprise": "1"} for one in rows(layout)])
    with pytest.raises(InputError, match=f"{path}: column 'Surprise' isn't of this set"):
        load_table(f"{name}:{path}")


def test_columns_without_a_header_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "KDDTrain+.txt"
    path.write_text(",".join(["0"] * 41) + "\n")
    with pytest.raises(InputError, match="column 'label' is missing: 41 columns, not 42 or 43"):
        load_table(f"nslkdd:{path}")
    path.write_text(",".join(["0"] * 44) + "\n")
    with pytest.raises(InputError, match="too many: 44 columns"):
        load_table(f"nslkdd:{path}")


def test_rows_without_finite_numbers_are_dropped_and_counted(tmp_path: Path) -> None:
    layout = SETS["cicids2017"][0]
    records = rows(layout)
    for record, value in zip(records[:4], ("Infinity", "NaN", "", "-inf"), strict=True):
        record["Flow Bytes/s"] = value
    records.append(dict.fromkeys(records[0], ""))
    table = load_table(f"cicids2017:{written(tmp_path, layout, records)}")
    assert table.counts == {"read": 7, "not_finite": 5, "duplicates": 0, "rows": 2}
    assert np.isfinite(table.matrix(table)[1]).all()
    assert table.summary == (
        "cicids2017: 7 rows read, 5 without a finite number dropped, 0 duplicates dropped, 2 left"
    )


def test_text_where_a_number_belongs_is_refused(tmp_path: Path) -> None:
    layout = SETS["unsw"][0]
    records = rows(layout)
    records[4]["sbytes"] = "many"
    path = written(tmp_path, layout, records)
    with pytest.raises(InputError, match=f"{path}, column 'sbytes', row 5: 'many' is no number"):
        load_table(f"unsw:{path}")


def test_unknown_labels_and_one_class_are_refused(tmp_path: Path) -> None:
    layout = SETS["unsw"][0]
    records = rows(layout)
    records[5][layout.label] = "Gremlins"
    path = written(tmp_path, layout, records)
    with pytest.raises(
        InputError, match=f"{path}, column 'attack_cat': label 'gremlins' is none of normal"
    ):
        load_table(f"unsw:{path}")
    path = written(tmp_path, layout, rows(layout)[::2])
    with pytest.raises(InputError, match="all 3 rows are 'benign': two classes are needed"):
        load_table(f"unsw:{path}")


def test_the_complete_cicids2017_as_it_is_published(tmp_path: Path) -> None:
    """A folder of files, names with a space before them, one column twice, a dash that isn't
    UTF-8."""
    layout = SETS["cicids2017"][0]
    columns = [" " + name for name in layout.numbers]
    columns.insert(50, " Fwd Header Length")
    for file, said in (("monday.csv", b"BENIGN"), ("thursday.csv", b"Web Attack \x96 Brute Force")):
        values = ",".join(str(number) for number in range(len(columns))).encode()
        (tmp_path / file).write_bytes(
            (",".join(columns) + ", Label\n").encode() + values + b"," + said + b"\n"
        )
    table = load_table(f"cicids2017:{tmp_path}")
    assert list(table.label) == ["benign", "brute_force"]
    assert list(table.files) == ["monday.csv", "thursday.csv"]
    with pytest.raises(InputError, match=r"all 1 rows are 'benign'.*name a folder or a glob"):
        load_table(f"cicids2017:{tmp_path / 'monday.csv'}")


def test_the_attack_is_the_name_of_the_file(tmp_path: Path) -> None:
    layout = SETS["mqttiot"][1]
    records = rows(layout)
    written(tmp_path, layout, records, "biflow_sparta.csv")
    written(tmp_path, layout, [{**one, "prt_dst": "9"} for one in records], "biflow_scan_sU.csv")
    table = load_table(f"mqttiot:{tmp_path}/biflow_*.csv")
    assert set(table.detail) == {"normal", "scan su", "sparta"}
    assert dict(table.label.value_counts().iter_rows()) == {
        "benign": 6,
        "scan": 3,
        "brute_force": 3,
    }


def test_files_of_two_forms_are_not_joined(tmp_path: Path) -> None:
    complete, sampled = SETS["cicids2017"]
    written(tmp_path, complete, rows(complete), "a.csv")
    path = written(tmp_path, sampled, rows(sampled), "b.csv")
    with pytest.raises(InputError, match=f"{path}: column 'Destination Port'"):
        load_table(f"cicids2017:{tmp_path}")


def test_a_zip_holds_one_table(tmp_path: Path) -> None:
    layout = SETS["unsw"][0]
    path = written(tmp_path / "plain", layout, rows(layout))
    packed = tmp_path / "set.csv.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, "set.csv")
        archive.writestr("__MACOSX/._set.csv", "x")
    assert load_table(f"unsw:{packed}").features.equals(load_table(f"unsw:{path}").features)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.write(path, "again.csv")
    with pytest.raises(InputError, match="holds 2 CSV files"):
        load_table(f"unsw:{packed}")
    packed.write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"set\.csv\.zip: is no table"):
        load_table(f"unsw:{packed}")


def test_categories_become_columns_of_what_training_knows(tmp_path: Path) -> None:
    layout = SETS["unsw"][0]
    known = load_table(f"unsw:{written(tmp_path, layout, rows(layout), 'train.csv')}")
    records = [{**one, "proto": "z" if at else "b"} for at, one in enumerate(rows(layout))]
    other = load_table(f"unsw:{written(tmp_path, layout, records, 'test.csv')}")
    names, values = other.matrix(known)
    at = names.index("proto=a")
    assert names[at : at + 3] == ("proto=a", "proto=b", "proto=c")
    assert values[:, at : at + 3].tolist() == [[0.0, 1.0, 0.0]] + [[0.0, 0.0, 0.0]] * 5
    assert values.dtype == np.float64


def test_sets_are_mixed_neither_with_each_other_nor_with_flows(tmp_path: Path) -> None:
    tables: list[Table] = []
    for name in ("unsw", "toniot"):
        layout = SETS[name][0]
        tables.append(
            load_table(f"{name}:{written(tmp_path, layout, rows(layout), f'{name}.csv')}")
        )
    with pytest.raises(UsageError, match="unsw and toniot have different features"):
        tables[0].matrix(tables[1])
    with pytest.raises(UsageError, match="unsw: is a set of ready-made features, no flows"):
        load(f"unsw:{tmp_path}")
    with pytest.raises(UsageError, match=r"no set of ready-made features called 'lab:x'.*nslkdd"):
        load_table("lab:x")
    with pytest.raises(InputError, match="nothing-there"):
        load_table(f"unsw:{tmp_path}/nothing-there")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file there ends in \.csv"):
        load_table(f"unsw:{tmp_path}/empty")


@pytest.mark.parametrize(
    ("spec", "read", "duplicates", "benign"),
    [
        ("nslkdd:nsl-kdd/KDDTrain+_20Percent.txt", 25_192, 0, 13_449),
        ("nslkdd:nsl-kdd/KDDTest+.txt", 22_544, 0, 9_711),
        ("cicids2017:cicids2017-sample/cic_0.01km.csv", 28_303, 2_960, 21_600),
        ("iotid20:iotid20-sample/IoT_2020_b_0.01_fs.csv", 6_252, 1_629, 351),
        ("unsw:unsw-nb15/UNSW_NB15_training-set.csv.zip", 82_332, 26_387, 34_206),
    ],
)
def test_published_files_have_their_rows(
    spec: str, read: int, duplicates: int, benign: int
) -> None:
    name, _, path = spec.partition(":")
    table = load_table(f"{name}:{shared(*path.split('/'))}")
    assert table.counts == {
        "read": read,
        "not_finite": 0,
        "duplicates": duplicates,
        "rows": read - duplicates,
    }
    assert (table.label == "benign").sum() == benign
