"""Bench `devices`: tiny_cnn's ladder, rung by rung, on the lab's MQTT runs. Writes
docs/devices.md's tables.

    python -m tests.bench.devices [--json] [--seeds 1 2 3] [--work DIR] [--page docs/devices.md]

Trained on tests/lab/uniflow/runs; judged on tests/lab/uniflow/judge, runs of tools that no training
used, and beside it by the random split of rows that the published figures come from. Needs a C
compiler (every header is compiled and must give the reference's scores on every judged row) and
about four minutes of a core a seed; avr-gcc, simavr and arm-none-eabi-gcc measure what boards need
where they are installed. Bundles are kept in --work.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.bundle import Bundle, read, write
from ids_plugin.compression.tiny.fit import DeviceMemory, fit
from ids_plugin.compression.tiny.integer_network import Network, classify, scores
from ids_plugin.compression.tiny.ladder import PUBLISHED, judged, ladder, measure, network_of
from ids_plugin.errors import UsageError
from ids_plugin.schema.uniflow import CLASSES, FEATURES
from ids_plugin.training.tiny import Options, Run, load, rows_of, train
from tests.bench.support.boards import BOARDS, PACKAGES, on_host, simulated, sizes
from tests.bench.support.page import between

UNIFLOW = Path(__file__).parents[1] / "lab" / "uniflow"
RUNS, JUDGE = f"uniflow:{UNIFLOW / 'runs'}", f"uniflow:{UNIFLOW / 'judge'}"
DEVICES = {
    "Arduino UNO (ATmega328P)": "flash=32k,ram=2k",
    "Arduino UNO, half of each taken": "flash=16k,ram=1k",
    "ATtiny85": "flash=8k,ram=512",
    "ATtiny45": "flash=4k,ram=256",
    "NodeMCU V3": "flash=4m,ram=64k",
}
SIMULATED_ROWS = 40


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--work", type=Path, help="folder that keeps bundles, so that a second run is quick"
    )
    parser.add_argument("--page", type=Path, help="write the tables there, between its marks")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        found = {"seeds": {seed: figures(seed, work) for seed in args.seeds}}
        found["boards"] = boards(bundle_of("runs", RUNS, (), args.seeds[0], work), work / "boards")
    if args.page:
        put(args.page, page(found))
    if args.json:
        print(json.dumps(found))
    elif not args.page:
        print(page(found))
    return 0


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def figures(seed: int, work: Path) -> dict[str, Any]:
    """One seed: baseline, rungs by both splits, steps, and what C made of the judged rows."""
    bundle = bundle_of("runs", RUNS, (), seed, work)
    judge = load([JUDGE])
    told = [file.sha256 for file in bundle.manifest.training.data["train"]]
    data = [run for run in load([RUNS]) if run.sha256 in told]
    held = [run for run in load([RUNS]) if run.sha256 not in told]
    found: dict[str, Any] = {
        "lookup": {"judge": lookup(data, judge), "held_out": lookup(data, held)},
        "rungs": {},
        "rows": {
            "train": len(rows_of(data)[1]),
            "judge": len(rows_of(judge)[1]),
            "classes": _counts(judge),
        },
        "features": bundle.manifest.members[3].features,
        "steps": bundle.manifest.compression,
    }
    by_rows, tested = random_rows(seed, work)
    for rung, other in zip(bundle.manifest.members, by_rows.manifest.members, strict=True):
        network = network_of(bundle, rung)
        found["rungs"][rung.name] = {
            **rung.document,
            "judge": measure(network, judge),
            "random": measure(network_of(by_rows, other), tested),
            "activities": activities(network, judge),
            "in_c": in_c(network, judge, work / "host" / rung.name),
        }
        say(f"seed {seed}, {rung.name}: {found['rungs'][rung.name]['judge']}")
    found["devices"] = {name: _fitted(bundle, room) for name, room in DEVICES.items()}
    return found


def bundle_of(name: str, data: str, val: Sequence[str], seed: int, work: Path) -> Bundle:
    """The ladder of that name, seed and data; made once."""
    place = work / f"{name}-{seed}.idsb"
    if not place.exists():
        say(f"training {name}, seed {seed}")
        trained = train(Options((data,), tuple(val), seed=seed), say)
        write(ladder(trained, [data, *val], seed, say), place)
    return read(place)


def random_rows(seed: int, work: Path) -> tuple[Bundle, list[Run]]:
    """The published protocol: rows of the training runs at random, 60/20/20 by class; the ladder,
    and the last 20 %."""
    folder = work / f"rows-{seed}"
    if not folder.exists():
        folder.mkdir()
        files = sorted((UNIFLOW / "runs").glob("*.parquet"))
        rows = pl.concat([pl.read_parquet(file) for file in files]).unique(
            ["class", *FEATURES], maintain_order=True
        )
        place = pl.int_range(pl.len()).shuffle(seed).over("class") / pl.len().over("class")
        rows = rows.with_columns(
            pl.when(place < 0.6).then(0).when(place < 0.8).then(1).otherwise(2).alias("part")
        )
        for at, name in enumerate(("train", "validation", "test")):
            rows.filter(pl.col("part") == at).drop("part").write_parquet(folder / f"{name}.parquet")
    data, val = (f"uniflow:{folder / name}.parquet" for name in ("train", "validation"))
    return bundle_of("random", data, (val,), seed, work), load(
        [f"uniflow:{folder / 'test.parquet'}"]
    )


def lookup(data: Sequence[Run], judge: Sequence[Run]) -> dict[str, Any]:
    """A table of what was commonest in training for protocol, both ports below 32,768, whether
    there was one packet, a payload pushed, a reset: the floor. What it never saw is normal.
    """
    counts, label = rows_of(data)
    table: dict[bytes, Counter[int]] = {}
    for key, one in zip(_keys(counts), label.tolist(), strict=True):
        table.setdefault(key, Counter())[one] += 1
    judged_counts, true = rows_of(judge)
    said = [table[key].most_common(1)[0][0] if key in table else 0 for key in _keys(judged_counts)]
    return judged(np.array(said), true)


def _keys(counts: np.ndarray[Any, np.dtype[np.int64]]) -> list[bytes]:
    at = {name: FEATURES.index(name) for name in FEATURES}
    ports = [
        np.where(counts[:, at[name]] < 32_768, counts[:, at[name]], -1)
        for name in ("prt_src", "prt_dst")
    ]
    flags = [counts[:, at[name]] > 0 for name in ("num_psh_flags", "num_rst_flags")]
    columns = np.stack(
        [*ports, counts[:, at["proto"]], counts[:, at["num_pkts"]] > 1, *flags], axis=1
    )
    return [row.tobytes() for row in columns.astype(np.int64)]


def activities(network: Network, judge: Sequence[Run]) -> dict[str, list[int]]:
    """Class and activity → how many of its rows got the right class, and how many there are."""
    found: dict[str, list[int]] = {}
    for run in judge:
        right = classify(network, run.counts) == run.label
        for detail, label, hit in zip(run.detail, run.label.tolist(), right.tolist(), strict=True):
            activity = re.sub(r"^T\d+(\.\d+)? ", "", detail or "everyday traffic")
            counts = found.setdefault(f"{CLASSES[label]}: {activity}", [0, 0])
            counts[0] += hit
            counts[1] += 1
    return dict(sorted(found.items()))


def in_c(network: Network, judge: Sequence[Run], folder: Path) -> dict[str, int]:
    """How many judged rows the compiled header gives the same class, and the same scores to the
    last bit."""
    counts, _ = rows_of(judge)
    said, made = on_host(network, counts, folder)
    same = (made == scores(network, counts)).all(axis=1)
    return {
        "rows": len(counts),
        "class": int((said == classify(network, counts)).sum()),
        "scores": int(same.sum()),
    }


def boards(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Bytes by compiler, and the simulated ATmega328P's answers, for every rung."""
    counts, _ = rows_of(load([JUDGE]))
    shown = counts[np.random.default_rng(1).choice(len(counts), SIMULATED_ROWS, replace=False)]
    found: dict[str, Any] = {}
    for rung in bundle.manifest.members:
        network, place = network_of(bundle, rung), folder / rung.name
        made = {board.name: sizes(network, board, place) for board in BOARDS if board.there}
        found[rung.name] = {"sizes": made}
        if network.whole and shutil.which("simavr") and BOARDS[0].there:
            rows = shown if network.shape.parameters < 5_000 else shown[:10]
            ran = simulated(network, rows, place)
            if ran is not None:
                same = bool(np.array_equal(ran["scores"], scores(network, rows)))
                found[rung.name]["simulated"] = {
                    "rows": len(rows),
                    "same": same,
                    "ms": ran["ms"],
                    "ram": ran["ram"],
                }
    if not all(board.there for board in BOARDS):
        say(f"boards left out: apt-get install {PACKAGES}")
    return found


