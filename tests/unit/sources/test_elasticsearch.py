"""What `elasticsearch:URL/INDEX` names; the pages themselves are asked of a real server in
tests/integration."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ids_plugin.elastic.paging import target
from ids_plugin.errors import UsageError
from ids_plugin.sources import ReadOptions
from ids_plugin.sources.elasticsearch import period


@pytest.mark.parametrize(
    ("spec", "url", "index", "query"),
    [
        ("http://es:9200/logs-zeek.connection-*", "http://es:9200", "logs-zeek.connection-*", None),
        ("https://es/proxy/elastic/one,two", "https://es/proxy/elastic", "one,two", None),
        ("https://es:9200/west:logs-*", "https://es:9200", "west:logs-*", None),
        (
            "https://es:9200/a?q=event.dataset:conn%20AND%20a:b",
            "https://es:9200",
            "a",
            "event.dataset:conn AND a:b",
        ),
        ("https://es:9200/%3Clogs-%7Bnow%2Fd%7D%3E", "https://es:9200", "<logs-{now/d}>", None),
        ("https://[::1]:9200/a", "https://[::1]:9200", "a", None),
    ],
)
def test_a_spec_is_an_address_and_what_is_there(
    spec: str, url: str, index: str, query: str | None
) -> None:
    found = target(f"elasticsearch:{spec}")
    assert (found.url, found.index, found.query) == (url, index, query)


@pytest.mark.parametrize(
    "spec", ["", "logs-*", "es:9200/logs", "http:///logs", "http://es:9200", "http://es/a?size=5"]
)
def test_what_names_no_index_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="is not elasticsearch:URL/INDEX"):
        target(f"elasticsearch:{spec}")


def test_a_login_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="password") as refused:
        target("elasticsearch:https://user:hush@es:9200/logs")
    assert "hush" not in str(refused.value)
    assert "***@es:9200" in str(refused.value)


def test_periods_are_asked_for_with_a_second_of_grace() -> None:
    since, until = period(
        ReadOptions(
            since=datetime(1970, 1, 1, 0, 0, 1, 900, UTC),
            until=datetime(1970, 1, 1, 0, 0, 2, 100, UTC),
        )
    )
    assert since["bool"]["should"][0]["range"]["@timestamp"]["gte"] == 0
    assert until["bool"]["must_not"][1]["range"]["event.start"]["gte"] == 3001
    assert period(ReadOptions()) == []
