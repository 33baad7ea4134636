"""Kibana's Vega panels without a Kibana: what each asks Elasticsearch, and what it draws of the
answer in Chromium.

Kibana puts the dashboard's filters and time range into the request of a panel's data block, puts
the answer in the block's place, gives the specification colours of its theme and the size of the
panel, and runs Vega with an interpreter of expressions, so that only what that interpreter knows
may be in them.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import elasticsearch as client

from tests.services.server import built

Spec = dict[str, Any]
Answer = dict[str, Any]

OLDEST = MappingProxyType({"vega": "5.22.1", "vega-interpreter": "1.0.4"})
"""what the oldest Kibana that we write for brings (8.2); newer ones bring newer ones of Vega 5"""

ASSETS = Path(__file__).parents[2] / "ids_plugin" / "sinks" / "assets"
NEWEST = (ASSETS / "vega.min.js", ASSETS / "vega-interpreter.min.js")

SIZES = MappingProxyType(
    {"attention": (1200, 316), "features": (600, 316), "expected": (600, 316), "flows": (1200, 372)}
)
"""panel → width and height in pixels that it gets on the dashboard in a window 1280 wide"""

NARROW = MappingProxyType(
    {"attention": (840, 316), "features": (420, 316), "expected": (420, 316), "flows": (840, 372)}
)
"""the same in a window 900 wide"""


class Theme(NamedTuple):
    """Colours that Kibana gives: of the page, and by Vega's styles of titles and labels."""

    page: str
    title: str
    label: str


THEMES = MappingProxyType(
    {
        "light": Theme("#ffffff", "#343741", "#69707d"),
        "dark": Theme("#1d1e24", "#d4dae5", "#98a2b3"),
    }
)
_CATEGORY = "#54b399"
_FILLED = ("arc", "area", "rect", "symbol", "trail")
_STROKED = ("line", "path", "rule", "shape")

_DRAW = """async ([spec, width, height, into]) => {
  const holder = document.createElement("div");
  holder.style = `width: ${width}px; height: ${height}px`;
  document.querySelector(into).replaceChildren(holder);
  const noise = [], log = vega.logger(vega.Warn);
  log.warn = log.error = (...said) => { noise.push(said.join(" ")); return log; };
  const expr = vega.expressionInterpreter ?? vegaInterpreter.expressionInterpreter;
  const sized = { ...spec, width: "container", height: "container" };
  const view = new vega.View(vega.parse(sized, undefined, { ast: true }), { expr, renderer: "svg", logger: log });
  view.width(width).height(height).initialize(holder).hover();
  await view.runAsync();
  const frame = holder.getBoundingClientRect(), texts = [], marks = {}, tooltips = [];
  const place = (element) => {
    const box = element.getBoundingClientRect();
    return { x: box.x - frame.x, y: box.y - frame.y, width: box.width, height: box.height };
  };
  for (const element of holder.querySelectorAll("svg text")) {
    const lines = [...element.querySelectorAll("tspan")].map((line) => line.textContent);
    const text = (lines.length ? lines.join(" ") : element.textContent).replaceAll("\\u00a0", " ");
    if (text) texts.push({ text, fill: element.getAttribute("fill"), ...place(element) });
  }
  const walk = (mark) => mark.items.forEach((item) => {
    if (mark.marktype === "group") item.items.forEach(walk);
    else if (mark.name) (marks[mark.name] ??= []).push(look(item));
    if (item.tooltip && mark.name) tooltips.push(item.tooltip);
  });
  const look = ({ fill, fillOpacity, bounds }) => ({
    fill, opacity: fillOpacity ?? 1, x: bounds.x1, y: bounds.y1, width: bounds.width(), height: bounds.height(),
  });
  walk(view.scenegraph().root);
  return { texts, marks, tooltips, noise };
}"""  # noqa: E501


class Drawn(NamedTuple):
    """What is to be seen, places in pixels from the panel's upper left corner."""

    texts: list[dict[str, Any]]
    """text, fill, x, y, width, height; the lines of one text joined"""
    marks: dict[str, list[dict[str, Any]]]
    """named mark → fill, opacity, x, y, width, height of each"""
    tooltips: list[dict[str, Any]]
    noise: list[str]
    """warnings and errors of Vega"""

    def said(self) -> list[str]:
        return [one["text"] for one in self.texts]


