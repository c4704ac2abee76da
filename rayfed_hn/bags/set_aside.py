"""What the store remembers of slides that it could not take: why, and what to do about it.

One small JSON file beside the bags of the site, so that a run that is killed loses none of them
and a run that goes on does not try again what cannot work.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rayfed_hn.files import write_text

_SUFFIX = ".set_aside.json"


@dataclass(frozen=True)
class SetAsideEntry:
    """One slide that was set aside.

    Attributes:
        slide_id: Name of the slide.
        site: The hospital that owns it.
        reason: What is wrong with it.
        remedy: What the user can do.
        source_sha256: What it was made from; another source is another chance.
    """

    slide_id: str
    site: str
    reason: str
    remedy: str
    source_sha256: str


def remember(root: Path, entry: SetAsideEntry) -> None:
    """Keep why a slide was set aside."""
    path = _path(root, entry.site, entry.slide_id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_text(path, json.dumps(asdict(entry), indent=2) + "\n")


def forget(root: Path, site: str, slide_id: str) -> None:
    """The slide is in the store now."""
    _path(root, site, slide_id).unlink(missing_ok=True)


def find(root: Path, site: str, slide_id: str) -> SetAsideEntry | None:
    """Return what is known of a slide that was set aside; None if nothing is, or it is damaged."""
    return _read(_path(root, site, slide_id))


def list_all(root: Path) -> list[SetAsideEntry]:
    """Return every slide of the store that was set aside, sorted by site and name."""
    found = [_read(path) for path in root.glob(f"site=*/*{_SUFFIX}")]
    return sorted((e for e in found if e is not None), key=lambda e: (e.site, e.slide_id))


def name_of(site: str, slide_id: str) -> str:
    """The file of a slide that was set aside, by its path below the store's folder."""
    return f"site={site}/{slide_id}{_SUFFIX}"


def _path(root: Path, site: str, slide_id: str) -> Path:
    return root / name_of(site, slide_id)


def _read(path: Path) -> SetAsideEntry | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return SetAsideEntry(**{name: str(value) for name, value in values.items()})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
