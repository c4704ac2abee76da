from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rayfed_hn.config import EmbedConfig
from rayfed_hn.slides.contact_sheet import PICTURE_PX, SlideCard, write_contact_sheet
from rayfed_hn.slides.pictures import SIDE_PX, TISSUE_COLOUR, draw_slide
from rayfed_hn.slides.slide import open_slide
from rayfed_hn.slides.tiling import grid, tile_size0
from rayfed_hn.slides.tissue import tissue_fraction, tissue_mask

PAGE = "{http://www.w3.org/1999/xhtml}"
NO_TILES = np.empty((0, 2), np.int64)
PINK = np.array([230, 160, 200], np.uint8)


def _pink(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(PINK, (height, width, 3)).copy()


def _is_green(picture: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(picture, int) - TISSUE_COLOUR).max(-1) < 40


def _is_untouched(picture: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(picture, int) - PINK).max(-1) < 3


def test_without_tissue_and_tiles_the_slide_is_as_it_was() -> None:
    picture = draw_slide(_pink(90, 120), np.zeros((9, 12), np.bool_), NO_TILES, 50.0, (1200, 900))
    assert picture.size == (900, 675)
    assert picture.mode == "RGB"
    assert _is_untouched(picture).all()


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 2000), st.integers(1, 2000))
def test_size_stays_legible_and_in_proportion(width: int, height: int) -> None:
    mask = np.ones((5, 5), np.bool_)
    drawn = draw_slide(_pink(height, width), mask, NO_TILES, 10.0, (width * 7, height * 7))
    longer = max(drawn.size)
    assert SIDE_PX[0] <= longer <= SIDE_PX[1]
    scale = longer / max(width, height)
    assert abs(drawn.width - width * scale) <= 1
    assert abs(drawn.height - height * scale) <= 1


@pytest.mark.parametrize("fine", [1, 3, 30])
def test_tissue_is_outlined_where_it_ends_and_not_filled(fine: int) -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[20:40, 30:60] = True
    mask = mask.repeat(fine, 0).repeat(fine, 1)
    picture = draw_slide(_pink(900, 1200), mask, NO_TILES, 50.0, (12_000, 9000))
    green = _is_green(picture)  # 15 of its pixels are one of the coarse mask
    for y, x in ((300, 675), (600, 675), (450, 450), (450, 900)):
        assert green[y - 4 : y + 4, x - 4 : x + 4].any()
    assert not green[315:585, 465:885].any()
    green[285:615, 435:915] = False
    assert not green.any()


def test_tissue_to_the_edge_is_closed_there() -> None:
    picture = draw_slide(
        _pink(600, 1000), np.ones((60, 100), np.bool_), NO_TILES, 9.0, (5000, 3000)
    )
    green = _is_green(picture)
    for edge in (green[:6], green[-6:], green[:, :6].T, green[:, -6:].T):
        assert edge.any(0).mean() > 0.97
    assert not green[10:-10, 10:-10].any()


def test_every_tile_is_outlined_in_its_place() -> None:
    coords = np.array([[1000, 2000], [6000, 500], [10_000, 7000]])
    nothing = np.zeros((9, 12), np.bool_)
    picture = draw_slide(_pink(900, 1200), nothing, coords, 2000.0, (12_000, 9000))
    marked = ~_is_untouched(picture)
    expected = np.zeros_like(marked)
    for left, top in coords // 10:
        right, bottom = min(left + 200, 1199), min(top + 200, 899)
        box = marked[top : bottom + 1, left : right + 1]
        assert box[0].all()
        assert box[-1].all()
        assert box[:, 0].all()
        assert box[:, -1].all()
        assert not box[3:-3, 3:-3].any()
        expected[top : bottom + 1, left : right + 1] = True
    assert not (marked & ~expected).any()


def test_small_tiles_do_not_hide_the_slide() -> None:
    coords = grid((100_000, 80_000), 0.25, 256, 256, 0.5)
    nothing = np.zeros((9, 12), np.bool_)
    picture = draw_slide(_pink(1000, 1250), nothing, coords, 512.0, (100_000, 80_000))
    assert len(coords) > 29_000
    assert np.asarray(picture).mean() > 0.85 * PINK.mean()


