"""Takes the pictures of the dashboards: `python -m tests.support.kibana_pictures docs/pictures`.

No Kibana draws them. The layout, titles, queries and formats are those of the saved objects, the
answers those of a real Elasticsearch with the sample's alerts and ledger (scanned and exported);
Vega draws the Vega panels, Vega-Lite the charts, HTML the rest, in Kibana's colours. Descriptions,
which Kibana shows behind an icon, stand under the titles.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

from ids_plugin.schema.alert import Document
from tests import services
from tests.support import vega
from tests.support.kibana import Objects, Panel, ours, panels, requests
from tests.support.kibana.dashboard import controls, vega_spec
from tests.support.kibana.filled import Filled, export_sample
from tests.support.kibana.shown import GAP, ROW, Drawing, drawing

WIDTH = 1440
HEAD = 46
"""pixels of a panel's title and description"""
HOST = "192.168.89.104"
"""an infected device of the sample: it guesses passwords, scans, spreads and carries data out"""

STYLE = """
  * { box-sizing: border-box }
  body { margin: 0; width: %(width)spx; background: %(page)s; color: %(ink)s;
    font: 12px Inter, "Helvetica Neue", Helvetica, Arial, sans-serif }
  header { display: flex; gap: 8px; padding: 8px 8px 0; align-items: center; flex-wrap: wrap }
  header h1 { font-size: 16px; margin: 0 auto 0 0 }
  header span { border: 1px solid %(line)s; border-radius: 4px; padding: 5px 10px; background: %(panel)s }
  header .filter { background: #0077cc; color: #fff; border: 0 }
  main { position: relative; margin: 8px }
  section { position: absolute; overflow: hidden; background: %(panel)s; border: 1px solid %(line)s;
    border-radius: 6px }
  section > h3 { margin: 0; padding: 6px 8px 0; font-size: 13px }
  section > p { margin: 0; padding: 2px 8px 4px; color: %(soft)s; font-size: 11px; white-space: nowrap;
    overflow: hidden; text-overflow: ellipsis }
  section > div { padding: 0 8px }
  .metric { display: flex; flex-direction: column }
  .metric h4 { margin: 0; font-weight: 500 } .metric small { color: %(soft)s; min-height: 14px }
  .metric b { font-size: 22px; text-align: right; white-space: nowrap }
  table { border-collapse: collapse; width: 100%% }
  th { text-align: left; font-weight: 600; border-bottom: 1px solid %(line)s; padding: 3px 6px }
  th, td { white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
  td { border-bottom: 1px solid %(line)s; padding: 3px 6px; vertical-align: top; max-width: 330px }
  .wrapped td { white-space: normal }
  .number { text-align: right; font-variant-numeric: tabular-nums }
  a { color: %(link)s } .empty { text-align: center; color: %(soft)s; padding-top: 30px }
  div > p, div > ol { margin: 2px 0 }
"""  # noqa: E501
COLOURS = {
    "light": {
        "page": "#f7f8fc",
        "panel": "#fff",
        "ink": "#343741",
        "soft": "#69707d",
        "line": "#d3dae6",
        "link": "#0071c2",
    },
    "dark": {
        "page": "#141519",
        "panel": "#1d1e24",
        "ink": "#dfe5ef",
        "soft": "#98a2b3",
        "line": "#343741",
        "link": "#36a2ef",
    },
}


class View(NamedTuple):
    """A picture: of which dashboard, in which theme, with what chosen."""

    name: str
    dashboard: str
    theme: str
    filters: Mapping[str, Any]


def views(queue: str) -> tuple[View, ...]:
    """The pictures to take; `queue` is the fold that stands first."""
    return (
        View("overview-light", "Overview", "light", {}),
        View("overview-dark", "Overview", "dark", {}),
        View("triage-queue-dark", "Triage", "dark", {}),
        View("triage-alert-light", "Triage", "light", {"ids_plugin.fold.id": queue}),
        View("host-light", "Host", "light", {"related.ip": HOST}),
    )


def during(documents: list[Document]) -> tuple[str, str]:
    """The time range that alerts are in."""
    return min(one["event"]["start"] for one in documents), max(
        one["@timestamp"] for one in documents
    )


