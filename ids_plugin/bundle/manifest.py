"""The manifest of a bundle as typed records: what the model is, what it was trained on, how it is
used.

Every record is made of JSON (`Record.read`), which checks it: a key that is missing or of another
type is refused with its path; null counts as absent. Keys that this version doesn't know are kept.
`document` is the JSON as it was read, so writing a manifest again gives the same bytes and the same
id."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from ids_plugin.errors import BundleError

Json = Mapping[str, Any]
RecordT = TypeVar("RecordT", bound="Record")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object whose known keys are attributes."""

    KEYS: ClassVar[Mapping[str, str]] = {}
    """attribute → key in the JSON, where they differ"""

    document: Json = field(default_factory=dict, repr=False)
    """the JSON object itself, with the keys that have no attribute"""

    @classmethod
    def read(cls, document: object, *, path: str = "", location: str | None = None) -> Self:
        """The record that a JSON object describes.

        Args:
            document: the object.
            path: of the object in its file, such as `members[0]`, for messages.
            location: where the file is, for messages.

        Raises:
            BundleError: a key is missing or has a value of another type; the message has its path.
        """
        try:
            return _record(cls, document, path)
        except _WrongValueError as error:
            raise BundleError(f"manifest.json: {error}", location=location) from error

    def replaced(self, **changes: Any) -> Self:
        """The record with other values of the attributes named, which may be JSON or records.

        Raises:
            BundleError: a value is of another type than the attribute's.
        """
        keys = {self.KEYS.get(name, name): to_json(value) for name, value in changes.items()}
        return type(self).read({**self.document, **keys})


