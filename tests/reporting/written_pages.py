"""Reports as they are written, to be read by tests."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from rayfed_hn.reporting.report import write_report

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}svg"


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def words(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())
