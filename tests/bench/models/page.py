"""docs/results.md out of finished cells: a table a section, what is missing named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from ids_plugin.schema.score import CLASSES
from tests.bench.models.flows import REPOSITORY
from tests.bench.models.published import COST, ON, OWN
from tests.bench.models.records import SETS
from tests.bench.models.sections import SECTIONS, SOURCES
from tests.bench.models.settings import Settings
from tests.bench.models.store import Cell

Result = dict[str, Any]
Results = Mapping[Cell, Result | None]
Seeds = list[Result]
"""finished cells of one family, seed by seed"""

TITLES = {
    "lab": "The lab's unseen runs",
    "lab-to-iot23": "The lab alone → IoT-23",
    "iot23-left-out": "IoT-23, one scenario left out",
    "together": "Does the deep model earn its place?",
    "sources": "The lab's unseen runs as poorer sources give them",
    "lab-random-rows": "The random stratified protocol on flows",
    "nslkdd": "NSL-KDD (20 % part → KDDTest+)",
    "iotid20": "IoTID20, 1 % sample",
    "cicids2017": "CICIDS2017, 1 % sample",
    "unsw": "UNSW-NB15, the 82,332-row part",
    "cost": "Size, operations, memory, time",
    "compression": "Compression, step by step",
    "ae-lstm": "AE-LSTM, co-trained and apart",
    "devices": "tiny_cnn, the best model each device holds",
    "nab": "Numenta Anomaly Benchmark",
}
ABOUT = {
    "lab": "Trained on simulated networks and the lab's training runs; judged on whole runs with parameters and tools "
    "that no training saw, thresholds frozen before. The lookup table is taught on the same networks.",
    "lab-to-iot23": "The models of the table above: nothing of IoT-23 in training, choice or calibration.",
    "iot23-left-out": "Six models a family, each trained on the lab and on the scenarios it isn't judged on; the six "
    "judgements pooled. Of the scenarios' 116 benign TCP flows most look mislabelled, and 1 % of them is one flow.",
    "together": "The default combination without and with its network: same data, same seeds, combination and "
    "thresholds fitted anew.",
    "sources": "The same models; `suricata` lacks payload bytes and history, `elastic` also what is below a "
    "millisecond. The lookup table knows a flow by its history, so there it knows none.",
    "lab-random-rows": "Rows of the simulated networks and the lab's training runs at random, 70/15/15, stratified: "
    "flows of one attack on both sides. It flatters, and stands here because published figures are made so.",
    "nslkdd": "The headline of the ready-made sets: KDDTest+ has attacks that the training part has not. L-TCN was "
    "trained on it too, without a published figure.",
    "iotid20": "Rows at random, 70/15/15, stratified, as published; the published figures are of the complete set.",
    "cicids2017": "Rows at random, 70/15/15, stratified, as published; the sample has 19 of the set's 78 features and "
    "the labels 0 and 1, the published figures are of the complete set.",
    "unsw": "Rows at random, 70/15/15, stratified, duplicates removed first.",
    "cost": "The models of seed 1 as the product runs them, fp32 and int8 (static, U8S8) taking turns in one process "
    "on one core: the least processor time of many runs, blocks of 64 windows, so a lone flow costs a block. MACs are "
    "those of the ONNX graph; the parameters of trees are nodes. Peak: a fresh process after 1,000 windows.",
    "compression": "`python -m tests.bench.compression`: networks trained longer than those above, compressed step by "
    "step, judged on windows of runs that choose nothing. What it means: [compression.md](compression.md).",
}


PAGES = {
    "compression": "compression.md", "ae-lstm": "results-ae-lstm.md", "devices": "devices.md", "nab": "results-nab.md",
}  # fmt: skip
"""section → what the bench that it calls writes"""
OTHERS = {
    "compression": "compression.md", "devices": "devices.md", "AE-LSTM's variants": "results-ae-lstm.md",
    "time series": "results-nab.md", "rare classes": "results-balance.md", "explanations": "explanations.md",
}  # fmt: skip


def page(settings: Settings, results: Results) -> str:
    """The whole page."""
    lines = [
        "# Every family and baseline, measured",
        "",
        "This page compares the model families that score windows, for those who choose or train one.",
        "",
        "Made by `python -m tests.bench.models --all --page docs/results.md`. What the bundle `anomaly_net` finds, network",
        "by network: [results-anomaly-net.md](results-anomaly-net.md). By class, with confusion matrices:",
        "[results-classes.md](results-classes.md). TON_IoT, BoT-IoT and the complete CICIDS2017 and IoTID20 aren't",
        "here, so the figures published on them can't be repeated; what a published figure is of is said beside it.",
        f"Other pages: {_others()}.",
        "",
        *_settings(settings, results),
    ]
    for name in SECTIONS:
        if name in TITLES:
            lines += ["", f"## {TITLES[name]}", "", *_section(name, results)]
    left = [cell.name for cell, result in results.items() if result is None]
    lines += ["", "## Not run", "", *_left(left)]
    return "\n".join(lines) + "\n"


def _others() -> str:
    """Links to the pages beside this one that are there."""
    there = [
        (title, name) for title, name in OTHERS.items() if (REPOSITORY / "docs" / name).exists()
    ]
    return ", ".join(f"[{title}]({name})" for title, name in there)


def classes(results: Results) -> str:
    """Precision and recall of every class, and the confusion matrices, of seed 1."""
    lines = [
        "# By class",
        "",
        "This page has what each family confuses with what.",
        "",
        "Made with [results.md](results.md); seed 1. Rows of a matrix are the true classes.",
    ]
    for name in SECTIONS:
        found = {
            cell: result
            for cell, result in results.items()
            if cell.section == name and cell.seed == 1
        }
        told = [
            (cell.family, result)
            for cell, result in found.items()
            if result and "classes" in result
        ]
        kinds = [
            (cell.family, result["by_kind"])
            for cell, result in found.items()
            if result and "by_kind" in result
        ]
        if told:
            lines += ["", f"## {TITLES[name]}", "", *_by_class(told), *_by_kind(kinds)]
            for family, result in told:
                lines += [
                    "",
                    f"<details><summary>{family}</summary>",
                    "",
                    *_matrix(result["confusion"]),
                    "",
                    "</details>",
                ]
    return "\n".join(lines) + "\n"


def _settings(settings: Settings, results: Results) -> list[str]:
    made = next(
        (one["made_from"] for cell, one in results.items() if one and "made_from" in one), None
    )
    lines = [
        f"Networks: {settings.epochs} epochs of {settings.windows:,} windows (`cnn_lstm`, the largest: "
        f"{settings.slow_windows:,}), Adam 1e-3, batch 256, the epoch with the least held-out loss kept; LightGBM "
        f"{settings.rounds} trees a class. That is less than they could use: it is what one core does in an evening.",
        "± is the standard deviation over seeds, which change the training and nothing else; `seeds` says how many.",
        "",
        "Macro-F1 counts every class that occurs the same, the likeliest class of each flow being its answer. TCP AUC",
        "and recall are those of the score among TCP flows alone. A (host, class) counts from five attack flows on and",
        "is found when an alert over the frozen threshold names host and class; the delay runs from its first attack",
        "flow. *Elsewhere*: a network's TCP attacks against the TCP flows of the networks where nothing is an attack;",
        "mean over networks: what an attacked one mislabels as benign doesn't judge it.",
        f"Thresholds: at most {settings.false_per_day:g} alerts without an attack a day on the calibration networks.",
    ]
    if made:
        networks, windows = made["networks"], made["windows"]
        lines += [
            "",
            f"Trained on {networks['train']} networks ({made['flows']:,} flows, {windows['train']:,} windows kept, the "
            "lab's runs three times among them), stopped by "
            f"{networks['stop']}, calibrated on {networks['calibrate']}.",
        ]
    return lines


def _section(name: str, results: Results) -> list[str]:
    rows: dict[str, Seeds] = {family: [] for family in SECTIONS[name].families}
    for cell, result in results.items():
        if cell.section == name and result is not None:
            rows[cell.family].append(result)
    lines = [ABOUT[name], ""] if name in ABOUT else []
    if not any(rows.values()):
        own = PAGES.get(name, "")
        there = own and (REPOSITORY / "docs" / own).exists()
        return [
            *lines,
            f"Not run in this run; what its own bench measured: [{own}]({own})."
            if there
            else "Not run.",
        ]
    table = _TABLES.get(name, _records if name in SETS else _flows)
    return [*lines, *table(name, rows)]


def _flows(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    lines = _header("", "seeds", *_FLOW_COLUMNS, "published, on its own data")
    for family, seeds in rows.items():
        if not seeds:
            lines.append(_row(family, "not run"))
            continue
        lines.append(_row(family, str(len(seeds)), *_flow_figures(seeds), OWN.get(family, "–")))
    return lines


_FLOW_COLUMNS = (
    "macro-F1", "malicious or not, F1", "TCP AUC", "TCP recall at 1 % FP", "TCP AUC elsewhere", "recall elsewhere",
    "(host, class) found", "in any class", "median delay", "false alerts", "hours",
)  # fmt: skip
_FLOW_KEYS = (
    "f1",
    "tcp_auc",
    "tcp_recall_at_1%",
    "tcp_auc_elsewhere",
    "tcp_recall_at_1%_elsewhere",
)


def _flow_figures(seeds: Seeds) -> list[str]:
    totals = [one["total"] for one in seeds]
    delays = [one["median_delay_s"] for one in totals if one["median_delay_s"] is not None]
    return [
        _spread([one.get("macro_f1") for one in seeds]),
        *(_spread([one["flows"][key] for one in seeds]) for key in _FLOW_KEYS),
        f"{_count([one['found'] for one in totals])} of {totals[0]['wanted']}",
        _count([one["found_in_any_class"] for one in totals]),
        f"{mean(delays):.0f} s" if delays else "–",
        _count([one["false_alerts"] for one in totals]),
        f"{totals[0]['hours']:.1f}",
    ]


def _records(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    first = next(one for seeds in rows.values() for one in seeds if "rows" in one)
    train, stop, test = first["rows"]
    lines = [
        f"{first['summary']}. {train:,} train, {stop:,} stop early, {test:,} judge ({first['split']}). {_RECORD}"
    ]
    lines += ["", *_header(
        "", "seeds", "accuracy", "macro-F1", "malicious or not, accuracy", "F1", "AUC", "recall at 1 % FP",
        "published accuracy / F1",
    )]  # fmt: skip
    for family, seeds in rows.items():
        if not seeds or "inapplicable" in seeds[0]:
            lines.append(_row(family, seeds[0]["inapplicable"] if seeds else "not run"))
            continue
        figures = [
            _spread([one.get("accuracy") for one in seeds]), _spread([one.get("macro_f1") for one in seeds]),
            _spread([one["binary_accuracy"] for one in seeds]),
            *(_spread([one["flows"][key] for one in seeds]) for key in ("f1", "auc", "recall_at_1%")),
        ]  # fmt: skip
        published = (
            OWN.get(family, "–") if name == "lab-random-rows" else _beside(name, family, seeds)
        )
        lines.append(_row(family, str(len(seeds)), *figures, published))
    return lines


_RECORD = (
    "A record is a window of one step, each number's signed logarithm; every record weighs the same in training. "
    "`lookup` knows a record by its categories; in a set without any, by the one number that tells the classes apart "
    "best, cut in 20; a window by its protocol and outcome."
)


def _beside(section: str, family: str, seeds: Seeds) -> str:
    """The published accuracy and F1, and how far the accuracy measured here is from it."""
    if (section, family) not in ON:
        return "–"
    accuracy, f1 = ON[section, family]
    apart = 100 * (mean(one["accuracy"] for one in seeds) - accuracy)
    return f"{accuracy:.3f} / {f1:.3f}; {apart:+.1f} points"


def _together(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    lines = _header("members", "judged on", "seeds", *_FLOW_COLUMNS)
    for family, seeds in rows.items():
        for judged in ("lab", "iot23"):
            some = [one[judged] for one in seeds if judged in one]
            if some:
                lines.append(_row(family, judged, str(len(some)), *_flow_figures(some)))
    return [*lines, "", *_verdict(rows)]


def _verdict(rows: Mapping[str, Seeds]) -> list[str]:
    """Whichever way it comes out, from the means."""
    without, with_it = rows.values()
    said = []
    for judged, title in (("lab", "On the lab's unseen runs"), ("iot23", "on IoT-23")):
        pairs = [[one[judged] for one in seeds if judged in one] for seeds in (without, with_it)]
        if not all(pairs):
            continue
        gains = []
        for label, get, good in _MEASURES:
            before, after = (mean(float(get(one) or 0.0) for one in seeds) for seeds in pairs)
            change = round(good * (after - before), 4)
            gains.append((label, change, f"{label} {before:.4g} → {after:.4g}"))
        better = [text for _, change, text in gains if change > 0]
        worse = [text for _, change, text in gains if change < 0]
        gained, lost = ("; ".join(some) or "nothing" for some in (better, worse))
        said.append(f"{title} the network makes better: {gained}; worse: {lost}")
    return ["; ".join(said) + "."] if said else []


_MEASURES: tuple[tuple[str, Callable[[Result], Any], int], ...] = (
    ("macro-F1", lambda one: one.get("macro_f1"), 1),
    ("TCP AUC", lambda one: one["flows"]["tcp_auc"], 1),
    ("TCP recall at 1 % FP", lambda one: one["flows"]["tcp_recall_at_1%"], 1),
    ("TCP AUC elsewhere", lambda one: one["flows"]["tcp_auc_elsewhere"], 1),
    ("recall elsewhere", lambda one: one["flows"]["tcp_recall_at_1%_elsewhere"], 1),
    ("found in class", lambda one: one["total"]["found"], 1),
    ("false alerts", lambda one: one["total"]["false_alerts"], -1),
)


def _sources(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    lines = _header("", "source", *_FLOW_COLUMNS)
    for family, seeds in rows.items():
        if not seeds:
            lines.append(_row(family, "not run"))
        for source in SOURCES if seeds else ():
            lines.append(
                _row(family, source, *_flow_figures([one[f"lab/{source}"] for one in seeds]))
            )
    return lines


def _cost(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    lines = _header("", "form", *_COST_COLUMNS, "published")
    for family, seeds in rows.items():
        if not seeds:
            lines.append(_row(family, "not run"))
            continue
        for form, one in seeds[0].items():
            if isinstance(one, dict):
                lines.append(
                    _row(
                        family,
                        form,
                        *_cost_figures(one),
                        COST.get(family, "–") if form == "fp32" else "",
                    )
                )
    return lines


_COST_COLUMNS = (
    "bytes", "deflated", "parameters", "MACs a window", "lone flow, µs", "a flow of 1,000, µs", "times faster",
    "peak MB", "of it the model's",
)  # fmt: skip


def _cost_figures(one: Result) -> list[str]:
    return [
        *(f"{one[key]:,}" for key in ("bytes", "deflated", "parameters")), f"{one['macs']:,}" if one["macs"] else "–",
        f"{one['batch_1_us']:.0f}", f"{one['batch_1000_us']:.2f}",
        *(str(one.get(key, "–")) for key in ("times_faster", "peak_mb", "own_mb")),
    ]  # fmt: skip


def _compression(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    lines = _header(
        "family", "recipe", "after", "macro-F1, held out", "judging runs", *_COST_COLUMNS, "times smaller",
        "points lost",
    )  # fmt: skip
    for family, seeds in rows.items():
        if not seeds:
            lines.append(_row(family, "not run"))
            continue
        recipes = dict(seeds[0]["recipes"])
        full = recipes.pop("published form")
        trained = next(iter(recipes.values()))[0]
        lines.append(
            _row(
                family, "as published, every step computed", "–", *_compressed(full, full, trained)
            )
        )
        lines.append(_row(family, "as trained", "–", *_compressed(trained, full, trained)))
        for recipe, steps in recipes.items():
            lines += [
                _row(family, recipe, one["step"], *_compressed(one, full, trained))
                for one in steps[1:]
            ]
    return lines


def _compressed(one: Result, full: Result, trained: Result) -> list[str]:
    judged = one.get("judge", trained["judge"])
    lost = 100 * (trained["judge"] - judged)
    smaller = f"{full['bytes'] / one['bytes']:.1f}"
    return [f"{one['macro_f1']:.4f}", f"{judged:.4f}", *_cost_figures(one), smaller, f"{lost:.2f}"]


def _elsewhere(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    return [f"Its tables: [{PAGES[name]}]({PAGES[name]})."]


def _nab(name: str, rows: Mapping[str, Seeds]) -> list[str]:
    found = rows["ae_lstm"][0]
    lines = [
        f"{found['series']} series, {found['rows']:,} rows, {found['windows']} anomaly windows; every variant and how "
        "it is scored: [results-nab.md](results-nab.md).", "",
        *_header("", "standard profile, threshold fixed beforehand", "the threshold that scores best over all labels"),
    ]  # fmt: skip
    for detector, profiles in found["detectors"].items():
        standard = profiles["standard"]
        lines.append(_row(detector, f"{standard['fixed']:.1f}", f"{standard['best']:.1f}"))
    return lines


def _by_class(told: Sequence[tuple[str, Result]]) -> list[str]:
    occurring = [name for name in CLASSES if any(name in result["classes"] for _, result in told)]
    lines = ["Precision / recall.", "", *_header("", *occurring)]
    for family, result in told:
        cells = []
        for name in occurring:
            one = result["classes"].get(name)
            cells.append("–" if one is None else f"{one['precision']:.3f} / {one['recall']:.3f}")
        lines.append(_row(family, *cells))
    return lines


def _by_kind(told: Sequence[tuple[str, Mapping[str, Sequence[int]]]]) -> list[str]:
    """(host, class) found in its class, and in any, of those wanted."""
    if not told:
        return []
    wanted = {name: told[0][1][name][0] for name in CLASSES if name in told[0][1]}
    titles = [f"{name}, of {count}" for name, count in wanted.items()]
    rows = [
        _row(family, *(f"{kinds[n][1]} ({kinds[n][2]})" for n in wanted)) for family, kinds in told
    ]
    return ["", "(host, class) found in class (in any).", "", *_header("", *titles), *rows]


def _matrix(confusion: Mapping[str, Mapping[str, int]]) -> list[str]:
    said = [name for name in CLASSES if any(name in row for row in confusion.values())]
    return [
        *_header("", *said),
        *(_row(label, *(f"{row.get(n, 0):,}" for n in said)) for label, row in confusion.items()),
    ]


def _left(names: Sequence[str]) -> list[str]:
    """Cells by section, seeds together."""
    grouped: dict[str, dict[str, list[str]]] = {}
    for section, family, seed in (name.split("/") for name in names):
        grouped.setdefault(section, {}).setdefault(family, []).append(seed)
    return [
        f"- {section}: "
        + ", ".join(f"{family} (seed {', '.join(seeds)})" for family, seeds in families.items())
        for section, families in grouped.items()
    ] or ["Nothing: every cell is there."]


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return f"{mean(known):.3f}" + (f" ± {stdev(known):.3f}" if len(known) > 1 else "")


def _count(values: Sequence[int]) -> str:
    """The counts of the seeds, one where they agree."""
    return str(values[0]) if len(set(values)) == 1 else "/".join(str(value) for value in values)


def _header(*names: str) -> list[str]:
    return [_row(*names), f"|{'---|' * len(names)}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


_TABLES: dict[str, Callable[[str, Mapping[str, Seeds]], list[str]]] = {
    "together": _together, "sources": _sources, "cost": _cost, "compression": _compression,
    "devices": _elsewhere, "ae-lstm": _elsewhere, "nab": _nab, "lab-random-rows": _records,
}  # fmt: skip
