r"""Lines of log files as messages that tell by themselves what they are: Zeek's TSV as JSON, Zeek's
JSON with its path.

A line of a file means what the file's name and its directives say; a message has neither. Zeek's
JSON becomes `{"conn": {...}}`, as zeek-kafka sends it with tag_json; all else stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ids_plugin.sources.readers import zeek_tsv as tsv

PATH = re.compile(r"(?:.*/)?([a-z][a-z0-9_]*)(?:[.-][^/]*)?\.log(?:\.gz)?")
"""Zeek's files: `conn.log`, `conn.2026-11-21-10-00-00.log`, `conn.10:00:00-11:00:00.log.gz`"""
BARE = b'{"ts":'
"""how Zeek's JSON begins unless somebody has put the path into it"""
NUMBERS = {"count": int, "int": int, "port": int, "time": float, "interval": float, "double": float}
SET = re.compile(r"(?:set|vector)\[(.+)\]")


def messages(name: str, header: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """One message a record.

    Args:
        name: the file's path, which names the log if it is called as Zeek calls its files.
        header: directives before the file's first record, empty if it has none.
        lines: records and directives without their newlines. A TSV record that isn't as its header
            says stays as it is.
    """
    match = PATH.fullmatch(name)
    tag = b'{"%s":' % match[1].encode() if match else b""
    directives = tsv.Header()
    for line in header.splitlines():
        directives = tsv.directive(directives, line)
    for line in lines:
        if line.startswith(b"#"):
            directives = tsv.directive(directives, line)
        elif directives.fields:
            yield _translated(line, directives)
        else:
            yield tag + line + b"}" if tag and line.startswith(BARE) else line


def _translated(line: bytes, header: tsv.Header) -> bytes:
    texts = line.decode("utf-8", "replace").split(header.separator)
    if not len(texts) == len(header.fields) == len(header.types):
        return line
    try:
        record = {
            field: _value(text, kind, header)
            for field, kind, text in zip(header.fields, header.types, texts, strict=True)
            if text != header.unset
        }
    except ValueError:
        return line
    return orjson.dumps({header.path: record} if header.path else record)


def _value(text: str, kind: str, header: tsv.Header) -> Any:
    """A field's value.

    Raises:
        ValueError: it is not of its kind.
    """
    if several := SET.fullmatch(kind):
        parts = [] if text == header.empty else text.split(header.set_separator)
        return [
            None if part == header.unset else _value(part, several[1], header) for part in parts
        ]
    if kind in NUMBERS:
        return NUMBERS[kind](text)
    if kind == "bool":
        return {"T": True, "F": False}[text] if text in ("T", "F") else _no(text)
    return "" if text == header.empty else tsv.unescape(text)


def _no(text: str) -> bool:
    raise ValueError(text)
