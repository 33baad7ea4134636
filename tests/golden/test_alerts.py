"""Golden documents: a folder of `alerts/` is a test. flows.ndjson (a row, its class and its score)
→ documents.json.

    python -m tests.golden.test_alerts        writes documents.json of every folder anew

Use it when a document was meant to change, and read the diff before it is committed: ids that
change orphan the alerts that analysts have open, and dashboards and rules name the fields.
"""

from __future__ import annotations

import difflib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from ids_plugin.alerts import parse
from ids_plugin.schema.alert import Document
from tests.support.factories import Row, flow, fold, frame, scores

FOLDER = Path(__file__).parent / "alerts"
CASES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def made(case: Path) -> str:
    """The documents of a case, indented, so that a diff can be read."""
    given = [json.loads(line) for line in (case / "flows.ndjson").read_text().splitlines()]
    verdicts = [(one.pop("class"), one.pop("score")) for one in given]
    flows = frame([_flow(one) | {"label_detail": str(at)} for at, one in enumerate(given)])
    ordered = [verdicts[int(at)] for at in flows["label_detail"]]
    allow = case / "allow.toml"
    documents = fold(
        flows,
        scores([label for label, _ in ordered], [score for _, score in ordered]),
        allow=parse(allow.read_text(), allow.name) if allow.exists() else None,
    )[0]
    return json.dumps([_short(one) for one in documents], indent=1, ensure_ascii=False) + "\n"


def _flow(given: Row) -> Row:
    seconds = given.pop("seconds")
    if "duration" in given:
        given["duration"] = timedelta(seconds=given["duration"])
    return flow(seconds, **given)


def _short(document: Document) -> Document:
    """Without the features, which are the factory's and not of this room."""
    del document["ids_plugin"]["evidence"]["features"]
    return document


@pytest.mark.parametrize("name", CASES)
def test_documents_are_those_that_were_agreed_on(name: str) -> None:
    expected = (FOLDER / name / "documents.json").read_text()
    found = made(FOLDER / name)
    if found != expected:
        diff = "".join(
            difflib.unified_diff(
                expected.splitlines(True), found.splitlines(True), "agreed on", "made now", n=2
            )
        )
        pytest.fail(
            f"{diff}\nIf this was meant: python -m tests.golden.test_alerts, and read the diff\n",
            pytrace=False,
        )


if __name__ == "__main__":
    for one in CASES:
        (FOLDER / one / "documents.json").write_text(made(FOLDER / one))
