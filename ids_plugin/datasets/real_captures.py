"""Captures of real networks with labels by host, peer, port and time: `real:DIR`.

`DIR/captures/NAME/` holds Zeek's logs of one capture, `conn.log` at least. Tables beside it say
what they are: `labels.csv` (attacks), `benign.csv` (hours and kind of normal traffic) and
`sources.csv` (where each capture came from). docs/real-captures/ has the tables; the traffic is
the publishers'.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from ids_plugin.datasets.labelled_flows import load as load_labelled
from ids_plugin.errors import InputError, UsageError
from ids_plugin.sources.inputs import read_inputs
from ids_plugin.sources.local_networks import Locality
from ids_plugin.sources.ordering import as_scanned, ordered

CONTROL = "command_and_control"
UNCLEAR = "unclear"
ATTACK_KIND = "attack"
"""kind of captures that hold an attack, and so no hours of normal traffic"""
MARGIN_S = 1.0
"""that a flow may begin before `first` or after `last` of its label"""
LONGEST_GAP_S = 3600.0
"""A pause between flows that is longer doesn't count as hours of traffic."""
BATCH_ROWS = 1 << 16
FOLDS: tuple[tuple[str, ...], ...] = (
    ("malware", "m57", "malcolm"),
    ("otrf", "otrfzeek", "ndpi", "misc"),
    ("lateral", "web2", "sentinel", "extra"),
    ("nipun", "cisco", "zeek72h", "markofu", "miner"),
    ("aktaion", "c2", "unit42", "amd", "dns", "zeekbt", "tryzeek"),
    ("idpstool", "ppa", "iot23", "simplescan", "stopddos", "traceshare", "zeektrain", "ics"),
)
"""Families of sources that are left out of training together; others fall to one by their name."""
MALWARE_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "apt29": ("apt29",),
    "cerber": ("cerber",),
    "emotet": ("geodo", "emotet"),
    "empire": ("mpire", "wmi_to_vss"),
    "hancitor": ("hancitor",),
    "icedid": ("icedid",),
    "lokibot": ("loki",),
    "mirai": ("mirai",),
}
"""family → what the name of a capture of it holds"""


@dataclass(frozen=True)
class Capture:
    """One capture, read."""

    name: str
    """`SET__NAME`"""
    source: str
    """the family of sources (set) it belongs to"""
    kind: str
    """of normal traffic: office, home, application, …; ATTACK_KIND where attacks are labelled"""
    is_certain: bool
    """what no label names is normal traffic"""
    is_unclear: bool
    """a malware run whose controller can't be named: nothing in it counts"""
    hours: float
    """from first to last flow, without pauses of more than an hour"""
    flows: pl.DataFrame
    """Flow frame in known order, local flags filled, with `is_attack` (Boolean) and `control_host`
    (String: the host whose remote control a flow belongs to, else null)"""
    sha256: str
    """of its logs"""

    @property
    def fold(self) -> int:
        """Number of the group of sources that is left out with it."""
        return fold_of(self.source)

    @property
    def malware(self) -> frozenset[str]:
        """Malware families in it; its own name where none is known."""
        return malware_families(self.name)


def fold_of(source: str) -> int:
    """Number of a set's fold: the same for all its captures."""
    for number, sources in enumerate(FOLDS):
        if source in sources:
            return number
    return zlib.crc32(source.encode()) % len(FOLDS)


def malware_families(name: str) -> frozenset[str]:
    """Malware families of a capture, by its name."""
    lower = name.lower()
    named = {
        family for family, marks in MALWARE_FAMILIES.items() if any(mark in lower for mark in marks)
    }
    return frozenset(named or {name.partition("__")[2] or name})


def load(spec: str) -> Iterator[Capture]:
    """Captures of `real:DIR`, or of another set of labelled flows (datasets.labelled_flows), whose
    networks without any attack count as normal traffic for certain.

    Raises:
        UsageError: there is no such kind of data.
        InputError: a table or a log is absent or can't be read.
    """
    kind, _, path = spec.partition(":")
    if kind == "real":
        return _real(Path(path))
    if kind in ("zeek", ""):
        raise UsageError(f"no captures called {spec!r}", hint="real:DIR or iot23:FILE")
    return _labelled(kind, spec)


def _real(folder: Path) -> Iterator[Capture]:
    captures = folder / "captures"
    if not captures.is_dir():
        raise InputError("no folder captures there", location=str(folder))
    labels = _by_capture(_table(folder / "labels.csv", _LABEL_COLUMNS))
    benign = _by_capture(_table(folder / "benign.csv", ("capture", "kind", "certain")))
    sources = _by_capture(_table(folder / "sources.csv", ("capture", "set")))
    for path in sorted(captures.iterdir()):
        if path.name in labels or path.name in benign:
            source = sources.get(path.name, [{}])[0].get("set") or path.name.partition("__")[0]
            yield _capture(path, source, labels.get(path.name, ()), benign.get(path.name, ()))


