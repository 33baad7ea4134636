"""Picks the most accurate rung of a ladder that a device holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ids_plugin.bundle import Bundle, seal
from ids_plugin.compression.tiny.c_header import header
from ids_plugin.compression.tiny.ladder import HELD_OUT, figures, has_ladder, network_of, title
from ids_plugin.errors import UsageError

HEADER = "ids_model.h"
_UNITS = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1024**2, "mb": 1024**2}


@dataclass(frozen=True)
class Room:
    """What a device has left for the model, in bytes."""

    flash: int
    ram: int

    @classmethod
    def parse(cls, text: str) -> Room:
        """Of `flash=32k,ram=2k`; k is 1,024 bytes, m 1,024 of those.

        Raises:
            UsageError: it says something else.
        """
        found: dict[str, int] = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*(flash|ram)\s*=\s*(\d+(?:\.\d+)?)\s*([kKmM]?[bB]?)\s*", part)
            if match is None or match[1] in found:
                raise UsageError(
                    f"{text!r} isn't what a device holds", hint="such as --fit flash=32k,ram=2k"
                )
            found[match[1]] = int(float(match[2]) * _UNITS[match[3].lower()])
        if len(found) < 2:
            absent = ({"flash", "ram"} - found.keys()).pop()
            raise UsageError(
                f"{absent} is missing in {text!r}", hint="such as --fit flash=32k,ram=2k"
            )
        return cls(**found)

    def holds(self, rung: dict[str, Any]) -> bool:
        """Whether a rung's row in the manifest needs no more than there is."""
        return bool(rung["flash"] <= self.flash and rung["ram"] <= self.ram)


def fit(bundle: Bundle, room: Room) -> Bundle:
    """The rung of greatest accuracy on the runs held out, of equal ones the smaller, alone and as a C header.

    `manifest["device"]` has what it needs, and which rungs were too large.

    Raises:
        UsageError: the bundle has no ladder, or the device holds none of it; the message has the smallest's need.
    """
    rungs = bundle.manifest["members"]
    if not has_ladder(bundle):
        raise UsageError(
            "has no ladder to pick from: only tiny_cnn's compressed bundles do",
            location=bundle.location,
        )
    held = [rung for rung in rungs if room.holds(rung)]
    if not held:
        least = min(rungs, key=lambda rung: rung["flash"])
        need = f"{least['flash']:,} bytes of flash and {least['ram']:,} of RAM"
        raise UsageError(
            f"nothing fits into {room.flash:,} and {room.ram:,} bytes: {least['name']} needs {need}"
        )
    best = max(held, key=lambda rung: (rung["accuracy"], -rung["flash"]))
    network = network_of(bundle, best)
    kept = {**best, "file": f"model.{best['file'].rpartition('.')[2]}", "header": HEADER}
    told = {
        "asked": {"flash": room.flash, "ram": room.ram},
        "picked": best["name"], "flash": best["flash"], "ram": best["ram"],
        "too_large": [{key: rung[key] for key in ("name", "flash", "ram")} for rung in rungs if not room.holds(rung)],
    }  # fmt: skip
    text = header(network, title(bundle, best["name"]))
    files = {kept["file"]: bundle.file(best["file"]), HEADER: text.encode()}
    changed = {"members": [kept], "device": told, "metrics": {HELD_OUT: figures([best])}}
    return seal({**bundle.manifest, **changed}, files)


def said(bundle: Bundle) -> list[str]:
    """A line for each rung; where one was picked, what it needs and which were too large."""
    lines = [
        f"{rung['name']:<15} flash {rung['flash']:>7,}  ram {rung['ram']:>5,}  accuracy {rung['accuracy']:.2%}"
        f"  macro-F1 {rung['macro_f1']:.4f}  {rung['weights']}"
        for rung in bundle.manifest["members"]
    ]
    if device := bundle.manifest.get("device"):
        asked = f"{device['asked']['flash']:,} bytes of flash and {device['asked']['ram']:,} of RAM"
        large = ", ".join(
            f"{one['name']} ({one['flash']:,}, {one['ram']:,})" for one in device["too_large"]
        )
        lines.append(f"picked for {asked}; too large: {large or 'none'}")
    return lines
