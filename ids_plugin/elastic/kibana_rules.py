"""Elastic Security's rules of dashboards/rules/elastic: one a class, one a file.

ids-plugin setup kibana --write-rules dashboards/rules/ids_plugin.ndjson        the file for an import by hand, anew
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

Rule = dict[str, Any]


def rules() -> list[Rule]:
    """The rules as Kibana's interface takes them, by the name of their class. In the files a rule's `note`, its
    investigation guide, is a list of lines."""
    folder = resources.files("ids_dashboards").joinpath("rules/elastic")
    files = sorted(
        (one for one in folder.iterdir() if one.name.endswith(".json")), key=lambda one: one.name
    )
    made = [json.loads(one.read_text("utf-8")) for one in files]
    return [{**one, "note": "\n".join(one["note"])} for one in made]
