"""Panels with their answers as HTML and Vega-Lite, much as Kibana shows them, for pictures of a
dashboard's layout."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from tests.support.kibana.dashboard import Panel, Request, View, markdown, view_of
from tests.support.kibana.lens import Column, Layer, Row
from tests.support.kibana.saved import JSON, BrokenError, Objects, opened

EUI = (
    "#54B399",
    "#6092C0",
    "#D36086",
    "#9170B8",
    "#CA8EAE",
    "#D6BF57",
    "#B9A888",
    "#DA8B45",
    "#AA6556",
    "#E7664C",
)
"""Kibana's default palette, colour-blind safe"""
PATTERNS = {
    "YYYY": "%Y",
    "MMM": "%b",
    "MM": "%m",
    "DD": "%d",
    "D,": "%d,",
    "HH": "%H",
    "mm": "%M",
    "ss": "%S",
}
"""moment.js → strftime"""
GAP = 8
ROW = 20
"""pixels between panels, and of a row of the grid"""


class Drawing(NamedTuple):
    """A panel: HTML, or a specification of Vega-Lite or (`vega`) with its answer of Vega."""

    html: str = ""
    lite: JSON | None = None
    vega: JSON | None = None


class Format(NamedTuple):
    """How a data view writes its fields, and what it calls them."""

    forms: Mapping[str, JSON]
    labels: Mapping[str, JSON]
    time: str | None

    def label(self, field: str) -> str:
        return str(self.labels.get(field, {}).get("customLabel", field))

    def text(self, value: Any, field: str | None, own: JSON | None = None, kind: str = "") -> str:
        """A value as Kibana writes it; `own` is a column's own format."""
        if value is None:
            return "-"
        if isinstance(value, list):
            return ", ".join(self.text(one, field, own, kind) for one in value)
        form = own or self.forms.get(field or "", {})
        if kind == "date" or form.get("id") == "date":
            return _date(str(value), form.get("params", {}).get("pattern", ""))
        return _written(value, form)

    def linked(self, field: str | None) -> bool:
        return self.forms.get(field or "", {}).get("id") == "url"


def format_of(view: View) -> Format:
    """What a data view says of its fields."""
    attributes = view.object.attributes
    forms, labels = (
        opened(attributes.get(name, "{}"), view.title) for name in ("fieldFormatMap", "fieldAttrs")
    )
    return Format(forms, labels, view.time)


def drawing(
    objects: Objects, panel: Panel, answered: Sequence[tuple[Request, JSON]], theme: str
) -> Drawing:
    """A panel with the answers to its requests."""
    if panel.kind == "markdown":
        return Drawing(
            MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown(panel))
        )
    request, answer = answered[0]
    if panel.kind == "vega":
        return Drawing(vega=answer)
    if panel.kind == "search":
        view = view_of(objects, panel.object, panel.object.source()["indexRefName"])
        return Drawing(_search(request, answer, format_of(view)))
    return _lens(objects, panel, answered, theme)


def _lens(
    objects: Objects, panel: Panel, answered: Sequence[tuple[Request, JSON]], theme: str
) -> Drawing:
    request, answer = answered[0]
    assert request.layer is not None
    layer, rows = request.layer, request.rows(answer)
    names = [
        name
        for name in panel.object.references
        if name.startswith("indexpattern-datasource-layer-")
    ]
    form = format_of(view_of(objects, panel.object, names[0]))
    kind, state = (
        panel.object.attributes["visualizationType"],
        panel.object.attributes["state"]["visualization"],
    )
    if kind == "lnsMetric":
        return Drawing(_metric(layer, rows, state, form))
    if not rows or all(row.get(one.id) in (None, 0) for row in rows for one in layer.metrics):
        return Drawing('<p class="empty">No results found</p>')
    if kind == "lnsDatatable":
        return Drawing(_table(layer, rows, state, form))
    if kind == "lnsXY":
        return Drawing(lite=_chart(panel, layer, rows, state, theme))
    if kind == "lnsHeatmap":
        return Drawing(lite=_heatmap(layer, rows, state, theme))
    raise BrokenError(f"{panel.place}: {kind} is not drawn here")


def _metric(layer: Layer, rows: list[Row], state: JSON, form: Format) -> str:
    row = rows[0] if rows else {}
    main = layer.columns[state["metricAccessor"]]
    beside = layer.columns.get(state.get("secondaryMetricAccessor", ""))
    said = f"{beside.state['label']} {_cell(beside, row, form)}" if beside else ""
    style = f' style="color: {state["color"]}"' if state.get("color") else ""
    return (
        f'<div class="metric"><h4>{_escape(main.state["label"])}</h4><small>{_escape(said)}</small>'
        f"<b{style}>{_escape(_cell(main, row, form))}</b></div>"
    )


