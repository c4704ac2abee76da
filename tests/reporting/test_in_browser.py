"""Every kind of page in a real browser, and that what is checked there can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import NAMES, Browser, program
from fake_privacy import make_private_run
from fake_runs import make_compare_run, make_late_run, make_train_run
from fake_scale import make_scale_run, scale_summary
from fake_sweep import make_sweep_run
from fake_tasks import make_task_train_run
from fake_tune import make_tune_run
from page_checks import HEIGHT, ends_of_first_screen, problems
from PIL import Image
from test_audit_section import FULL
from test_onboard_report import make_onboard_run
from test_site_map_report import make_map

from rayfed_hn.reporting.report import write_report
from rayfed_hn.slides.contact_sheet import SlideCard, write_contact_sheet

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all pages."""
    path = program()
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is installed")
    started = Browser(path, tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


def _audited(folder: Path) -> Path:
    """A private run that was attacked, with a map of its sites."""
    make_private_run(folder)
    make_map(folder)
    (folder / "audit.json").write_text(json.dumps(FULL))
    return folder


def _failed(folder: Path) -> Path:
    make_train_run(folder)
    summary = {"verb": "train", "status": "failed", "reason": "nothing is left", "seconds": 5}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _sheet(folder: Path) -> Path:
    """A contact sheet with a slide that was kept and one that was set aside."""
    folder.mkdir()
    Image.new("RGB", (300, 200), "#c080a0").save(folder / "one.jpg")
    artefacts = {"pen": 0.12, "blur": 0.004}
    kept = SlideCard("one", folder / "one.jpg", 812, 31.5, artefacts, notes=("no mpp; 0.25 taken",))
    aside = SlideCard("two" * 20, None, reason="it is damaged", remedy="copy it again")
    return write_contact_sheet(folder, "Lakeside", [kept, SlideCard("three"), aside])


_RUNS: dict[str, Callable[[Path], Path]] = {
    "train": make_train_run,
    "late": make_late_run,
    "multiclass": lambda folder: make_task_train_run(folder, "multiclass"),
    "survival": lambda folder: make_task_train_run(folder, "survival"),
    "compare": make_compare_run,
    "noise": lambda folder: make_sweep_run(folder, attacked=True),
    "audit": _audited,
    "scale": lambda folder: make_scale_run(folder, scale_summary()),
    "tune": make_tune_run,
    "onboard": make_onboard_run,
    "failed": _failed,
}


@pytest.mark.parametrize("kind", _RUNS)
def test_a_report_is_well_in_a_browser(browser: Browser, kind: str, tmp_path: Path) -> None:
    report = write_report(_RUNS[kind](tmp_path / kind))
    assert problems(browser, report) == []
    if kind in ("train", "compare", "tune"):
        ends = ends_of_first_screen(browser, report)
        assert len(ends) == 4, "a table and three pictures come first"
        assert max(ends) <= HEIGHT


def test_a_contact_sheet_is_well_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    assert problems(browser, _sheet(tmp_path / "site")) == []


_SOUND = "<svg role='img' aria-label='a dot' width='9' height='9'><rect width='9' height='9'/>"
_FAULTS = {
    "none": ("", None),
    "broken image": (
        "<img alt='x' width='9' height='9' src='data:image/png;base64,AA'/>",
        "broken",
    ),
    "file": ("<img alt='x' width='9' height='9' src='beside.png'/>", "request: file://"),
    "sheet": ("<link rel='stylesheet' href='http://example.org/a.css'/>", "request: http://"),
    "no words": (f"{_SOUND.replace('aria-label', 'data-x')}</svg>", "no words: svg"),
    "hidden": (f"<div style='visibility:hidden'>{_SOUND}</svg></div>", "not seen: svg"),
    "empty": ("<svg role='img' aria-label='x' width='9' height='9'></svg>", "empty: svg"),
    "console": ("<script>console.error('oh')</script>", "console.error: oh"),
    "exception": ("<script>throw new Error('oh')</script>", "exception"),
    "pale": ("<p style='color:#888'>pale</p>", "light: contrast: 3.5"),
    "dark only": ("<p style='color:#222'>words</p>", "dark: contrast: 1."),
    "see-through": ("<p style='opacity:.4'>pale</p>", "light: contrast"),
    "on a shape": (f"{_SOUND}<text y='8' font-size='9'>a</text></svg>", "light: contrast: 1.00"),
    "folded": ("<details><summary>x</summary><p style='color:red'>a</p></details>", "contrast"),
    "two titles": ("<h1>again</h1>", "not one h1"),
    "skipped": ("<h3>deep</h3>", "h3 after 1"),
    "wide": ("<div style='width:1000px'>wide</div>", "narrow: too wide: 1000"),
    "large": (f"<!--{'x' * 3_000_000}-->", "size"),
}


@pytest.mark.parametrize("name", _FAULTS)
def test_a_planted_fault_is_found(browser: Browser, name: str, tmp_path: Path) -> None:
    fault, told = _FAULTS[name]
    theme = "@media (prefers-color-scheme:dark){body{background:#111;color:#eee}}"
    path = tmp_path / "page.html"
    path.write_text(
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'/>"
        "<meta name='viewport' content='width=device-width'/><title>x</title>"
        f"<style>body{{margin:0;background:#fff;color:#000}}{theme}</style></head>"
        f"<body><h1>Title</h1>{fault}</body></html>"
    )
    found = problems(browser, path)
    assert found == [] if told is None else any(told in line for line in found), found
