"""What the product says of each class: severity, ATT&CK technique, words; the data is in
classes.toml."""

from __future__ import annotations

import tomllib
import uuid
from functools import cache
from importlib import resources
from typing import NamedTuple

from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES

ATTACK = "https://attack.mitre.org"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "ids-plugin.rules")


class Class(NamedTuple):
    """One class of behaviour, as an analyst is told of it."""

    name: str
    title: str
    severity: str
    """key of schema.alert.SEVERITIES, where the bundle and the detector say nothing else
    (alerts/severity.py)"""
    actor: str
    target: str
    """templates of the message, by the role of the subject"""
    description: str
    threat: Document | None
    """ECS `threat`; None where no technique is known"""

    @property
    def uuid(self) -> str:
        """rule.uuid: the same on every machine and in every version."""
        return str(uuid.uuid5(_NAMESPACE, self.name))


@cache
def classes() -> dict[str, Class]:
    """Class by its name in schema.score.CLASSES, benign left out."""
    table = tomllib.loads(resources.files(__package__).joinpath("classes.toml").read_text("utf-8"))
    return {
        name: _class(name, dict(table[name]), table["tactics"])
        for name in CLASSES
        if name != "benign"
    }


def _class(name: str, entry: Document, tactics: dict[str, str]) -> Class:
    return Class(name=name, threat=_threat(entry.pop("technique"), tactics), **entry)


def _threat(techniques: list[dict[str, str]], tactics: dict[str, str]) -> Document | None:
    if not techniques:
        return None
    ids = list(dict.fromkeys(technique["tactic"] for technique in techniques))
    return {
        "framework": "MITRE ATT&CK",
        "tactic": {
            "id": ids,
            "name": [tactics[tactic] for tactic in ids],
            "reference": [f"{ATTACK}/tactics/{tactic}/" for tactic in ids],
        },
        "technique": {
            "id": [technique["id"] for technique in techniques],
            "name": [technique["name"] for technique in techniques],
            "reference": [f"{ATTACK}/techniques/{technique['id']}/" for technique in techniques],
        },
    }
