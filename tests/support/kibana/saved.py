"""Kibana's saved objects in import form, read as Kibana reads them: strings of JSON opened,
references followed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

JSON = dict[str, Any]


class BrokenError(ValueError):
    """An object that Kibana couldn't show."""


class Saved(NamedTuple):
    """One object."""

    type: str
    id: str
    attributes: JSON
    references: Mapping[str, tuple[str, str]]
    """name → type and id of what is meant"""

    @property
    def title(self) -> str:
        return str(self.attributes.get("title", ""))

    @property
    def place(self) -> str:
        """How it is named in complaints."""
        return f"{self.type} {self.title or self.id}"

    def source(self) -> JSON:
        """Its `searchSourceJSON`."""
        return dict(
            opened(
                self.attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}"),
                self.place,
            )
        )


class Objects:
    """A set of objects that refer to each other."""

    def __init__(self, objects: Iterable[Mapping[str, Any]]) -> None:
        self.raw = list(objects)
        self._by_name = {(one["type"], one["id"]): _saved(one) for one in self.raw}

    def __iter__(self) -> Iterator[Saved]:
        return iter(self._by_name.values())

    def of(self, kind: str) -> list[Saved]:
        """All of a type."""
        return [one for one in self if one.type == kind]

    def get(self, kind: str, name: str) -> Saved:
        """
        Raises:
            BrokenError: there is none.
        """
        if (kind, name) not in self._by_name:
            raise BrokenError(f"there is no {kind} {name!r}")
        return self._by_name[kind, name]

    def follow(self, owner: Saved, reference: str) -> Saved:
        """What one of the owner's references means.

        Raises:
            BrokenError: the owner has no such reference, or it leads nowhere.
        """
        if reference not in owner.references:
            raise BrokenError(f"{owner.place}: no reference named {reference!r}")
        return self.get(*owner.references[reference])

    def dashboard(self, name: str) -> Saved:
        """By id, title, or a word of the title that no other dashboard's title has.

        Raises:
            BrokenError: there is none, or there are several.
        """
        every = self.of("dashboard")
        exact = [one for one in every if name in (one.id, one.title)]
        found = exact or [one for one in every if name.lower() in one.title.lower()]
        if len(found) != 1:
            raise BrokenError(f"{len(found)} dashboards are named {name!r}")
        return found[0]


def opened(text: Any, place: str) -> Any:
    """The value of a string of JSON.

    Raises:
        BrokenError: it is none.
    """
    if not isinstance(text, str):
        raise BrokenError(f"{place}: Kibana wants a string of JSON here, not {type(text).__name__}")
    try:
        return json.loads(text)
    except ValueError as error:
        raise BrokenError(f"{place}: {error}") from error


def _saved(one: Mapping[str, Any]) -> Saved:
    references = {
        named["name"]: (named["type"], named["id"]) for named in one.get("references", [])
    }
    return Saved(one["type"], one["id"], one["attributes"], references)