Row = Mapping[str, str | None]
_LABEL_COLUMNS = ("capture", "host", "role", "class", "peer", "port", "first", "last")


def _table(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"can't be read: {str(error).splitlines()[0]}", location=str(path)
        ) from error
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise InputError(f"column {absent[0]!r} is missing", location=str(path))
    return list(table.to_dicts())


def _by_capture(rows: Sequence[Row]) -> dict[str, list[Row]]:
    by_capture: dict[str, list[Row]] = {}
    for row in rows:
        by_capture.setdefault(row["capture"] or "", []).append(row)
    return by_capture


def _capture(path: Path, source: str, labels: Sequence[Row], benign: Sequence[Row]) -> Capture:
    flows = _flows(path)
    is_unclear = any(row["class"] == UNCLEAR for row in labels)
    kind = benign[0]["kind"] if benign else None
    is_certain = benign[0]["certain"] == "yes" if benign else not is_unclear
    clear = [row for row in labels if row["class"] != UNCLEAR]
    return Capture(
        path.name,
        source,
        kind or ATTACK_KIND,
        is_certain,
        is_unclear,
        active_hours(flows),
        _with_labels(flows, clear, path.name),
        _digest(sorted(file for file in path.iterdir() if file.is_file())),
    )


def _flows(path: Path) -> pl.DataFrame:
    """All flows of a capture's logs in known order."""
    steps = read_inputs([str(path)], batch_rows=BATCH_ROWS, stdin=BytesIO())
    frames = list(ordered(steps, batch_rows=BATCH_ROWS, locality=Locality()))
    if not frames:
        raise InputError("no connection in it", location=str(path))
    return pl.concat(frames)


def _digest(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def active_hours(flows: pl.DataFrame) -> float:
    """Hours from the first flow to the last, without pauses of more than an hour."""
    start = np.sort(flows["ts"].dt.epoch("us").to_numpy()) / 1e6
    gaps = np.diff(start)
    return float(gaps[gaps <= LONGEST_GAP_S].sum() / 3600)


def _with_labels(flows: pl.DataFrame, labels: Sequence[Row], name: str) -> pl.DataFrame:
    is_attack = pl.lit(value=False)
    control: pl.Expr = pl.lit(None, pl.String)
    for row in labels:
        fits = _fits(row, name).fill_null(value=False)
        is_attack = is_attack | fits
        if row["class"] == CONTROL:
            control = pl.when(fits).then(pl.lit(row["host"])).otherwise(control)
    return flows.with_columns(is_attack=is_attack, control_host=control)


def _fits(row: Row, name: str) -> pl.Expr:
    """Flows that a row of labels.csv means."""
    subject, other = ("orig_h", "resp_h") if row["role"] == "actor" else ("resp_h", "orig_h")
    fits = pl.col(subject) == row["host"]
    if row["peer"] not in (None, "", "*"):
        fits &= pl.col(other) == row["peer"]
    elif row["class"] == "inbound_noise":
        fits &= ~pl.col(f"local_{other.removesuffix('_h')}").fill_null(value=False)
    if row["port"] not in (None, "", "*"):
        fits &= _has_port(row["port"] or "", name)
    seconds = pl.col("ts").dt.epoch("us") / 1e6
    if row["first"]:
        fits &= seconds >= float(row["first"]) - MARGIN_S
    if row["last"]:
        fits &= seconds <= float(row["last"]) + MARGIN_S
    return fits


def _has_port(text: str, name: str) -> pl.Expr:
    """`80`, `25|587`, `6000-7000`."""
    port = pl.col("resp_p").fill_null(0)
    fits = pl.lit(value=False)
    try:
        for part in text.split("|"):
            low, _, high = part.partition("-")
            fits = fits | port.is_between(int(low), int(high or low))
    except ValueError as error:
        raise InputError(f"{text!r} names no ports", location=f"labels.csv, {name}") from error
    return fits


def _labelled(kind: str, spec: str) -> Iterator[Capture]:
    """Networks of another set; benign flows beside attacks are uncertain."""
    for network in load_labelled(spec):
        flows = as_scanned(network.flows)
        is_attack = pl.col("label") != "benign"
        is_normal = not flows.select(is_attack.any()).item()
        control = pl.when(pl.col("label") == CONTROL).then("orig_h")
        yield Capture(
            f"{kind}__{network.name}",
            kind,
            "iot" if kind == "iot23" else kind,
            is_normal,
            is_unclear=False,
            hours=active_hours(flows),
            flows=flows.with_columns(is_attack=is_attack, control_host=control),
            sha256=network.sha256,
        )
