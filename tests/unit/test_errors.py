"""Errors: one line that says where, what and what to do; the exit codes of the contract."""

from __future__ import annotations

import inspect

import pytest

from ids_plugin import errors
from ids_plugin.errors import IdsPluginError

ALL = [
    one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, IdsPluginError)
]
CODES = {"InputError": 3, "DialectError": 3, "ServiceError": 4}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_exit_code_each_and_a_place_in_the_drawn_tree(kind: type[IdsPluginError]) -> None:
    assert kind.exit_code == CODES.get(kind.__name__, 2)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("location", "hint", "wanted"),
    [
        (None, None, "is cut"),
        ("a.log:7", None, "a.log:7: is cut"),
        (None, "read it again", "is cut (read it again)"),
        ("a.log:7", "read it again", "a.log:7: is cut (read it again)"),
    ],
)
def test_it_says_where_what_and_what_to_do(
    location: str | None, hint: str | None, wanted: str
) -> None:
    assert str(IdsPluginError("is cut", location=location, hint=hint)) == wanted