def _table(layer: Layer, rows: list[Row], state: JSON, form: Format) -> str:
    shown = [one for one in state["columns"] if not one.get("hidden")]
    columns = [layer.columns[one["columnId"]] for one in shown]
    order = state.get("sorting")
    if order and order.get("columnId"):
        rows = sorted(
            rows, key=lambda row: _key(row[order["columnId"]]), reverse=order["direction"] == "desc"
        )
    head = "".join(_th(one, column) for one, column in zip(shown, columns, strict=True))
    body = "".join(
        "<tr>"
        + "".join(_td(one, column, row, form) for one, column in zip(shown, columns, strict=True))
        for row in rows[: state.get("paging", {}).get("size", 10)]
    )
    return f"<table><thead><tr>{head}</thead><tbody>{body}</tbody></table>"


def _th(shown: JSON, column: Column) -> str:
    number = " class=number" if column.state["dataType"] == "number" else ""
    return f"<th{number}{_wide(shown)}>{_escape(column.state['label'])}"


def _td(shown: JSON, column: Column, row: Row, form: Format) -> str:
    text, colour = _escape(_cell(column, row, form)), _coloured(shown, row.get(column.id))
    if colour:
        return f'<td class="number" style="background: {colour}; color: #000">{text}'
    number = isinstance(row.get(column.id), int | float) or column.state["dataType"] == "number"
    value = column.operation in ("terms", "last_value")
    link = shown.get("oneClickFilter") or (value and form.linked(column.state["sourceField"]))
    return (
        f"<td{' class=number' if number else ''}{_wide(shown)}>{f'<a>{text}</a>' if link else text}"
    )


def _coloured(shown: JSON, value: Any) -> str:
    if shown.get("colorMode") != "cell" or value is None:
        return ""
    stops = shown["palette"]["params"]["stops"]
    return next((one["color"] for one in stops if value < one["stop"]), str(stops[-1]["color"]))


def _wide(shown: JSON) -> str:
    return f' style="max-width: {shown["width"]}px"' if shown.get("width") else ""


def _chart(panel: Panel, layer: Layer, rows: list[Row], state: JSON, theme: str) -> JSON:
    """Bars or lines over time."""
    (drawn,) = (one for one in state["layers"] if one["layerType"] == "data")
    colours = {
        one["forAccessor"]: one["color"] for one in drawn.get("yConfig", []) if one.get("color")
    }
    points, series = [], []
    for accessor in drawn["accessors"]:
        for row in rows:
            name = (
                row[drawn["splitAccessor"]]
                if drawn.get("splitAccessor")
                else layer.columns[accessor].state["label"]
            )
            points.append({"t": row[drawn["xAccessor"]], "n": row[accessor] or 0, "s": str(name)})
            series.append(str(name))
    names = list(dict.fromkeys(series))
    labels = {layer.columns[name].state["label"]: colour for name, colour in colours.items()}
    scale = {
        "domain": names,
        "range": [labels.get(name, EUI[at % len(EUI)]) for at, name in enumerate(names)],
    }
    legend = {"title": None, "labelLimit": 150} if len(names) > 1 else None
    y = {
        "field": "n",
        "type": "quantitative",
        "title": state.get("yTitle"),
        "axis": {"tickMinStep": 1, "tickCount": 5},
    }
    mark: JSON = (
        {"type": "line", "point": True} if drawn["seriesType"] == "line" else {"type": "bar"}
    )
    main = {"mark": mark, "encoding": _over_time(y, scale, legend)}
    lines = [_line(one) for one in _static_values(panel)]
    return _specification({"data": {"values": points}, "layer": [main, *lines]}, theme)


def _over_time(y: JSON, scale: JSON, legend: JSON | None) -> JSON:
    x = {"field": "t", "type": "temporal", "title": None, "scale": {"type": "utc"}}
    return {
        "x": x,
        "y": y,
        "color": {"field": "s", "type": "nominal", "scale": scale, "legend": legend, "sort": None},
    }


def _static_values(panel: Panel) -> Iterator[JSON]:
    state = panel.object.attributes["state"]
    for layer in state["datasourceStates"]["formBased"]["layers"].values():
        yield from (
            one for one in layer["columns"].values() if one["operationType"] == "static_value"
        )


def _line(column: JSON) -> JSON:
    value = float(column["params"]["value"])
    mark = {"type": "rule", "color": "#D55E00", "strokeDash": [5, 4], "strokeWidth": 2}
    return {
        "data": {"values": [{"v": value}]},
        "mark": mark,
        "encoding": {"y": {"field": "v", "type": "quantitative"}},
    }