def _fitted(bundle: Bundle, room: str) -> dict[str, Any]:
    try:
        return {"room": room, **fit(bundle, DeviceMemory.parse(room)).manifest.document["device"]}
    except UsageError as error:
        return {"room": room, "nothing": str(error)}


def _counts(runs: Sequence[Run]) -> dict[str, int]:
    _, label = rows_of(runs)
    return {name: int((label == at).sum()) for at, name in enumerate(CLASSES)}


def page(found: dict[str, Any]) -> str:
    """The tables (Markdown)."""
    seeds = list(found["seeds"].values())
    first = seeds[0]
    lines = [
        f"Trained on {first['rows']['train']:,} uniflows, judged on {first['rows']['judge']:,} of runs whose tools no "
        f"training used ({', '.join(f'{name} {count:,}' for name, count in first['rows']['classes'].items())}); "
        f"seed {', '.join(map(str, found['seeds']))}"
        + ("; mean and (spread), other tables of the first." if len(seeds) > 1 else "."),
        "",
        "| | judged: accuracy | macro-F1 | held-out runs: accuracy | random rows: accuracy | published | parameters "
        "| constants | published |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| lookup table | {_percent([one['lookup']['judge']['accuracy'] for one in seeds])} "
        f"| {_percent([one['lookup']['judge']['macro_f1'] for one in seeds])} "
        f"| {_percent([one['lookup']['held_out']['accuracy'] for one in seeds])} | | | | | |",
    ]
    for name, (accuracy, size) in PUBLISHED.items():
        rungs = [one["rungs"][name] for one in seeds]
        judge, other = [one["judge"] for one in rungs], [one["random"] for one in rungs]
        shown = [[one["accuracy"] for one in judge], [one["macro_f1"] for one in judge]]
        shown += [[one["accuracy"] for one in rungs], [one["accuracy"] for one in other]]
        lines.append(
            f"| `{name}` | {' | '.join(map(_percent, shown))} | {accuracy} % | {rungs[0]['parameters']:,} "
            f"| {rungs[0]['bytes']:,} B | {size:,} B |"
        )
    return "\n".join(
        [
            *lines,
            "",
            *_classes(first),
            "",
            *_activities(first),
            "",
            *_steps(seeds),
            "",
            *_boards(found),
            "",
            *_devices(first),
            "",
        ]
    )


