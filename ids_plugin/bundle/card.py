"""The model card of a bundle: what it was trained on, what it was judged on, where it is known to
be weak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ids_plugin.bundle.files import Bundle
from ids_plugin.bundle.manifest import CalibrationRecord, Judgement, Manifest
from ids_plugin.schema.score import CLASSES

Line = tuple[str, str]
MAX_WEAK_SPOTS = 8
"""weak spots of the calibration networks that are named"""
NEVER_ALERTS = 1.0
"""threshold that no score exceeds"""


def card(bundle: Bundle) -> list[Line]:
    """A line each: what it is about, and what there is to say."""
    return [
        *_identity(bundle),
        *_training(bundle.manifest),
        *_results(bundle.manifest),
        *_weak_spots(bundle.manifest),
    ]


def _identity(bundle: Bundle) -> Iterator[Line]:
    manifest = bundle.manifest
    yield "id", bundle.id
    licence = manifest.licence or "no licence named"
    yield "family", f"{bundle.family} version {bundle.version}, {licence}"
    yield "members", ", ".join(member.name for member in manifest.members)
    sizes = [f"{name} {len(data) / 1000:.1f} kB" for name, data in sorted(bundle.files.items())]
    yield "files", ", ".join(sizes)
    yield "signed", "yes" if bundle.signature else "no"
    schema = manifest.schema
    earlier = "" if schema.earlier is None else f"{schema.earlier} earlier flows, "
    yield "window", f"{earlier}schema {schema.fingerprint[:12]}"


def _training(manifest: Manifest) -> Iterator[Line]:
    training = manifest.training
    amount = f"{training.flows:,} flows, {training.windows:,} windows"
    yield "trained with", f"{amount}, seed {training.seed}"
    for use, data in training.data.items():
        yield f"data: {use}", ", ".join(f"{used.file} ({used.flows:,} flows)" for used in data)
    for name, threshold in sorted(manifest.thresholds.items()):
        yield "threshold", f"{name} {threshold:.4f}"
    if manifest.calibration is not None:
        yield "calibrated on", _calibration(manifest.calibration)
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
