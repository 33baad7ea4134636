"""What an analyst is promised of every object in dashboards/kibana, as far as the files alone can
show it.

The file for an import by hand is written anew with

    ids-plugin setup kibana --write dashboards/kibana/ids_plugin.ndjson
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.elastic.kibana_objects import TYPES, ndjson, objects
from ids_plugin.schema import alert
from ids_plugin.sinks import ledger_documents
from ids_plugin.windows import spec
from tests.contract.test_ecs import ECS

FOLDER = Path(__file__).parents[2] / "dashboards/kibana"
FILES = sorted(path for kind in TYPES for path in (FOLDER / kind).iterdir())
PANELS = [path for path in FILES if path.parent.name in ("lens", "search", "visualization")]

OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
BLUES = ["#C6E0F2", "#8FC4E5", "#56A5D8", "#0072B2", "#004B75"]
"""from few to many: lightness alone tells them apart"""

SOURCE = {"title", "description", "version", "kibanaSavedObjectMeta"}
ATTRIBUTES = {
    "index-pattern": {
        "title",
        "name",
        "timeFieldName",
        "fields",
        "fieldAttrs",
        "fieldFormatMap",
        "runtimeFieldMap",
    }
    | {"sourceFilters", "allowNoIndex"},
    "search": SOURCE
    | {
        "columns",
        "sort",
        "grid",
        "hideChart",
        "isTextBasedQuery",
        "timeRestore",
        "rowHeight",
        "rowsPerPage",
    },
    "lens": {"title", "description", "visualizationType", "state"},
    "visualization": SOURCE | {"visState", "uiStateJSON"},
    "dashboard": SOURCE
    | {
        "timeRestore",
        "timeFrom",
        "timeTo",
        "refreshInterval",
        "panelsJSON",
        "optionsJSON",
        "controlGroupInput",
    },
}
"""type → attributes that its schema knows in Kibana 8.9 to 9; an import with any other is
refused"""

OURS = {field.name: field.type for field in (*alert.FIELDS, *ledger_documents.FIELDS)}


def load(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return made


def values(made: Any, name: str) -> Iterator[Any]:
    """Every value that stands under a name, however deep."""
    if isinstance(made, dict):
        for key, value in made.items():
            if key == name:
                yield value
            yield from values(value, name)
    elif isinstance(made, list):
        for each in made:
            yield from values(each, name)


def data_view(name: str) -> dict[str, Any]:
    view: dict[str, Any] = load(FOLDER / f"index-pattern/{name}.json")["attributes"]
    return view


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_is_named_after_its_object_and_says_its_versions(path: Path) -> None:
    made = load(path)
    assert (made["type"], made["id"]) == (path.parent.name, path.stem)
    assert made["id"].startswith("ids_plugin-"), "what isn't ours is never overwritten"
    assert made["coreMigrationVersion"] == "8.8.0"
    assert re.fullmatch(r"8\.[0-9]\.0", made["typeMigrationVersion"]), (
        "the oldest Kibana that is supported can read it"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_attributes_are_those_that_kibana_takes(path: Path) -> None:
    made = load(path)
    assert made["attributes"].keys() <= ATTRIBUTES[made["type"]]


def test_the_file_for_an_import_by_hand_is_made_of_the_others() -> None:
    assert (FOLDER / "ids_plugin.ndjson").read_bytes() == ndjson(objects()), (
        "see the top of this file"
    )


@pytest.mark.parametrize("path", PANELS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_is_and_what_it_means_when_it_is_empty(path: Path) -> None:
    attributes = load(path)["attributes"]
    assert attributes["title"].endswith(" [IDS]"), "so that it is found among others"
    description = attributes["description"]
    assert description.endswith(".")
    if attributes.get("visState", {}).get("type") != "markdown":
        assert re.search(r"(^|\. )(Empty|0|0 or -): ", description), description


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_colours_can_be_told_apart_by_everybody(path: Path) -> None:
    made = load(path)
    chosen = {colour for colour in values(made, "color") if colour is not None}
    assert chosen <= OKABE_ITO | set(BLUES)
    assert set(values(made, "name")) & {"status", "positive", "negative", "complementary"} == set()


@pytest.mark.parametrize("name", ["ids_plugin-alerts", "ids_plugin-flows", "ids_plugin-ledger"])
def test_labels_and_formats_are_of_fields_that_there_are(name: str) -> None:
    view = data_view(name)
    named = {*view["fieldAttrs"], *view["fieldFormatMap"]}
    assert {field for field in named if field not in OURS and field not in ECS} == set()


@pytest.mark.parametrize("path", sorted((FOLDER / "search").iterdir()), ids=lambda path: path.stem)
def test_columns_of_a_saved_search_have_names_for_people(path: Path) -> None:
    made = load(path)
    (reference,) = made["references"]
    assert set(made["attributes"]["columns"]) <= set(data_view(reference["id"])["fieldAttrs"])


def test_amounts_have_their_units() -> None:
    formats = data_view("ids_plugin-alerts")["fieldFormatMap"]
    assert formats["event.duration"]["params"]["inputFormat"] == "nanoseconds"
    assert formats["ids_plugin.evidence.flows.duration"]["params"]["inputFormat"] == "seconds"
    amounts = [name for name in OURS if name.endswith("bytes") and name.startswith("ids_plugin.")]
    assert amounts
    assert {formats[name]["id"] for name in amounts} == {"bytes"}
    assert {formats[name]["id"] for name in ("ids_plugin.score", "ids_plugin.threshold")} == {
        "percent"
    }
    said = {
        entry["key"]: entry["value"]
        for entry in formats["event.severity"]["params"]["lookupEntries"]
    }
    assert said == {str(number): word for word, number in alert.SEVERITIES.items()}


def test_features_are_called_what_sentences_call_them() -> None:
    entries = data_view("ids_plugin-alerts")["fieldFormatMap"]["ids_plugin.evidence.features.name"][
        "params"
    ]
    known = spec()
    words = {
        one.name: one.text for one in (*known.flow, *known.step, *known.summary, *known.context)
    }
    assert {entry["key"]: entry["value"] for entry in entries["lookupEntries"]} == words


def test_every_address_leads_to_its_host() -> None:
    view = data_view("ids_plugin-alerts")
    addresses = [name for name in view["fieldAttrs"] if (OURS.get(name) or ECS[name][0]) == "ip"]
    assert len(addresses) >= 5
    for name in addresses:
        assert "/view/ids_plugin-host?" in view["fieldFormatMap"][name]["params"]["urlTemplate"], (
            name
        )


def test_links_say_the_value_and_not_the_address_they_lead_to() -> None:
    for path in (FOLDER / "index-pattern").iterdir():
        for name, made in load(path)["attributes"]["fieldFormatMap"].items():
            if made["id"] == "url" and not made["params"]["urlTemplate"].startswith("$"):
                assert re.search(r"{{(value|rawValue)}}", made["params"]["urlTemplate"]), name
            if made["id"] == "url":
                assert made["params"]["labelTemplate"] == "{{value}}", name


def test_the_page_names_panels_and_pictures_that_there_are() -> None:
    page = (FOLDER.parents[1] / "docs/triage.md").read_text("utf-8")
    titles = {
        load(path)["attributes"]["title"].removesuffix(" [IDS]").partition(":")[0]
        for path in PANELS
    }
    answers = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE)
    named = {
        name.partition(":")[0] for cell in answers for name in re.findall(r"\*([^*]+)\*", cell)
    }
    columns = {"Last flow", "Closed"}
    assert {"Queue", "Seen against expected", "What next"} <= named
    assert named - columns - titles - {"IDS Host", "IDS Triage"} == set()
    for picture in re.findall(r"\]\((pictures/[^)]+)\)", page):
        assert (FOLDER.parents[1] / "docs" / picture).exists(), picture


def test_a_day_shows_every_fold_that_is_open() -> None:
    """A fold lasts a day at most, so the range with which Triage opens holds the opening of each
    that goes on."""
    triage = load(FOLDER / "dashboard/ids_plugin-triage.json")["attributes"]
    assert (triage["timeRestore"], triage["timeFrom"], triage["timeTo"]) == (True, "now-24h", "now")
