"""Picks the most accurate rung of a ladder that a device holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ids_plugin.bundle import Bundle, MemberEntry, seal
from ids_plugin.compression.tiny.c_header import header
from ids_plugin.compression.tiny.ladder import HELD_OUT, figures, has_ladder, network_of, title
from ids_plugin.errors import UsageError

HEADER = "ids_model.h"
_UNITS = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1024**2, "mb": 1024**2}


@dataclass(frozen=True)
class DeviceMemory:
    """What a device has left for the model, in bytes."""

    flash: int
    ram: int

    @classmethod
    def parse(cls, text: str) -> DeviceMemory:
        """Of `flash=32k,ram=2k`; k is 1,024 bytes, m 1,024 of those.

        Raises:
            UsageError: it says something else.
        """
        sizes: dict[str, int] = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*(flash|ram)\s*=\s*(\d+(?:\.\d+)?)\s*([kKmM]?[bB]?)\s*", part)
            if match is None or match[1] in sizes:
                raise UsageError(
                    f"{text!r} isn't what a device holds", hint="such as --fit flash=32k,ram=2k"
                )
            sizes[match[1]] = int(float(match[2]) * _UNITS[match[3].lower()])
        if len(sizes) < 2:
            absent = ({"flash", "ram"} - sizes.keys()).pop()
            raise UsageError(
                f"{absent} is missing in {text!r}", hint="such as --fit flash=32k,ram=2k"
            )
        return cls(**sizes)

    def holds(self, rung: Rung) -> bool:
        """Whether a rung needs no more than there is."""
        return rung.flash <= self.flash and rung.ram <= self.ram


class Rung(NamedTuple):
    """A rung of the ladder: its entry in the manifest, and what was measured of it."""

    entry: MemberEntry
    flash: int
    """bytes"""
    ram: int
    """bytes"""
    accuracy: float
    macro_f1: float


def rungs_of(bundle: Bundle) -> list[Rung]:
    """The rungs of a bundle's ladder.

    Raises:
        UsageError: it has none.
    """
    rungs = []
    for entry in bundle.manifest.members if has_ladder(bundle) else ():
        flash, ram, accuracy, macro_f1 = entry.flash, entry.ram, entry.accuracy, entry.macro_f1
        if flash is not None and ram is not None and accuracy is not None and macro_f1 is not None:
            rungs.append(Rung(entry, flash, ram, accuracy, macro_f1))
    if not rungs:
        raise UsageError(
            "has no ladder to pick from: only tiny_cnn's compressed bundles do",
            location=bundle.location,
        )
    return rungs


def fit(bundle: Bundle, room: DeviceMemory) -> Bundle:
    """The rung of greatest accuracy on the runs held out, of equal ones the smaller, alone and as a
    C header.

    `manifest.device` has what it needs, and which rungs were too large.

    Raises:
        UsageError: the bundle has no ladder, or the device holds none of it; the message has the
            smallest's need.
    """
    rungs = rungs_of(bundle)
    fitting = [rung for rung in rungs if room.holds(rung)]
    if not fitting:
        smallest = min(rungs, key=lambda rung: rung.flash)
        need = f"{smallest.flash:,} bytes of flash and {smallest.ram:,} of RAM"
        raise UsageError(
            f"nothing fits into {room.flash:,} and {room.ram:,} bytes: "
            f"{smallest.entry.name} needs {need}"
        )
    best = max(fitting, key=lambda rung: (rung.accuracy, -rung.flash))
    name, source = best.entry.name, best.entry.require_file()
    file = f"model.{source.rpartition('.')[2]}"
    device = {
        "asked": {"flash": room.flash, "ram": room.ram},
        "picked": name,
        "flash": best.flash,
        "ram": best.ram,
        "too_large": [
            {"name": rung.entry.name, "flash": rung.flash, "ram": rung.ram}
            for rung in rungs
            if not room.holds(rung)
        ],
    }
    text = header(network_of(bundle, best.entry), title(bundle, name))
    manifest = bundle.manifest.replaced(
        members=[{**best.entry.document, "file": file, "header": HEADER}],
        device=device,
        metrics={HELD_OUT: {name: figures(best.entry.document)}},
    )
    return seal(manifest, {file: bundle.file(source), HEADER: text.encode()})


def described(bundle: Bundle) -> list[str]:
    """A line for each rung; where one was picked, what it needs and which were too large."""
    lines = [
        f"{rung.entry.name:<15} flash {rung.flash:>7,}  ram {rung.ram:>5,}"
        f"  accuracy {rung.accuracy:.2%}  macro-F1 {rung.macro_f1:.4f}  {rung.entry.weights}"
        for rung in rungs_of(bundle)
    ]
    if device := bundle.manifest.device:
        asked = f"{device.asked['flash']:,} bytes of flash and {device.asked['ram']:,} of RAM"
        large = ", ".join(
            f"{rung.name} ({rung.flash:,}, {rung.ram:,})" for rung in device.too_large
        )
        lines.append(f"picked for {asked}; too large: {large or 'none'}")
    return lines