def _percent(values: Sequence[float]) -> str:
    middle = f"{100 * float(np.mean(values)):.2f} %"
    return (
        middle if len(values) < 2 else f"{middle} ({100 * min(values):.2f}–{100 * max(values):.2f})"
    )


def _classes(first: dict[str, Any]) -> list[str]:
    names = list(first["rows"]["classes"])
    rows = {"lookup table": first["lookup"]["judge"]} | {
        f"`{n}`": one["judge"] for n, one in first["rungs"].items()
    }
    lines = [f"| F1 on the judged runs | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row['f1'].get(one, 0):.3f}" for one in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _activities(first: dict[str, Any]) -> list[str]:
    shown = {name: first["rungs"][name]["activities"] for name in ("original", "optimised_int8")}
    lines = [
        f"| rows in the right class | {' | '.join(f'`{name}`' for name in shown)} | of |",
        "|---|---|---|---|",
    ]
    for activity, (_, rows) in shown["original"].items():
        lines.append(
            f"| {activity} | {' | '.join(f'{one[activity][0]:,}' for one in shown.values())} | {rows:,} |"
        )
    return lines


def _steps(seeds: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| step, from `optimised` | constants | held-out accuracy | macro-F1 |",
        "|---|---|---|---|",
    ]
    for rows in zip(*(one["steps"] for one in seeds), strict=True):
        shown = [_percent([row[key] for row in rows]) for key in ("accuracy", "macro_f1")]
        lines.append(f"| {rows[0]['step']} | {rows[0]['bytes']:,} B | {' | '.join(shown)} |")
    return lines


def _boards(found: dict[str, Any]) -> list[str]:
    names = [board.name for board in BOARDS]
    first = next(iter(found["seeds"].values()))
    lines = [
        f"| | flash, RAM computed | {' | '.join(f'{name} compiled' for name in names)} | ATmega328P simulated "
        "| C = reference on judged rows |",
        "|---" * (len(names) + 4) + "|",
    ]
    for name, rung in first["rungs"].items():
        board, c = found["boards"][name], rung["in_c"]
        cells = [_cell(board["sizes"].get(one)) for one in names]
        ran = board.get("simulated")
        told = "–"
        if ran:
            same = "same scores" if ran["same"] else "OTHER SCORES"
            told = (
                f"{ran['ms']:.1f} ms, {ran['ram']:,} B RAM with stack, {same} on {ran['rows']} rows"
            )
        agree = f"{c['scores']:,} of {c['rows']:,}"
        lines.append(
            f"| `{name}` | {rung['flash']:,}, {rung['ram']:,} | {' | '.join(cells)} | {told} | {agree} |"
        )
    return lines


def _cell(size: dict[str, int] | None) -> str:
    return "–" if size is None else f"{size['flash']:,}, {size['ram']:,}"


def _devices(first: dict[str, Any]) -> list[str]:
    lines = ["| device | `--fit` | picked | flash, RAM needed |", "|---|---|---|---|"]
    for name, one in first["devices"].items():
        picked = one.get("picked")
        told = (
            f"`{picked}` | {one['flash']:,}, {one['ram']:,}"
            if picked
            else f"nothing | {one['nothing']}"
        )
        lines.append(f"| {name} | `{one['room']}` | {told} |")
    return lines


def put(target: Path, tables: str) -> None:
    """Writes the tables between the page's marks."""
    between(
        target,
        "<!-- tables: python -m tests.bench.devices --page docs/devices.md -->",
        "<!-- end -->",
        tables,
    )


if __name__ == "__main__":
    sys.exit(main())