def _heatmap(layer: Layer, rows: list[Row], state: JSON, theme: str) -> JSON:
    x, y, value = (state[name] for name in ("xAccessor", "yAccessor", "valueAccessor"))
    points = [{"x": str(row[x]), "y": str(row[y]), "n": row[value]} for row in rows]
    places: dict[str, JSON] = {
        name: {"field": name, "type": "nominal", "title": None, "sort": None} for name in ("x", "y")
    }
    places["x"] |= {"axis": {"labelAngle": -30, "labelLimit": 120}}
    most = max(point["n"] for point in points)
    scale, dark = _palette(state["palette"]["params"], most)
    fill = {"field": "n", "type": "quantitative", "scale": scale, "legend": None}
    ink = {"condition": {"test": f"datum.n >= {dark}", "value": "#fff"}, "value": "#000"}
    cells = {"mark": "rect", "encoding": {**places, "color": fill}}
    said = {"mark": {"type": "text"}, "encoding": {**places, "text": {"field": "n"}, "color": ink}}
    return _specification({"data": {"values": points}, "layer": [cells, said]}, theme)


def _palette(params: JSON, most: float) -> tuple[JSON, float]:
    """The scale of a palette, and from what value on it is dark."""
    stops = [one["stop"] for one in params["colorStops"]]
    if params["rangeType"] == "percent":
        stops = [most * one / 100 for one in stops]
    colours = [one["color"] for one in params["colorStops"]]
    return {"type": "threshold", "domain": stops[1:], "range": colours}, stops[-2]


def _specification(made: JSON, theme: str) -> JSON:
    ink, faint = ("#98a2b3", "#343741") if theme == "dark" else ("#69707d", "#e0e5ee")
    config = {
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {
            "labelColor": ink,
            "titleColor": ink,
            "gridColor": faint,
            "domainColor": faint,
            "tickColor": faint,
        },
        "legend": {"labelColor": ink},
    }
    sizes = {
        "width": "container",
        "height": "container",
        "autosize": {"type": "fit", "contains": "padding"},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **sizes,
        "config": config,
        **made,
    }


def _search(request: Request, answer: JSON, form: Format) -> str:
    hits = answer["hits"]["hits"]
    if not hits:
        return '<p class="empty">No results match your search criteria</p>'
    head = "<th style='width: 150px'>@timestamp" + "".join(
        f"<th>{_escape(form.label(one))}" for one in request.columns
    )
    lines = []
    for hit, row in zip(hits, request.rows(answer), strict=True):
        cells = "".join(
            f"<td>{_linked(form, one, form.text(row.get(one), one))}" for one in request.columns
        )
        lines.append(f"<tr><td>{_date(hit['fields'][form.time][0])}{cells}")
    return f"<table class=wrapped><thead><tr>{head}</thead><tbody>{''.join(lines)}</tbody></table>"


def _linked(form: Format, field: str, text: str) -> str:
    return f"<a>{_escape(text)}</a>" if form.linked(field) else _escape(text)


def _cell(column: Column, row: Row, form: Format) -> str:
    field, counts = column.state.get("sourceField"), column.operation in ("count", "unique_count")
    own = column.params.get("format") or ({"id": "number"} if counts else None)
    return form.text(row.get(column.id), field, own, "" if counts else column.state["dataType"])


def _written(value: Any, form: JSON) -> str:
    kind, params = form.get("id"), form.get("params", {})
    if kind == "static_lookup":
        entries = {one["key"]: one["value"] for one in params["lookupEntries"]}
        return str(entries.get(str(value), value))
    if kind == "url" or isinstance(value, str):
        return str(value)
    if kind == "percent":
        return f"{_number(value * 100, params)}%"
    if kind == "bytes":
        return _bytes(float(value))
    if kind == "duration":
        return f"{value / (1e9 if params.get('inputFormat') == 'nanoseconds' else 1):,.1f} s"
    if kind == "string":
        return str(value)
    return _number(value, params)


def _number(value: float, params: JSON) -> str:
    """As numeral.js does: digits in square brackets only where they say something."""
    fixed, _, optional = str(params.get("pattern", "0,0.[000]")).partition(".")[2].partition("[")
    least = params["decimals"] if "decimals" in params else fixed.count("0")
    text = f"{value:,.{least + optional.count('0') * ('decimals' not in params)}f}"
    while "." in text and text[-1] == "0" and len(text.partition(".")[2]) > least:
        text = text[:-1]
    return text.removesuffix(".")


def _bytes(value: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            return f"{value:,.1f}".removesuffix(".0") + unit
        value /= 1024
    return ""


def _date(text: str, pattern: str = "") -> str:
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    for moment, own in PATTERNS.items() if pattern else ():
        pattern = pattern.replace(moment, own)
    if pattern:
        return f"{at:{pattern}}"
    return f"{at:%b} {at.day}, {at:%Y @ %H:%M:%S}.{at.microsecond // 1000:03d}"


def _key(value: Any) -> tuple[bool, Any]:
    return value is not None, value if value is not None else 0


def _escape(text: str) -> str:
    return html.escape(text)
