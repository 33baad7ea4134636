"""The model card of a bundle: what it was trained on, what it was judged on, where it is known to
be weak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ids_plugin.bundle.files import Bundle
from ids_plugin.bundle.manifest import (
    CalibrationRecord,
    DetectorEntry,
    DetectorSources,
    Judgement,
    Manifest,
)
from ids_plugin.schema.score import CLASSES

Line = tuple[str, str]
MAX_WEAK_SPOTS = 8
"""weak spots of the calibration networks that are named"""
MAX_SOURCES = 12
"""data sets of a detector that are named"""
MAX_FILES = 40
"""files of training data that are named"""
NEVER_ALERTS = 1.0
"""threshold that no score exceeds"""


def card(bundle: Bundle) -> list[Line]:
    """A line each: what it is about, and what there is to say."""
    return [
        *_identity(bundle),
        *_detectors(bundle.manifest),
        *_training(bundle.manifest),
        *_results(bundle.manifest),
        *_weak_spots(bundle.manifest),
    ]


def _identity(bundle: Bundle) -> Iterator[Line]:
    manifest = bundle.manifest
    yield "id", bundle.id
    licence = manifest.licence or "no licence named"
    yield "family", f"{bundle.family} version {bundle.version}, {licence}"
    if manifest.members:
        yield "members", ", ".join(member.name for member in manifest.members)
    sizes = [f"{name} {len(data) / 1000:.1f} kB" for name, data in sorted(bundle.files.items())]
    yield "files", ", ".join(sizes)
    yield "signed", "yes" if bundle.signature else "no"
    schema = manifest.schema
    if manifest.detectors:
        yield "schema", schema.fingerprint[:12]
        return
    earlier = "" if schema.earlier is None else f"{schema.earlier} earlier flows, "
    yield "window", f"{earlier}schema {schema.fingerprint[:12]}"


def _detectors(manifest: Manifest) -> Iterator[Line]:
    """Each detector: when it alerts, what it was trained on, figures, weak spots."""
    for entry in manifest.detectors:
        name = entry.name or entry.kind
        yield "detector", f"{name}, kind {entry.kind}: {_alerts_from(entry)}"
        if entry.classes:
            yield f"{name}: names", ", ".join(entry.classes)
        if entry.trained_on is not None:
            yield f"{name}: trained on", _sources(entry.trained_on)
        if entry.figures:
            figures = (f"{figure} {value:,.6g}" for figure, value in entry.figures.items())
            yield f"{name}: measured", ", ".join(figures)
        for weak_spot in entry.weak_spots:
            yield "weak spot", f"{name}: {weak_spot}"
    unnamed = [label for label in CLASSES[1:] if label not in _named_classes(manifest)]
    if manifest.detectors and all(entry.classes for entry in manifest.detectors) and unnamed:
        yield "weak spot", f"no detector names {', '.join(unnamed)}"


def _alerts_from(entry: DetectorEntry) -> str:
    if entry.days_between is not None:
        return f"alerts where benign traffic shows the like once in {entry.days_between:g} days"
    if not entry.thresholds:
        return "each class alerts at the thresholds of its rules"
    limits = (
        f"{label} never" if limit >= NEVER_ALERTS else f"{label} {limit:.4f}"
        for label, limit in sorted(entry.thresholds.items())
    )
    return f"alerts from scores of {', '.join(limits)}"


def _sources(trained_on: DetectorSources) -> str:
    names = list(trained_on.sources[:MAX_SOURCES])
    if len(trained_on.sources) > MAX_SOURCES:
        names.append(f"{len(trained_on.sources) - MAX_SOURCES:,} more")
    amount = (
        f"{trained_on.captures:,} captures, {trained_on.flows:,} flows, {trained_on.hours:,.1f} h"
    )
    return f"{', '.join(names)}: {amount}" if names else amount


def _named_classes(manifest: Manifest) -> set[str]:
    return {label for entry in manifest.detectors for label in entry.classes}


def _training(manifest: Manifest) -> Iterator[Line]:
    training = manifest.training
    if training.flows or not manifest.detectors:
        amount = f"{training.flows:,} flows, {training.windows:,} windows"
        yield "trained with", f"{amount}, seed {training.seed}"
    for use, data in training.data.items():
        files = [f"{used.file} ({used.flows:,} flows)" for used in data]
        more = [f"{len(files) - MAX_FILES:,} more"] if len(files) > MAX_FILES else []
        yield f"data: {use}", ", ".join([*files[:MAX_FILES], *more])
    for name, threshold in sorted(manifest.thresholds.items()):
        yield "threshold", f"{name} {threshold:.4f}"
    if manifest.calibration is not None:
        yield "calibrated on", _calibration(manifest.calibration)
    if not manifest.detectors:
        yield "compression", str([dict(row) for row in manifest.compression] or "none")


def _calibration(calibration: CalibrationRecord) -> str:
    files = ", ".join(used["file"] for used in calibration.data)
    held_back = calibration.held_back
    return (
        f"{files}: {calibration.flows:,} flows for {calibration.budget_per_day:g} alerts a day,"
        f" held back {held_back.alerts:,} in {held_back.hours:.1f} h"
    )


def _results(manifest: Manifest) -> Iterator[Line]:
    for split, metrics in manifest.metrics.items():
        yield f"on {split}", _metrics(metrics)
    for judgement in manifest.judged:
        names = ", ".join(data["name"] for data in judgement.data)
        yield "judged on", f"{names}: {_judgement(judgement)}"


def _judgement(judgement: Judgement) -> str:
    in_class = sum(counts[0] for counts in judgement.classes.values())
    wanted = sum(counts[2] for counts in judgement.classes.values())
    auc = "" if judgement.tcp_auc is None else f", AUC among TCP flows {judgement.tcp_auc:.3f}"
    return (
        f"{in_class} of {wanted} (host, class) found in class,"
        f" {judgement.false_alerts} false alerts in {judgement.hours:g} h{auc}"
    )


def _metrics(metrics: Mapping[str, Any]) -> str:
    """What thresholds give on the networks they were fitted to; other metrics as they are."""
    if "activities" not in metrics:
        return str(metrics)
    return (
        f"{metrics['found_in_class']} of {metrics['activities']} activities found in class,"
        f" {metrics['false_folds']} false alerts in {metrics['days']:.1f} days"
        " (thresholds were fitted here)"
    )


def _weak_spots(manifest: Manifest) -> Iterator[Line]:
    """Classes that nobody was trained on, those that never alert, and what was missed in
    evaluations."""
    known = manifest.training.classes or CLASSES
    unknown = [name for name in CLASSES if name not in known]
    if "thresholds" in manifest.document and unknown:
        yield "weak spot", f"not trained to name {', '.join(unknown)}"
    silent = [name for name, limit in manifest.thresholds.items() if limit >= NEVER_ALERTS]
    if silent:
        yield "weak spot", f"never alerts: {', '.join(sorted(silent))}"
    for judgement in manifest.judged:
        more = ", …" if len(judgement.data) > 1 else ""
        for name, (in_class, in_any_class, wanted) in judgement.classes.items():
            if in_class < wanted:
                result = f"{in_class} of {wanted} hosts found in class, {in_any_class} in any"
                yield "weak spot", f"{name}: {result} ({judgement.data[0]['name']}{more})"
    missed = manifest.metrics.get("calibration", {}).get("missed") or ()
    activities = Counter(" ".join(text.split(" ")[1:]) for text in missed)
    for activity, count in activities.most_common(MAX_WEAK_SPOTS):
        yield "weak spot", f"{activity}: missed in {count} of the calibration networks"


def judgement_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the card keeps of an evaluation, as `Judgement` has it; no address."""
    classes: dict[str, list[int]] = {}
    for network in result["networks"]:
        for wanted in network["wanted"]:
            counts = classes.setdefault(wanted["class"], [0, 0, 0])
            counts[0] += bool(wanted["found"])
            counts[1] += bool(wanted["found_in_any_class"])
            counts[2] += 1
    total, models = result["total"], result["models"]["bundle"]
    return {
        "of": result["bundle"],
        "data": result["data"],
        "protocol": result["protocol"],
        "seed": result["seed"],
        "classes": dict(sorted(classes.items())),
        "median_delay_s": total["median_delay_s"],
        "false_alerts": total["false_alerts"],
        "hours": total["hours"],
        "tcp_auc": models["tcp_auc"],
        "tcp_recall_at_1%": models["tcp_recall_at_1%"],
        "deletion": result["deletion"],
    }