def specs() -> dict[str, Spec]:
    """Name → specification of every panel that we ship."""
    folder = resources.files("ids_dashboards").joinpath("kibana", "vega")
    found = {
        one.name.removesuffix(".json"): json.loads(one.read_text("utf-8"))
        for one in folder.iterdir()
    }
    return dict(sorted(found.items()))


def request(spec: Spec) -> dict[str, Any]:
    """The data block that asks Elasticsearch; a panel of ours has one."""
    (url,) = (one["url"] for one in spec["data"] if "url" in one)
    asked: dict[str, Any] = url
    return asked


def fields(spec: Spec) -> set[str]:
    """Every field of the index that a panel names."""
    url = request(spec)
    body = url["body"]
    filters = (term for one in body["aggs"].values() for term in one["filter"]["term"])
    return {
        url["%timefield%"],
        *body["_source"],
        *(name for one in body["sort"] for name in one),
        *filters,
    }


def ask(
    server: client.Elasticsearch,
    spec: Spec,
    index: str,
    filters: Iterable[Spec] = (),
    span: tuple[str, str] | None = None,
) -> Answer:
    """The answer of `index` to a panel's request on a dashboard with these filters and this time
    range.

    Raises:
        elasticsearch.ApiError: the request is refused.
    """
    url = request(spec)
    start, end = span or ("2000-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z")
    within = {
        "range": {
            url["%timefield%"]: {"gte": start, "lte": end, "format": "strict_date_optional_time"}
        }
    }
    query = {"bool": {"must": [within], "filter": list(filters), "should": [], "must_not": []}}
    answer: Answer = server.search(index=index, body={**url["body"], "query": query}).body
    return answer


def filled(spec: Spec, answer: Answer, theme: str = "light") -> Spec:
    """What Kibana hands to Vega: the answer instead of the request, and the colours of the
    theme."""
    made = copy.deepcopy(spec)
    for one in made["data"]:
        if one.pop("url", None):
            one["values"] = answer
    config = made["config"]
    config.pop("kibana", None)
    colours = THEMES[theme]
    for style, fill in (("guide-label", colours.label), ("guide-title", colours.title)):
        config.setdefault("style", {}).setdefault(style, {}).setdefault("fill", fill)
    config |= {kind: {"fill": _CATEGORY} for kind in _FILLED} | {
        kind: {"stroke": _CATEGORY} for kind in _STROKED
    }
    config.setdefault("background", "transparent")
    return made


def draw(page: Any, spec: Spec, width: int, height: int, into: str = "body") -> Drawn:
    """What a page that knows Vega draws of a filled specification, in place of what its element
    `into` (CSS) held.

    Raises:
        playwright.sync_api.Error: Vega can't parse or run it.
    """
    return Drawn(**page.evaluate(_DRAW, [spec, width, height, into]))


def page_with(
    browser: Any, scripts: Iterable[Path], zone: str = "Europe/Berlin", **options: Any
) -> Any:
    """An empty page of a browser that stands in a time zone, with Vega."""
    page = browser.new_page(timezone_id=zone, **options)
    page.set_content("<!doctype html><body style='margin: 0'></body>")
    for script in scripts:
        page.add_script_tag(path=script)
    return page


def oldest() -> Path:
    """The folder with the npm packages OLDEST, one folder each; loaded once."""
    return built("vega", [Path(__file__)], _load)


def scripts(folder: Path) -> tuple[Path, Path]:
    """Vega and its interpreter in a folder of npm packages."""
    return (
        folder / "vega/build/vega.min.js",
        folder / "vega-interpreter/build/vega-interpreter.min.js",
    )


def chromium() -> str | None:
    """The browser's program."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def missing() -> str:
    """Why nothing can be drawn here; empty where it can."""
    if not chromium():
        return "needs a Chromium: apt-get install chromium"
    return "" if shutil.which("npm") else "needs npm: apt-get install npm"


def _load(folder: Path) -> None:
    for name, version in OLDEST.items():
        command = [
            "npm",
            "pack",
            "--silent",
            f"{name}@{version}",
            "--pack-destination",
            str(folder),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        packed = folder / f"{name}-{version}.tgz"
        with tarfile.open(packed) as archive:
            archive.extractall(folder / f"{name}.unpacked", filter="data")
        (folder / f"{name}.unpacked" / "package").rename(folder / name)
        (folder / f"{name}.unpacked").rmdir()
        packed.unlink()
