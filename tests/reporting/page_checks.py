"""What is wrong with a page in a browser: on a screen and a phone, in light, in dark, on paper."""

from __future__ import annotations

import re
from pathlib import Path

from chromium import Browser, Tab

MAX_BYTES = 3_000_000
_SCRIPT = Path(__file__).with_name("page_checks.js").read_text(encoding="utf-8")
WIDE, NARROW, HEIGHT = 1280, 400, 800  # pixels of a laptop and a phone
PAPER = 688  # pixels of A4 between margins of 14 mm
# Lower ends of the first table and of the first three pictures, from the top of the page.
_ENDS = (
    "[...document.querySelectorAll('table')].slice(0, 1)"
    ".concat([...document.querySelectorAll('.first svg')].slice(0, 3))"
    ".map(e => e.getBoundingClientRect().bottom)"
)


def problems(browser: Browser, path: Path) -> list[str]:
    """Return all that is wrong with a page, each in a line that says where it shows."""
    tab = Tab(browser, path, width=WIDE)
    try:
        size = path.stat().st_size
        found = [f"size: {size:,} bytes"] * (size >= MAX_BYTES)
        found += _seen(tab, "light")
        tab.prefer(dark=True)
        found += _seen(tab, "dark")
        tab.resize(NARROW)
        found += _seen(tab, "narrow")
        tab.resize(PAPER)
        tab.prefer(dark=True, medium="print")
        found += _seen(tab, "print")
        pdf = tab.pdf()
        found += [] if num_pages(pdf) else [f"print: no pages in {pdf[:20]!r}"]
        return found + tab.complaints() + [f"request: {url}" for url in tab.requests()]
    finally:
        tab.close()


def ends_of_first_screen(browser: Browser, path: Path) -> list[float]:
    """Return where the first table and each of the first three pictures end, in pixels."""
    tab = Tab(browser, path, width=WIDE)
    try:
        return tab.evaluate(_ENDS)
    finally:
        tab.close()


def num_pages(pdf: bytes) -> int:
    """Count the pages of a PDF; 0 if it is none."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf)) if pdf.startswith(b"%PDF-") else 0


def _seen(tab: Tab, where: str) -> list[str]:
    return [f"{where}: {line}" for line in tab.evaluate(_SCRIPT)]