def take(
    browser: Browser,
    there: Filled,
    objects: Objects,
    view: View,
    time: tuple[str, str],
    picture: Path,
) -> None:
    """One picture."""
    dashboard = objects.dashboard(view.dashboard)
    every = requests(view.dashboard, view.filters, time, namespace=there.namespace, objects=objects)
    answered = [(one, there.ask(one)) for one in every]
    shown = panels(objects, dashboard)
    drawn = {
        panel.id: drawing(
            objects, panel, [one for one in answered if one[0].panel == panel], view.theme
        )
        for panel in shown
    }
    page = browser.new_page(viewport={"width": WIDTH, "height": 100}, timezone_id="UTC")
    page.set_content(_page(objects, view, time, shown, drawn))
    for script in (*vega.NEWEST, vega.ASSETS / "vega-lite.min.js"):
        page.add_script_tag(path=script)
    for panel in shown:
        _draw(page, panel, drawn[panel.id], view.theme)
    page.screenshot(path=picture, full_page=True)
    page.close()
    _shrink(picture)


def _shrink(picture: Path) -> None:
    """To 64 colours."""
    small = picture.with_suffix(".small.png")
    colours = "split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none"
    quiet = ["-nostdin", "-loglevel", "error", "-y"]
    subprocess.run(
        ["ffmpeg", *quiet, "-i", picture, "-vf", colours, "-pred", "mixed", small], check=True
    )
    small.replace(picture)


def _draw(page: Page, panel: Panel, made: Drawing, theme: str) -> None:
    _, _, width, height = _place(panel)
    if made.vega is not None:
        spec = vega.filled(vega_spec(panel), made.vega, theme)
    elif made.lite is not None:
        spec = page.evaluate("spec => vegaLite.compile(spec).spec", made.lite)
    else:
        return
    vega.draw(page, spec, width - 18, height - HEAD - 8, f"#panel-{panel.id} > div")


def _place(panel: Panel) -> tuple[float, int, int, int]:
    """Left, top, width, height in pixels."""
    unit = (WIDTH - 2 * GAP + GAP) / 48
    grid = panel.grid
    height = grid["h"] * ROW + (grid["h"] - 1) * GAP
    return grid["x"] * unit, grid["y"] * (ROW + GAP), round(grid["w"] * unit - GAP), height


def _page(
    objects: Objects,
    view: View,
    time: tuple[str, str],
    shown: list[Panel],
    drawn: Mapping[str, Drawing],
) -> str:
    dashboard = objects.dashboard(view.dashboard)
    chosen = dict(view.filters)
    inputs = [one["explicitInput"] for one in controls(dashboard).values()]
    boxes = [
        f"<span>{escape(one['title'])}: <b>{chosen.pop(one['fieldName'], 'Any')}</b></span>"
        for one in inputs
    ]
    pills = [
        f"<span class=filter>{escape(name)}: {escape(str(value))}</span>"
        for name, value in chosen.items()
    ]
    when = " → ".join(end[:19].replace("T", " ") for end in time)
    head = f"<h1>{escape(dashboard.title)}</h1>{''.join(boxes)}<span>{when}</span>{''.join(pills)}"
    bottom = max(_place(panel)[1] + _place(panel)[3] for panel in shown)
    sections = "".join(_section(panel, drawn[panel.id]) for panel in shown)
    style = STYLE % {**COLOURS[view.theme], "width": WIDTH}
    body = f"<header>{head}</header><main style='height: {bottom}px'>{sections}</main>"
    return f"<!doctype html><style>{style}</style>{body}"


def _section(panel: Panel, made: Drawing) -> str:
    left, top, width, height = _place(panel)
    style = f"left: {left}px; top: {top}px; width: {width}px; height: {height}px"
    said = "" if panel.kind == "markdown" else f"<p>{escape(panel.description)}</p>"
    title = f"<h3>{escape(panel.title)}</h3>" if not panel.config.get("hidePanelTitles") else ""
    return f"<section id='panel-{panel.id}' style='{style}'>{title}{said}<div>{made.html}</div></section>"  # noqa: E501


def main(folder: Path) -> None:
    """dashboard-*.png."""
    objects = ours()
    with (
        services.Elasticsearch() as server,
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as scanned,
    ):
        there = Filled(server, empty=True)
        time = during(export_sample(there, Path(scanned)))
        asked = requests("Triage", {}, time, namespace=there.namespace, objects=objects)
        queue = next(one for one in asked if one.panel and one.panel.id == "queue")
        first = next(iter(queue.rows(there.ask(queue))[0].values()))
        browser = playwright.chromium.launch(executable_path=vega.chromium(), args=["--no-sandbox"])
        for view in views(first):
            take(browser, there, objects, view, time, folder / f"dashboard-{view.name}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
