"""What every encoder states about itself: width, tile size, scale, normalisation, licence."""

from __future__ import annotations

from dataclasses import dataclass

from rayfed_hn.config import EmbedConfig

SCALE_TOLERANCE = 0.05  # of the scale an encoder was made for; scanners differ by as much
SHRINK_NOTED = 1.5  # 256 px seen at 224 px is the habit of the field, and no news


@dataclass(frozen=True)
class EncoderCard:
    """The facts of one encoder.

    Attributes:
        name: As in ``embed.encoder``, without folders.
        feature_dim: D, the number of features of a tile.
        input_px: Side that tiles are brought to before they are encoded; None: as they come.
        mpp: Micrometres per pixel that it was made for, as it sees the tile; None: not stated.
        mean: What is subtracted from red, green and blue (0-1); None: nothing.
        std: What they are divided by then; None: nothing.
        licence: Licence of code and weights, as far as known.
        source: Where it comes from, and what to cite.
        enlarges: Whether tiles smaller than ``input_px`` are made larger; larger ones are made
            smaller in any case.
    """

    name: str
    feature_dim: int
    input_px: int | None
    mpp: float | None
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    licence: str
    source: str
    enlarges: bool = False

    def seen_px(self, tile_px: int) -> int:
        """Side in pixels at which a tile of ``tile_px`` reaches the encoder."""
        if self.input_px is None or (tile_px < self.input_px and not self.enlarges):
            return tile_px
        return self.input_px


def describe(card: EncoderCard) -> str:
    """Three lines for a terminal."""
    size = "tiles as they are"
    if card.input_px is not None:
        how = "brought to" if card.enlarges else "over that size made smaller to"
        size = f"tiles {how} {card.input_px} px"
    scale = "no scale stated" if card.mpp is None else f"made for {card.mpp:g} um/px"
    colours = "no normalisation"
    if card.mean is not None and card.std is not None:
        mean, std = (" ".join(f"{v:.4g}" for v in values) for values in (card.mean, card.std))
        colours = f"RGB normalised by mean {mean} and deviation {std}"
    return (
        f"Encoder {card.name}: {card.feature_dim} features a tile; {size}; {scale}\n"
        f"  {colours}\n"
        f"  licence: {card.licence}; source: {card.source}"
    )


def scale_notes(card: EncoderCard, config: EmbedConfig) -> list[str]:
    """Say where the tiles differ from what the encoder was made for; empty if they do not."""
    seen_px = card.seen_px(config.tile_px)
    seen_mpp = config.mpp * config.tile_px / seen_px
    notes: list[str] = []
    if card.mpp is not None and abs(seen_mpp / card.mpp - 1) > SCALE_TOLERANCE:
        right = card.mpp * seen_px / config.tile_px
        notes.append(
            f"{card.name} was made for {card.mpp:g} um/px but sees tiles at {seen_mpp:.3g} um/px; "
            f"embed.mpp={right:.3g} would be its scale"
        )
    elif config.tile_px > SHRINK_NOTED * seen_px:
        notes.append(
            f"embed.tile_px={config.tile_px}: {card.name} sees tiles made smaller to {seen_px} px, "
            f"that is at {seen_mpp:.3g} um/px"
        )
    if card.input_px is not None and config.tile_px < card.input_px:
        how = f"made larger to {seen_px} px" if card.enlarges else f"encoded at {seen_px} px"
        notes.append(
            f"embed.tile_px={config.tile_px}: tiles are {how}, but {card.name} was made for "
            f"{card.input_px} px"
        )
    return notes
