"""Takes the pictures of docs/: `python -m tests.support.report_pictures REPORT.html docs`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright


def take(
    browser: Browser, report: Path, picture: Path, scheme: str, keys: tuple[str, ...], height: int
) -> None:
    """One picture of the report, after the keys were pressed."""
    page = browser.new_page(viewport={"width": 1440, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("#timeline svg", state="attached")
    for key in keys:
        page.keyboard.press(key)
    if "Enter" in keys:
        page.wait_for_selector("#votes svg")
    page.wait_for_timeout(500)
    page.screenshot(path=picture)
    page.close()


def main(report: Path, folder: Path) -> None:
    """An overview in the dark theme, the evidence of the second alert in the light one."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        take(browser, report, folder / "report-dark.png", "dark", (), 860)
        take(browser, report, folder / "report-light.png", "light", ("j", "j", "Enter"), 1000)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
