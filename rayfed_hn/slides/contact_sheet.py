"""One page per site with all its slides, for people to see what was cut and what was not.

Everything is inside the page: it can be mailed, printed and read without a network. It is well-
formed XML too, so that a slip in the escaping cannot go unseen.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from rayfed_hn.files import write_text

FILE_NAME = "contact-sheet.html"
PICTURE_PX = (360, 360)
JPEG_QUALITY = 80
_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f7f8;--ink:#15191e;--muted:#5a626b;
  --rule:#d5d9de;--bar:#7d8894;--red:#c3352b;--tissue:#009e60;--tile:#0c1428}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171a;--panel:#1c2024;
  --ink:#e9ecef;--muted:#a3abb4;--rule:#3a4149;--bar:#8b96a2;--red:#ff7a6b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
  font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:100rem;margin:0 auto;padding:1.5rem 1.5rem 3rem}
h1{font-size:1.35rem;line-height:1.3;margin:0 0 .3rem;font-weight:650}
h2{font-size:1rem;margin:0 0 .5rem;font-weight:650}
.key{color:var(--muted);margin:0 0 1.3rem}
.key i{display:inline-block;width:1.1em;height:.8em;margin:0 .35em 0 .9em;vertical-align:-.05em;
  border:2px solid var(--tissue);border-radius:3px;background:#fff}
.key i.tile{border:1px solid var(--tile);border-radius:0;box-shadow:0 0 0 2px #fff}
.key i:first-child{margin-left:0}
.aside{border:2px solid var(--red);border-radius:6px;padding:.8rem 1rem;margin:0 0 1.5rem}
.aside h2{color:var(--red)}
.aside ul{list-style:none;margin:0;padding:0;display:grid;gap:.6rem 1.5rem;
  grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr))}
.aside li{display:flex;gap:.7rem;align-items:flex-start;break-inside:avoid;min-width:0}
.aside li>a,.aside li>img{flex:none} .aside img{width:5.5rem;height:4.5rem}
.aside p{margin:0;overflow-wrap:anywhere} .aside .do{color:var(--muted)}
.cards{display:grid;gap:1.3rem 1.2rem;align-items:start;
  grid-template-columns:repeat(auto-fill,minmax(min(16rem,100%),1fr))}
figure{margin:0;min-width:0;break-inside:avoid}
img,.none{display:block;width:100%;height:15rem;object-fit:contain;background:#fff;
  border:1px solid var(--rule);border-radius:4px}
.none{display:grid;place-items:center;background:var(--panel);color:var(--muted)}
figcaption{padding-top:.4rem} b{font-weight:650;overflow-wrap:anywhere}
.count,.note{color:var(--muted);margin:0} .count{font-variant-numeric:tabular-nums}
.note{border-left:2px solid var(--rule);padding-left:.5rem;margin-top:.25rem}
dl{display:grid;grid-template-columns:repeat(4,1fr);gap:0 .7rem;margin:.35rem 0 0;
  font-size:.85em;font-variant-numeric:tabular-nums}
dl div{min-width:0} dt{color:var(--muted);float:left} dd{margin:0;text-align:right}
dd span{display:block;height:3px;margin-top:2px;background:var(--rule);clear:both}
dd span span{margin:0;background:var(--bar)}
a{color:inherit}
@media print{main{padding:0;max-width:none} body{font-size:9pt}
  *{print-color-adjust:exact} .cards{grid-template-columns:repeat(4,1fr);gap:.7rem}
  img,.none{height:9.5rem} .aside li{font-size:8.5pt}}
"""


@dataclass(frozen=True)
class SlideCard:
    """What a page shows of one slide.

    Attributes:
        slide_id: Name of the slide.
        picture: Its picture, if there is one.
        num_tiles: Tiles in its bag.
        tissue_mm2: Area of the tissue in them, in square millimetres.
        artefacts: Mean share of every artefact over its tiles; NaN or absent if not measured.
        reason: Why it was set aside, else empty.
        remedy: What can be done about it.
        notes: What else the user should know.
    """

    slide_id: str
    picture: Path | None = None
    num_tiles: int = 0
    tissue_mm2: float = 0.0
    artefacts: Mapping[str, float] | None = None
    reason: str = ""
    remedy: str = ""
    notes: Sequence[str] = ()


