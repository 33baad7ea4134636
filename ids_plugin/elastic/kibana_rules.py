"""Elastic Security's rules of dashboards/rules/elastic: one a class, one a file.

The file for an import by hand is written anew by:

    ids-plugin setup kibana --write-rules dashboards/rules/ids_plugin.ndjson
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

Rule = dict[str, Any]


def rules() -> list[Rule]:
    """The rules as Kibana's interface takes them, by the name of their class. In the files a rule's
    `note`, its investigation guide, is a list of lines."""
    folder = resources.files("ids_dashboards").joinpath("rules/elastic")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".json")),
        key=lambda file: file.name,
    )
    made = [json.loads(file.read_text("utf-8")) for file in files]
    return [{**file, "note": "\n".join(file["note"])} for file in made]
