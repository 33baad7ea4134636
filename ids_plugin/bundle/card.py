"""The model card of a bundle: what it was trained on, what it was judged on, and what it is known to be weak at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ids_plugin.bundle.files import Bundle
from ids_plugin.schema.score import CLASSES

Line = tuple[str, str]
SHOWN = 8
"""weak spots of the calibration networks that are named"""


def card(bundle: Bundle) -> list[Line]:
    """A line each: what it is about, and what there is to say."""
    return [
        *_what(bundle),
        *_trained(bundle.manifest),
        *_judged(bundle.manifest),
        *_weak(bundle.manifest),
    ]


def _what(bundle: Bundle) -> Iterator[Line]:
    manifest = bundle.manifest
    yield "id", bundle.id
    yield (
        "family",
        f"{bundle.family} version {bundle.version}, {manifest.get('licence', 'no licence named')}",
    )
    yield "members", ", ".join(member["name"] for member in manifest["members"])
    yield (
        "files",
        ", ".join(
            f"{name} {len(data) / 1000:.1f} kB" for name, data in sorted(bundle.files.items())
        ),
    )
    yield "signed", "yes" if bundle.signature else "no"
    earlier = (
        f"{manifest['schema']['earlier']} earlier flows, "
        if "earlier" in manifest["schema"]
        else ""
    )
    yield "window", f"{earlier}schema {manifest['schema']['fingerprint'][:12]}"


def _trained(manifest: Mapping[str, Any]) -> Iterator[Line]:
    training = manifest.get("training") or {}
    amount = f"{training.get('flows', 0):,} flows, {training.get('windows', 0):,} windows"
    yield "trained with", f"{amount}, seed {training.get('seed')}"
    for use, networks in (training.get("data") or {}).items():
        yield (
            f"data: {use}",
            ", ".join(f"{one['file']} ({one['flows']:,} flows)" for one in networks),
        )
    for name, threshold in sorted((manifest.get("thresholds") or {}).items()):
        yield "threshold", f"{name} {threshold:.4f}"
    if calibration := manifest.get("calibration"):
        files = ", ".join(one["file"] for one in calibration["data"])
        held = calibration["held_back"]
        told = f"{calibration['flows']:,} flows for {calibration['budget_per_day']:g} alerts a day, held back"
        yield "calibrated on", f"{files}: {told} {held['alerts']:,} in {held['hours']:.1f} h"
    yield "compression", str(manifest.get("compression") or "none")


def _judged(manifest: Mapping[str, Any]) -> Iterator[Line]:
    for split, metrics in (manifest.get("metrics") or {}).items():
        yield f"on {split}", _metrics(metrics)
    for one in manifest.get("judged") or ():
        found, wanted = (sum(counts[at] for counts in one["classes"].values()) for at in (0, 2))
        false = f"{one['false_alerts']} false alerts in {one['hours']:g} h"
        told = f"{found} of {wanted} (host, class) found in class, {false}"
        auc = "" if one["tcp_auc"] is None else f", AUC among TCP flows {one['tcp_auc']:.3f}"
        yield "judged on", f"{', '.join(data['name'] for data in one['data'])}: {told}{auc}"


def _metrics(metrics: Mapping[str, Any]) -> str:
    """What thresholds give on the networks they were fitted to; other metrics as they are."""
    if "activities" not in metrics:
        return str(metrics)
    found = f"{metrics['found_in_class']} of {metrics['activities']} activities found in class"
    return f"{found}, {metrics['false_folds']} false alerts in {metrics['days']:.1f} days (thresholds were fitted here)"


def _weak(manifest: Mapping[str, Any]) -> Iterator[Line]:
    """Classes nobody was trained on, those that never alert, and what was missed where it was judged."""
    known = (manifest.get("training") or {}).get("classes") or CLASSES
    if "thresholds" in manifest and (unknown := [name for name in CLASSES if name not in known]):
        yield "weak spot", f"not trained to name {', '.join(unknown)}"
    if off := [name for name, limit in (manifest.get("thresholds") or {}).items() if limit >= 1.0]:
        yield "weak spot", f"never alerts: {', '.join(sorted(off))}"
    for one in manifest.get("judged") or ():
        for name, (found, any_class, wanted) in one["classes"].items():
            if found < wanted:
                told = f"{found} of {wanted} hosts found in class, {any_class} in any"
                yield (
                    "weak spot",
                    f"{name}: {told} ({one['data'][0]['name']}{', …' if len(one['data']) > 1 else ''})",
                )
    missed = (manifest.get("metrics") or {}).get("calibration", {}).get("missed") or ()
    activities = Counter(" ".join(text.split(" ")[1:]) for text in missed)
    for activity, count in activities.most_common(SHOWN):
        yield "weak spot", f"{activity}: missed in {count} of the calibration networks"


def judgement(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the card keeps of an evaluation; no address."""
    classes: dict[str, list[int]] = {}
    for one in (wanted for network in result["networks"] for wanted in network["wanted"]):
        counts = classes.setdefault(one["class"], [0, 0, 0])
        for at, yes in enumerate((one["found"], one["found_in_any_class"], True)):
            counts[at] += bool(yes)
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