def write_contact_sheet(folder: Path, site: str, cards: Sequence[SlideCard]) -> Path:
    """Write the page of a site, in place of the one before, atomically.

    Args:
        folder: Where to write it; pictures inside of it are linked to at their full size.
        site: Name of the site.
        cards: Its slides, in the order of the page. One with a reason was set aside.

    Returns:
        The page. The same cards and pictures give the same bytes.
    """
    kept = [card for card in cards if not card.reason]
    aside = [card for card in cards if card.reason]
    title = _title(site, kept, aside)
    body = [
        f"<h1>{_escape(title)}</h1>",
        '<p class="key"><i></i>taken for tissue<i class="tile"></i>tile that was kept</p>',
        _set_aside(aside, folder),
        f'<div class="cards">{"".join(_card(card, folder) for card in kept)}</div>' * bool(kept),
    ]
    path = folder / FILE_NAME
    write_text(path, _page(title, body))
    return path


def _title(site: str, kept: Sequence[SlideCard], aside: Sequence[SlideCard]) -> str:
    tiles = sum(card.num_tiles for card in kept)
    parts = [_count(len(kept), "slide"), _count(tiles, "tile")]
    if kept:
        parts.append(f"{_area(sum(card.tissue_mm2 for card in kept))} of tissue")
    if aside:
        parts.append(f"{len(aside):,} set aside")
    return f"Site {site}: {', '.join(parts)}"


def _page(title: str, body: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head>'
        '<meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/>'
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _set_aside(cards: Sequence[SlideCard], folder: Path) -> str:
    if not cards:
        return ""
    items = "".join(
        f"<li>{_picture(card, folder)}<div><p><b>{_escape(card.slide_id)}</b> "
        f'{_escape(card.reason)}</p><p class="do">{_escape(card.remedy)}</p></div></li>'
        for card in cards
    )
    title = f"{_count(len(cards), 'slide')} set aside"
    return f'<section class="aside"><h2>{title}</h2><ul>{items}</ul></section>\n'


def _card(card: SlideCard, folder: Path) -> str:
    picture = _picture(card, folder) or '<div class="none">no picture</div>'
    counts = f"{_count(card.num_tiles, 'tile')}, {_area(card.tissue_mm2)} of tissue"
    notes = "".join(f'<p class="note">{_escape(note)}</p>' for note in card.notes)
    return (
        f"<figure>{picture}<figcaption><b>{_escape(card.slide_id)}</b>"
        f'<p class="count">{counts}</p>{_shares(card.artefacts or {})}{notes}'
        "</figcaption></figure>\n"
    )


def _shares(artefacts: Mapping[str, float]) -> str:
    known = {name: share for name, share in artefacts.items() if math.isfinite(share)}
    items = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(_percent(share))}<span>"
        f'<span style="width:{100 * min(max(share, 0), 1):.1f}%"></span></span></dd></div>'
        for name, share in known.items()
    )
    return f"<dl>{items}</dl>" if items else ""


def _picture(card: SlideCard, folder: Path) -> str:
    """Return the picture as an element, or nothing if there is none that can be read."""
    if card.picture is None:
        return ""
    try:
        with Image.open(card.picture, formats=("JPEG", "PNG")) as file:
            file.draft("RGB", (2 * PICTURE_PX[0], 2 * PICTURE_PX[1]))
            small = file.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return ""
    small.thumbnail(PICTURE_PX, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=JPEG_QUALITY, optimize=True)
    inside = base64.b64encode(data.getvalue()).decode()
    image = f'<img src="data:image/jpeg;base64,{inside}" alt="{_escape(card.slide_id)}"/>'
    if not card.picture.is_relative_to(folder):
        return image
    link = "/".join(card.picture.relative_to(folder).parts)
    return f'<a href="{_escape(link)}">{image}</a>'


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _area(mm2: float) -> str:
    return f"{mm2:,.0f} mm²" if mm2 >= 100 else f"{mm2:.3g} mm²"


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")


def _escape(text: object) -> str:
    """Return text for HTML, without characters that XML cannot hold."""
    kept = "".join(c if c.isprintable() else " " for c in str(text))
    return html.escape(kept, quote=True)
