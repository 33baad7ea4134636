"""Takes the pictures of the Vega panels: `python -m tests.support.vega_pictures docs/pictures`.

Of two alerts of the sample capture, scanned, delivered to a real Elasticsearch and asked for as
Kibana asks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from ids_plugin import cli
from ids_plugin.schema.alert import Document
from tests import services
from tests.support import vega
from tests.support.elastic import Stream

SAMPLE = Path(__file__).parents[1] / "lab" / "sample" / "capture.pcap.gz"
SHOWN = {"light": "exfiltration", "dark": "brute_force"}
"""theme → class of which the newest alert is shown"""

TITLES = {
    "attention": "Weight of the earlier flows",
    "features": "What moved the score",
    "expected": "Seen against expected",
    "flows": "The flows it looked at",
}
PAGE = """<!doctype html><style>
  body {{ margin: 0; padding: 8px; width: 1200px; display: grid; grid-template-columns: 1fr 1fr; gap: 8px;
    background: {page}; color: {title}; font: 600 14px Inter, "Helvetica Neue", Helvetica, Arial, sans-serif }}
  section {{ outline: 1px solid {label}55; border-radius: 4px }}
  section > p {{ margin: 0; padding: 8px 8px 0 }}
  #attention, #flows {{ grid-column: 1 / 3 }}
</style><body>{panels}</body>"""  # noqa: E501


def alerts() -> list[Document]:
    """The sample's."""
    with tempfile.TemporaryDirectory() as folder:
        assert cli.main(["scan", str(SAMPLE), "--out", folder, "--quiet"]) == 0
        return [
            json.loads(line) for line in Path(folder, "alerts.ndjson").read_bytes().splitlines()
        ]


def take(browser: Any, answers: dict[str, vega.Answer], theme: str, picture: Path) -> None:
    """Every panel of one alert in one picture, as on the dashboard."""
    page = vega.page_with(browser, [], "UTC", viewport={"width": 1216, "height": 100})
    panels = "".join(
        f"<section id={name}><p>{title}</p><div></div></section>" for name, title in TITLES.items()
    )
    page.set_content(PAGE.format(panels=panels, **vega.THEMES[theme]._asdict()))
    for script in vega.scripts(vega.oldest()):
        page.add_script_tag(path=script)
    for name, answer in answers.items():
        width, height = vega.SIZES[name]
        spec = vega.filled(vega.specs()[name], answer, theme)
        vega.draw(page, spec, width if width > 600 else 595, height, f"#{name} > div")
    page.screenshot(path=picture, full_page=True)
    page.close()


def main(folder: Path) -> None:
    """vega-light.png and vega-dark.png."""
    with services.Elasticsearch() as server, sync_playwright() as playwright:
        stream = Stream(server)
        stream.sink.write(alerts())
        stream.client.indices.refresh(index=stream.name)
        browser = playwright.chromium.launch(executable_path=vega.chromium(), args=["--no-sandbox"])
        for theme, label in SHOWN.items():
            chosen = [{"term": {"ids_plugin.label": label}}]
            answers = {
                name: vega.ask(stream.client, spec, stream.name, chosen)
                for name, spec in vega.specs().items()
            }
            take(browser, answers, theme, folder / f"vega-{theme}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