def test_a_real_slide_is_drawn(real_data: Path) -> None:
    config = EmbedConfig()
    with open_slide(real_data / "slides" / "cmu-1-small-region.svs") as slide:
        thumbnail, extent = slide.thumbnail(config.tissue.mpp), slide.extent_px
        coords = grid(extent, slide.mpp, config.tile_px, config.tile_px, config.mpp)
        size0 = tile_size0(slide.mpp, config.tile_px, config.mpp)
    mask = tissue_mask(thumbnail, config.tissue.mpp, config.tissue)
    coords = coords[tissue_fraction(mask, extent, coords, size0) >= config.min_tissue]
    plain = draw_slide(thumbnail, np.zeros_like(mask), NO_TILES, size0, extent)
    drawn = draw_slide(thumbnail, mask, coords, size0, extent)
    changed = np.abs(np.asarray(plain, int) - np.asarray(drawn, int)).max(-1) > 20
    assert 0.01 < changed.mean() < 0.15
    assert _is_green(drawn).mean() > 0.005


ODD = "<b>&\"'\x00\ud800é"


def _cards(folder: Path) -> list[SlideCard]:
    (folder / "pictures").mkdir(exist_ok=True)
    picture = folder / "pictures" / "a.jpg"
    Image.fromarray(_pink(700, 1500)).save(picture)
    shares = {"blur": 0.25, "pen": 0.001, "black": 0.0, "white": math.nan}
    return [
        SlideCard("a", picture, 1200, 3.456, shares, notes=("two scales differ",)),
        SlideCard("b", None, 1, 0.25, None),
        SlideCard("c", picture, reason="is truncated", remedy="copy it again"),
        SlideCard("d", None, reason=f"bad {ODD}", remedy=f"look {ODD}"),
    ]


def _text(element: ElementTree.Element | None) -> str:
    assert element is not None
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def test_page_tells_what_became_of_every_slide(tmp_path: Path) -> None:
    path = write_contact_sheet(tmp_path, "north", _cards(tmp_path))
    assert path.parent == tmp_path
    root = ElementTree.fromstring(path.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))
    title = "Site north: 2 slides, 1,201 tiles, 3.71 mm² of tissue, 2 set aside"
    assert _text(root.find(f".//{PAGE}title")) == title
    assert _text(root.find(f".//{PAGE}h1")) == title
    aside = root.find(f".//{PAGE}section[@class='aside']")
    assert aside is not None
    items = [_text(item) for item in aside.iter(f"{PAGE}li")]
    assert items[0] == "c is truncatedcopy it again"
    assert "<b>&\"' é" in items[1].replace("  ", " ")
    cards = [_text(figure) for figure in root.iter(f"{PAGE}figure")]
    assert cards[0].startswith("a1,200 tiles, 3.46 mm² of tissue")
    assert "blur25 %" in cards[0]
    assert "pen<1 %" in cards[0]
    assert "black0 %" in cards[0]
    assert "white" not in cards[0]  # nobody measured it
    assert cards[0].endswith("two scales differ")
    assert cards[1] == "no pictureb1 tile, 0.25 mm² of tissue"


def test_page_stands_alone_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    path = write_contact_sheet(tmp_path, "north", _cards(tmp_path))
    first = path.read_bytes()
    assert write_contact_sheet(tmp_path, "north", _cards(tmp_path)).read_bytes() == first
    root = ElementTree.fromstring(first.decode().removeprefix("<!DOCTYPE html>"))
    assert not list(root.iter(f"{PAGE}script"))
    assert not list(root.iter(f"{PAGE}link"))
    images = list(root.iter(f"{PAGE}img"))
    assert len(images) == 2
    for image in images:
        head, data = image.attrib["src"].split(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as small:
            assert small.size == (PICTURE_PX[0], 168)
    links = [link.attrib["href"] for link in root.iter(f"{PAGE}a")]
    assert links == ["pictures/a.jpg"] * 2
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"\xff\xd8\xff\xe0 not a picture"])
def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path, content: bytes) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(content)
    cards = [SlideCard("a", picture, 3), SlideCard("b", tmp_path / "none.jpg", 3)]
    page = write_contact_sheet(tmp_path, "north", cards).read_text(encoding="utf-8")
    assert page.count("no picture") == 2
    assert "<img" not in page


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_leaves_the_page_well_formed(
    tmp_path_factory: pytest.TempPathFactory, name: str, reason: str
) -> None:
    folder = tmp_path_factory.mktemp("site")
    cards = [
        SlideCard(name, None, 3, 1.0, {reason: 0.5}, notes=(reason,)),
        SlideCard(name, None, reason=reason, remedy=name),
    ]
    page = write_contact_sheet(folder, name, cards).read_text(encoding="utf-8")
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert len(list(root.iter(f"{PAGE}figure"))) == (1 if reason else 2)


def test_a_site_without_slides_has_a_page(tmp_path: Path) -> None:
    page = write_contact_sheet(tmp_path, "north", []).read_text(encoding="utf-8")
    assert "Site north: 0 slides, 0 tiles" in page