@dataclass(frozen=True, kw_only=True)
class WindowSchema(Record):
    """The windows that the model reads."""

    fingerprint: str
    """SHA-256 (hex) over names, units and order of the columns"""
    earlier: int | None = None
    """flows of the pair before the flow itself; 0 where the model reads uniflows"""
    flow: tuple[tuple[str, str], ...] = ()
    """name and unit of each column; so the next three"""
    step: tuple[tuple[str, str], ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    summary: tuple[tuple[str, str], ...] = ()
    uniflow: tuple[tuple[str, str], ...] | None = None
    """the columns of a model for microcontrollers"""


@dataclass(frozen=True, kw_only=True)
class MemberEntry(Record):
    """One of the models that score together."""

    name: str
    kind: str
    """the plugin that serves it: an entry point of the group `ids_plugin.members`"""
    file: str | None = None
    """its model in the bundle; None where it needs none"""
    classes: tuple[str, ...] = ()
    """of its outputs, in order"""
    shape: Json | None = None
    """of a network for microcontrollers; so all that follow"""
    features: tuple[str, ...] = ()
    weights: str | None = None
    """how weights are stored"""
    flash: int | None = None
    """bytes of flash it needs"""
    ram: int | None = None
    """bytes of RAM it needs"""
    accuracy: float | None = None
    macro_f1: float | None = None

    def require_file(self) -> str:
        """Name of its file.

        Raises:
            BundleError: it has none.
        """
        if self.file is None:
            raise BundleError(f"manifest.json: member {self.name}: file is missing")
        return self.file


@dataclass(frozen=True, kw_only=True)
class DetectorSources(Record):
    """What a detector was trained on, or its thresholds were taken from."""

    sources: tuple[str, ...] = ()
    """names of data sets"""
    captures: int = 0
    flows: int = 0
    hours: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DetectorEntry(Record):
    """One of the detectors that judge side by side; its kind knows the other keys."""

    kind: str
    """the plugin that opens it: an entry point of the group `ids_plugin.detectors`"""
    name: str | None = None
    """what alerts call it"""
    file: str | None = None
    """its model in the bundle; None where it needs none, or several"""
    classes: tuple[str, ...] = ()
    """that it names; empty where nothing is said of it"""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """class → score from which it alerts, where the bundle was calibrated"""
    days_between: float | None = None
    """days of benign traffic in which it alerts once, where its score says how rare something is"""
    trained_on: DetectorSources | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """what was measured of it, on data that it was not trained on"""
    weak_spots: tuple[str, ...] = ()
    """what it is known to miss, or to take for an attack; a sentence each"""


@dataclass(frozen=True, kw_only=True)
class Combination(Record):
    """How the members' probabilities become the bundle's: multinomial logistic over their
    logarithms."""

    weights: Mapping[str, float]
    """by member"""
    bias: Mapping[str, float]
    """by class; classes without one are those that nobody was trained on"""
    floor: float
    """probabilities below count as this"""


@dataclass(frozen=True, kw_only=True)
class PrefilterEntry(Record):
    """The first stage of the cascade."""

    file: str
    features: tuple[str, ...]
    """its columns, in order"""
    threshold: float
    """the members are asked only about flows whose probability is as high"""
    spares_of_benign: float | None = None
    """share of the benign calibration flows below"""


@dataclass(frozen=True, kw_only=True)
class Baseline(Record):
    """What benign training windows have of a feature, on the feature's own scale."""

    low: float
    """5 % quantile"""
    median: float
    high: float
    """95 % quantile"""


@dataclass(frozen=True, kw_only=True)
class DataFile(Record):
    """A file of labelled flows."""

    file: str
    sha256: str
    flows: int


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """How the members were trained."""

    data: Mapping[str, tuple[DataFile, ...]] = field(default_factory=dict)
    """by use: train, stop, calibrate, measure"""
    classes: tuple[str, ...] = ()
    """that at least one member was taught"""
    windows: int = 0
    flows: int = 0
    seed: int | None = None
    options: Json = field(default_factory=dict)
    members: Mapping[str, Json] = field(default_factory=dict)
    """what the trainer of each says of it"""


@dataclass(frozen=True, kw_only=True)
class HeldBack(Record):
    """What thresholds gave on normal traffic that did not fit them."""

    flows: int
    hours: float
    over: int
    alerts: int


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord(Record):
    """How thresholds were fitted to normal traffic of one's own."""

    of: str
    """id of the bundle as it was trained"""
    data: tuple[Json, ...]
    """file and SHA-256 of each input"""
    budget_per_day: float
    flows: int
    thresholds_before: Mapping[str, float]
    """those of training"""
    held_back: HeldBack


@dataclass(frozen=True, kw_only=True)
class Judgement(Record):
    """One evaluation of the bundle on data that it was not trained on."""

    of: str
    """id of the bundle that was evaluated"""
    data: tuple[Json, ...]
    """name, SHA-256 and flows of each network"""
    classes: Mapping[str, tuple[int, int, int]]
    """class → how many (host, class) were alerted in their class, in any, and how many there are"""
    false_alerts: int
    hours: float
    tcp_auc: float | None = None


@dataclass(frozen=True, kw_only=True)
class TooLarge(Record):
    """A rung of the ladder that a device can't hold."""

    name: str
    flash: int
    ram: int


@dataclass(frozen=True, kw_only=True)
class DeviceFit(Record):
    """Which rung of the ladder was picked for a device."""

    asked: Mapping[str, int]
    """bytes of flash and ram that the device has"""
    picked: str
    flash: int
    ram: int
    too_large: tuple[TooLarge, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """All that a bundle says of itself."""

    KEYS: ClassVar[Mapping[str, str]] = {"prefilter": "gate", "baseline": "reference"}

    id: str
    """SHA-256 (hex) over everything else"""
    format: int
    """version of this file's format"""
    files: Mapping[str, str]
    """name → SHA-256 (hex) of every other file"""
    family: str
    version: str
    classes: tuple[str, ...]
    schema: WindowSchema
    members: tuple[MemberEntry, ...]
    detectors: tuple[DetectorEntry, ...] = ()
    task: str | None = None
    licence: str | None = None
    combination: Combination | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """by class; from 1.0 on it never alerts"""
    prefilter: PrefilterEntry | None = None
    baseline: Mapping[str, Baseline] = field(default_factory=dict)
    """by feature"""
    training: TrainingRecord = field(default_factory=TrainingRecord)
    calibration: CalibrationRecord | None = None
    compression: tuple[Json, ...] = ()
    """a row for each step: its name and what it cost"""
    metrics: Mapping[str, Json] = field(default_factory=dict)
    """by split"""
    judged: tuple[Judgement, ...] = ()
    device: DeviceFit | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def trained_classes(self) -> tuple[str, ...]:
        """Classes that at least one member was taught; all where nothing is said of it."""
        return self.training.classes or self.classes


class _WrongValueError(Exception):
    """What is wrong, with the path of the key."""


def to_json(value: Any) -> Any:
    """Records and sequences among `value` as JSON has them."""
    if isinstance(value, Record):
        return value.document
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Attribute → type, without `document`."""
    hints = get_type_hints(cls)
    return {
        attribute.name: hints[attribute.name]
        for attribute in dataclasses.fields(cls)
        if attribute.name != "document"
    }


def _record(cls: type[RecordT], document: object, path: str) -> RecordT:
    if not isinstance(document, Mapping):
        raise _WrongValueError(f"{path or 'the file'} has to be an object")
    required = {
        attribute.name
        for attribute in dataclasses.fields(cls)
        if attribute.default is dataclasses.MISSING
        and attribute.default_factory is dataclasses.MISSING
    }
    values: dict[str, Any] = {"document": document}
    kind: type = cls
    for name, hint in _hints(kind).items():
        key = cls.KEYS.get(name, name)
        where = f"{path}.{key}" if path else key
        if document.get(key) is not None:
            values[name] = _value(hint, document[key], where)
        elif name in required:
            raise _WrongValueError(f"{where} is missing")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the attribute's type has it; `where` is its path."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, where)
    if origin is tuple:
        return _sequence(arguments, value, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _WrongValueError(f"{where} has to be an object")
        return {key: _value(arguments[1], inner, f"{where}.{key}") for key, inner in value.items()}
    if issubclass(hint, Record):
        return _record(hint, value, where)
    return _scalar(hint, value, where)


def _sequence(arguments: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    """A list whose items are all of one type, or of one type each."""
    if not isinstance(value, list | tuple):
        raise _WrongValueError(f"{where} has to be a list")
    items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(items) != len(value):
        raise _WrongValueError(f"{where} has to have {len(items)} items")
    return tuple(
        _value(hint, inner, f"{where}[{index}]")
        for index, (hint, inner) in enumerate(zip(items, value, strict=True))
    )


_SCALARS = {str: "a text", int: "a whole number", float: "a number"}


def _scalar(hint: type, value: Any, where: str) -> Any:
    """Numbers stay as they were read, so that 1 is written as 1 again."""
    accepted = (int, float) if hint is float else hint
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise _WrongValueError(f"{where} has to be {_SCALARS[hint]}, not {value!r}")
    return value
