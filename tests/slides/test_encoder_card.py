"""The choice of encoder, and what encoders state about themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides import texture
from rayfed_hn.slides.encoder_card import EncoderCard, describe, scale_notes
from rayfed_hn.slides.encoders import check_encoder, make_encoder


def refused(words: str, **embed: object) -> None:
    """Both routes refuse it, in the same words."""
    config = EmbedConfig(**embed)  # type: ignore[arg-type]
    for route in (check_encoder, make_encoder):
        with pytest.raises(ConfigError, match=words):
            route(config)


def test_make_encoder_makes_texture_and_says_what_is_missing(tmp_path: Path):
    encoder = make_encoder(EmbedConfig())
    assert encoder.digest == texture.TextureEncoder().digest
    assert (encoder.card.name, encoder.card.feature_dim) == (encoder.name, encoder.feature_dim)
    refused(r"embed\.weights", encoder="resnet50")
    refused("not a file", encoder="resnet50", weights=str(tmp_path))
    refused("no weights", weights="somewhere.pth")
    refused("no file to hold it against", weights_sha256="0" * 64)
    (tmp_path / "empty.pth").touch()
    refused("has 0 bytes", encoder="resnet50", weights=str(tmp_path / "empty.pth"))


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("textur", "texture"),
        ("Resnet-50", "resnet50"),
        ("timm", "timm:NAME"),
        ("tim:vit", "timm:NAME"),
        ("timm:", "timm:NAME"),
        ("modul:a.pt2", "module:FILE"),
        ("texture:1", "texture"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(given: str, near: str):
    refused(f"got '{given}'; did you mean {near}[?] allowed: texture, resnet50", encoder=given)
    refused(r"got 'zzz'; allowed: texture", encoder="zzz")


CARD = EncoderCard("net", 8, 224, None, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "MIT", "someone 2020")


def test_a_card_is_described_with_its_facts():
    text = describe(CARD)
    for word in ("net", "8 features", "224 px", "no scale", "0.5 0.5 0.5", "MIT", "someone 2020"):
        assert word in text
    assert 2 <= len(text.splitlines()) <= 3
    assert "Apache-2.0" in describe(make_encoder(EmbedConfig()).card)
    assert "made for 0.5 um/px" in describe(make_encoder(EmbedConfig()).card)


def test_scale_notes_speak_up_exactly_when_scale_or_size_differ():
    assert scale_notes(CARD, EmbedConfig(tile_px=256)) == []
    assert "1.14 um/px" in scale_notes(CARD, EmbedConfig(tile_px=512))[0]
    assert "encoded at 128 px" in scale_notes(CARD, EmbedConfig(tile_px=128))[0]
    fixed = replace(CARD, enlarges=True)
    assert "made larger to 224 px" in scale_notes(fixed, EmbedConfig(tile_px=128))[0]
    texture_card = make_encoder(EmbedConfig()).card
    assert scale_notes(texture_card, EmbedConfig(mpp=0.51, tile_px=512)) == []
    assert "embed.mpp=0.5" in scale_notes(texture_card, EmbedConfig(mpp=0.25))[0]


@settings(max_examples=50, deadline=None)
@given(
    tile_px=st.integers(32, 4096),
    input_px=st.one_of(st.none(), st.integers(32, 512)),
    made_for=st.floats(0.1, 5),
    enlarges=st.booleans(),
)
def test_the_scale_that_a_note_proposes_needs_no_note(tile_px, input_px, made_for, enlarges):
    card = replace(CARD, mpp=made_for, input_px=input_px, enlarges=enlarges)
    for note in scale_notes(card, EmbedConfig(tile_px=tile_px, mpp=9 * made_for)):
        if "embed.mpp=" in note:
            proposed = float(note.partition("embed.mpp=")[2].split()[0])
            notes = scale_notes(card, EmbedConfig(tile_px=tile_px, mpp=proposed))
            assert not any("embed.mpp=" in found for found in notes)
