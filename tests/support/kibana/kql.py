"""KQL → Elasticsearch's query DSL, as Kibana sends it, for the part of KQL that saved objects and
rules here use.

    field: value · field: "a phrase" · field: start* · field: * · field: (a or b) · field >= 5 ·
        and, or, not, ( )

Whatever else KQL has (free text, wildcards in field names, nested fields) is refused.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

Query = dict[str, Any]

RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
TOKEN = re.compile(
    r"""\s+ | (?P<quoted>"(?:\\.|[^"\\])*") | (?P<sign><=|>=|[():<>{}]) | (?P<word>(?:\\.|[^\s():<>{}"\\])+)""",  # noqa: E501
    re.X,
)
ESCAPED = re.compile(r"\\(.)")
LUCENE = re.compile(r'([+\-=&|><!(){}\[\]^"~?:\\/])')


class KqlError(ValueError):
    """A query that Kibana would refuse, or that this translator doesn't know."""


class Token(NamedTuple):
    """A piece of the text: a quoted string, a sign or a word."""

    kind: str
    text: str

    def says(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word


END = Token("end", "")


def to_dsl(kql: str) -> Query:
    """The query; an empty text is everything.

    Raises:
        KqlError: it can't be read.
    """
    if not kql.strip():
        return {"match_all": {}}
    parser = _Parser(kql)
    query = parser.either()
    if parser.next is not END:
        raise KqlError(f"{kql!r}: unexpected {parser.next.text!r}")
    return query


def _tokens(kql: str) -> list[Token]:
    found, at = [], 0
    while at < len(kql):
        match = TOKEN.match(kql, at)
        if match is None:
            raise KqlError(f"{kql!r}: can't be read from {kql[at:]!r} on")
        at = match.end()
        if match.lastgroup:
            found.append(Token(match.lastgroup, match.group(match.lastgroup)))
    return found


class _Parser:
    """or binds weakest, then and, then not."""

    def __init__(self, kql: str) -> None:
        self.kql = kql
        self._rest = iter(_tokens(kql))
        self.next = next(self._rest, END)

    def take(self) -> Token:
        taken, self.next = self.next, next(self._rest, END)
        return taken

    def sign(self, text: str) -> bool:
        """Takes that sign if it is the next."""
        found = self.next == Token("sign", text)
        if found:
            self.take()
        return found

    def either(self) -> Query:
        parts = [self.both()]
        while self.next.says("or"):
            self.take()
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else _any(parts)

    def both(self) -> Query:
        parts = [self.negated()]
        while self.next.says("and"):
            self.take()
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else {"bool": {"filter": parts}}

    def negated(self) -> Query:
        if self.next.says("not"):
            self.take()
            return {"bool": {"must_not": self.negated()}}
        if self.sign("("):
            inner = self.either()
            self.closed()
            return inner
        return self.comparison()

    def closed(self) -> None:
        if not self.sign(")"):
            raise KqlError(f"{self.kql!r}: a bracket is not closed")

    def comparison(self) -> Query:
        field = self.take()
        if field.kind != "word" or "*" in field.text:
            raise KqlError(f"{self.kql!r}: a field is expected, not {field.text!r}")
        name, sign = _plain(field.text), self.take().text
        if sign in RANGES:
            return _any([{"range": {name: {RANGES[sign]: self.value()[1]}}}])
        if sign != ":":
            raise KqlError(
                f"{self.kql!r}: {name} is compared with nothing: free text is not known here"
            )
        return self.values(name)

    def values(self, name: str) -> Query:
        if not self.sign("("):
            return _is(name, *self.value())
        parts = [self.listed(name)]
        while self.next.says("or"):
            self.take()
            parts.append(self.listed(name))
        self.closed()
        return parts[0] if len(parts) == 1 else _any(parts)

    def listed(self, name: str) -> Query:
        if self.next.says("not"):
            self.take()
            return {"bool": {"must_not": self.listed(name)}}
        return _is(name, *self.value())

    def value(self) -> tuple[str, Any]:
        """(kind, value): words that stand side by side are one value."""
        if self.next.kind == "quoted":
            return "phrase", _plain(self.take().text[1:-1])
        words = []
        while self.next.kind == "word" and not any(
            self.next.says(word) for word in ("and", "or", "not")
        ):
            words.append(self.take().text)
        if not words:
            raise KqlError(f"{self.kql!r}: a value is expected, not {self.next.text!r}")
        text = " ".join(words)
        if re.search(r"(?<!\\)\*", text):
            return "pattern", text
        return "literal", {"true": True, "false": False}.get(text, _plain(text))


def _is(name: str, kind: str, value: Any) -> Query:
    if kind == "pattern" and value == "*":
        return _any([{"exists": {"field": name}}])
    if kind == "pattern":
        return _any(
            [{"query_string": {"fields": [name], "query": LUCENE.sub(r"\\\1", _plain(value))}}]
        )
    return _any([{"match_phrase" if kind == "phrase" else "match": {name: value}}])


def _any(parts: list[Query]) -> Query:
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def _plain(text: str) -> str:
    return ESCAPED.sub(r"\1", text)
