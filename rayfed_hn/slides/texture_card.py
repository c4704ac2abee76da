"""The ``texture`` encoder with its card."""

from __future__ import annotations

from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.texture import TextureEncoder


class CardedTextureEncoder(TextureEncoder):
    """``texture``, and what it states about itself."""

    def __init__(self) -> None:
        super().__init__()
        self.card = EncoderCard(
            name=self.name,
            feature_dim=self.feature_dim,
            input_px=None,
            mpp=0.5,
            mean=None,
            std=None,
            licence="Apache-2.0, like rayfed_hn; it has no weights",
            source="rayfed_hn; the sources of its features stand in rayfed_hn/slides/texture.py",
        )
