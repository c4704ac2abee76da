from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.errors import SetAside
from rayfed_hn.slides.scale import find_scale

OPENSLIDE = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
TAGS = {
    "tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter",
}  # fmt: skip


def _ome(attributes: str) -> dict[str, str]:
    head = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    return {
        "tiff.ImageDescription": f'{head}<Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'SizeX="9" {attributes} Type="uint8"><Channel/></Pixels></Image></OME>'
    }


@pytest.mark.parametrize(
    ("properties", "mpp"),
    [
        (OPENSLIDE, 0.25),
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5", "tiff.XResolution": "1"}, 0.5),
        ({"aperio.MPP": "0.2325"}, 0.2325),
        ({"aperio.MPP": "0,2325"}, 0.2325),  # written where commas are points
        ({"ventana.ScanRes": "0.2500"}, 0.25),
        ({"openslide.comment": "<a><PixelSizeMicrons>0.3</PixelSizeMicrons></a>"}, 0.3),
        (TAGS, 0.5),
        ({"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}, None),
        ({"openslide.mpp-x": "264.6", "openslide.mpp-y": "264.6"}, None),  # 96 dpi
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"}, None),
        ({"openslide.mpp-x": "-0.5", "openslide.mpp-y": "-0.5"}, None),
        ({"openslide.mpp-x": "nan", "openslide.mpp-y": "nan"}, None),
        ({"openslide.mpp-x": "quarter"}, None),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, None),
        ({"openslide.objective-power": "40"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_where_the_scale_comes_from(properties: dict[str, str], mpp: float | None) -> None:
    if mpp is None:
        with pytest.raises(SetAside, match="give mpp in the manifest"):
            find_scale(properties)
    else:
        assert find_scale(properties)[0] == pytest.approx(mpp)


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="µm" PhysicalSizeY="0.26"', 0.25495),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="0.25"', 0.25),
        (
            'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00025" '
            'PhysicalSizeYUnit="mm"',
            0.25,
        ),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"', None),
        ('PhysicalSizeX="0.25"', None),
    ],
)
def test_ome(attributes: str, mpp: float | None) -> None:
    if mpp is None:
        with pytest.raises(SetAside, match="states no scale"):
            find_scale(_ome(attributes))
    else:
        assert find_scale(_ome(attributes))[0] == pytest.approx(mpp, rel=1e-4)


def test_order_of_the_sources() -> None:
    ome = _ome('PhysicalSizeX="0.3" PhysicalSizeY="0.3"')
    everything = {**OPENSLIDE, "aperio.MPP": "0.28", **ome, **TAGS}
    scales = [find_scale(everything, 0.24)[0]]
    for names in (("none",), OPENSLIDE, ("aperio.MPP",), ome):
        everything = {k: v for k, v in everything.items() if k not in names}
        scales.append(find_scale(everything)[0])
    assert scales == pytest.approx([0.24, 0.25, 0.28, 0.3, 0.5])


def test_contradictions_are_named_with_both_figures() -> None:
    mpp, notes = find_scale({**OPENSLIDE, **TAGS})
    assert mpp == 0.25
    (note,) = notes
    assert "openslide.mpp" in note
    assert "0.25" in note
    assert "TIFF resolution tags 0.5" in note
    assert note.endswith("0.25 is used")
    assert len(find_scale({**OPENSLIDE, **TAGS}, 0.4)[1]) == 2
    assert find_scale({**OPENSLIDE, "aperio.MPP": "0.2510"})[1] == ()
    assert find_scale(OPENSLIDE, 0.26)[1] == ()


@pytest.mark.parametrize(
    ("power", "noted"), [("40", False), ("20", True), ("60", False), ("x", False), ("0", False)]
)
def test_magnification_is_only_worth_a_note(power: str, noted: bool) -> None:
    mpp, notes = find_scale({**OPENSLIDE, "openslide.objective-power": power})
    assert mpp == 0.25
    assert bool(notes) == noted
    assert all("20 times" in note and "0.25 is used" in note for note in notes)


@given(st.dictionaries(st.sampled_from([*OPENSLIDE, *TAGS, "aperio.MPP", "openslide.comment",
    "tiff.ImageDescription", "openslide.objective-power"]), st.text(max_size=40)))  # fmt: skip
def test_any_text_gives_a_plausible_scale_or_a_reason(properties: dict[str, str]) -> None:
    try:
        mpp, _ = find_scale(properties)
    except SetAside:
        return
    assert 0.05 <= mpp <= 20
