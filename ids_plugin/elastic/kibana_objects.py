"""What Kibana is given: the objects of dashboards/kibana in the form that its import takes.

One object a file, `<type>/<id>.json`, as Kibana exports it, but with what Kibana keeps as JSON in a
string written out. A string that is the name of a placeholder with a `$` stands for its value.

The file for an import by hand is written anew by:

    ids-plugin setup kibana --write dashboards/kibana/ids_plugin.ndjson
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import orjson

SavedObject = dict[str, Any]

TYPES = ("index-pattern", "search", "lens", "visualization", "dashboard")
"""folders, in the order in which they refer to each other"""

FLOW_URL = (
    "/app/discover#/?_g=(time:(from:now-7d,to:now))&_a=(index:'logs-*',"
    "query:(language:kuery,query:'zeek.session_id%20:%20%22{{value}}%22'))"
)
PACKETS_URL = (
    "/app/discover#/?_g=(time:(from:now-7d,to:now))&_a=(index:'logs-*',"
    "query:(language:kuery,query:'network.community_id%20:%20%22{{value}}%22'))"
)
MODEL_URL = (
    "/app/discover#/?_g=(time:(from:now-90d,to:now))&_a=(index:ids_plugin-alerts,"
    "query:(language:kuery,query:'ids_plugin.bundle.id%20:%20%22{{value}}%22'))"
)
"""where a uid, a community id and a bundle's id lead to unless a site says otherwise: what Kibana
itself knows of them. Kibana puts the value for `{{value}}`, encoded for a URL, and its own base
path and space before a leading `/`."""

BUDGET = 20
"""alerts a day that the analysts of a site can look at, unless it says otherwise"""

DEFAULT_SPACE = "default"

_OURS = re.compile(r"\bids_plugin-\w+")
"""an id of ours, wherever it stands"""

_WRITTEN_OUT = frozenset(
    {"visState", "fields", "fieldAttrs", "fieldFormatMap", "runtimeFieldMap", "sourceFilters"}
)
"""attributes that Kibana keeps as JSON in a string, beside those whose names end in JSON"""

_PARENTS = frozenset({"kibanaSavedObjectMeta", "controlGroupInput"})
"""attributes that hold such attributes"""


def objects(
    *,
    packets_url: str = PACKETS_URL,
    flow_url: str = FLOW_URL,
    model_url: str = MODEL_URL,
    budget: float = BUDGET,
    space: str = DEFAULT_SPACE,
) -> list[SavedObject]:
    """Data views, saved searches, panels and dashboards in import form, always in the same order.

    `packets_url`, `flow_url` and `model_url` hold `{{value}}` where a community id, a Zeek uid and
    a bundle's id go; `budget` in alerts a day. Ids are unique over all spaces of a Kibana, and
    links name them: those of objects for a `space` other than the default one end in its name.
    """
    values = {
        "packets_url": packets_url,
        "flow_url": flow_url,
        "model_url": model_url,
        "budget": f"{budget:g}",
    }
    placeholders = {f"${name}": value for name, value in values.items()}
    folder = resources.files("ids_dashboards").joinpath("kibana")
    files = [
        file
        for kind in TYPES
        for file in sorted(folder.joinpath(kind).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".json")
    ]
    specs = {
        f"$vega/{file.name.removesuffix('.json')}": file.read_text("utf-8")
        for file in folder.joinpath("vega").iterdir()
        if file.name.endswith(".json")
    }
    made = [
        _import_form(json.loads(file.read_text("utf-8")), placeholders | specs) for file in files
    ]
    return (
        made
        if space == DEFAULT_SPACE
        else orjson.loads(_OURS.sub(rf"\g<0>-{space}", orjson.dumps(made).decode()))
    )


def ndjson(saved: Iterable[Mapping[str, Any]]) -> bytes:
    """One object a line, as Kibana imports and exports them."""
    return b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in saved)


def _import_form(written: SavedObject, placeholders: Mapping[str, str]) -> SavedObject:
    filled = _filled(written, placeholders)
    return {**filled, "attributes": _packed(filled["attributes"])}


def _filled(value: Any, placeholders: Mapping[str, str]) -> Any:
    """
    Raises:
        KeyError: there is no such placeholder.
    """
    if isinstance(value, dict):
        return {name: _filled(inner, placeholders) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, placeholders) for inner in value]
    return placeholders[value] if isinstance(value, str) and value.startswith("$") else value


def _packed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with JSON in strings where Kibana wants it."""
    packed: dict[str, Any] = {}
    for name, value in attributes.items():
        if name in _PARENTS:
            packed[name] = _packed(value)
        elif name in _WRITTEN_OUT or name.endswith("JSON"):
            packed[name] = orjson.dumps(value).decode()
        else:
            packed[name] = value
    return packed
