"""Where a slide holds tissue, on a low-power picture of it. Pure.

Tissue is coloured and glass is not, so the measure is CIELAB chroma (distance from grey, as the
eye sees it). Otsu's threshold parts tissue from glass where there is glass. Where there is none
it would part pale tissue from dark, so it is believed only if what lies below it looks like glass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.morphology import closing, disk

from rayfed_hn.config import TissueConfig

VERSION = 1  # part of the recipe: raised when the same settings give other tiles or shares
GLASS_CHROMA = 2.0  # the median of glass stays below this many times `min_saturation`
CLOSING_UM = 16.0  # gaps between fibres that are narrower than twice this belong to the tissue
STRIP_ROWS = 128


def tissue_mask(
    thumbnail_HW3: NDArray[np.uint8], mpp: float, config: TissueConfig
) -> NDArray[np.bool_]:
    """Tell tissue from glass.

    Args:
        thumbnail_HW3: uint8 RGB picture of the slide.
        mpp: Micrometres per pixel of the picture.
        config: Thresholds; areas in square micrometres.

    Returns:
        bool (H, W), True on tissue. A white or evenly grey slide has none.
    """
    saturation = saturation_of(thumbnail_HW3)
    mask = saturation > _threshold(saturation, config.min_saturation)
    if not mask.any():
        return mask
    mask = closing(mask, disk(max(1, round(CLOSING_UM / mpp))))
    mask = ~_drop_small(~mask, config.max_hole_um2 / mpp**2, connectivity=1)
    return _drop_small(mask, config.min_speck_um2 / mpp**2, connectivity=2)


def saturation_of(picture_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIELAB chroma divided by 100: 0 is grey, stained tissue 0.1 to 0.7. float32 (H, W)."""
    saturation_HW = np.empty(picture_HW3.shape[:2], np.float32)
    # In strips: the whole at once would take fifty times the memory of the picture's channel.
    for top in range(0, len(picture_HW3), STRIP_ROWS):
        strip = slice(top, top + STRIP_ROWS)
        lab = rgb2lab(picture_HW3[strip].astype(np.float32) / 255)
        saturation_HW[strip] = np.hypot(lab[..., 1], lab[..., 2]) / 100
    return saturation_HW


def _threshold(saturation: NDArray[np.float32], floor: float) -> float:
    if saturation.max() - saturation.min() < 1e-3:
        return floor
    # On the square root, because tissue spreads far wider than glass and Otsu cuts into the
    # wider of two classes.
    otsu = float(threshold_otsu(np.sqrt(saturation))) ** 2
    below = saturation[saturation <= otsu]
    glass = below.size > 0 and float(np.median(below)) <= GLASS_CHROMA * floor
    return max(otsu, floor) if glass else floor


def _drop_small(
    mask: NDArray[np.bool_], min_area_px: float, connectivity: int
) -> NDArray[np.bool_]:
    labels = np.empty(mask.shape, np.int32)  # half of what skimage's would take
    ndimage.label(mask, ndimage.generate_binary_structure(2, connectivity), output=labels)
    keep = np.bincount(labels.ravel()) >= min_area_px
    keep[0] = False
    return keep[labels]


def tissue_fraction(
    mask_HW: NDArray[np.bool_],
    extent_px: tuple[int, int],
    coords_N2: NDArray[np.int64],
    tile_size0: float,
) -> NDArray[np.float32]:
    """Return the share of every tile that is tissue, exact to parts of a mask pixel.

    Args:
        mask_HW: bool (H, W) over the whole slide.
        extent_px: Width and height of level 0, which the mask covers.
        coords_N2: Top left corners (x, y) of the tiles in level-0 pixels.
        tile_size0: Side of a tile in level-0 pixels.

    Returns:
        float32 (N,) in 0 to 1.
    """
    height, width = mask_HW.shape
    per_px = np.array([width / extent_px[0], height / extent_px[1]])
    integral = np.zeros((height + 1, width + 1))
    integral[1:, 1:] = mask_HW.cumsum(0, dtype=np.float64).cumsum(1)
    low = coords_N2.astype(np.float64) * per_px
    high = low + tile_size0 * per_px
    area = (
        _interpolate(integral, high[:, 0], high[:, 1])
        - _interpolate(integral, low[:, 0], high[:, 1])
        - _interpolate(integral, high[:, 0], low[:, 1])
        + _interpolate(integral, low[:, 0], low[:, 1])
    )
    share = area / (tile_size0**2 * per_px.prod())
    return np.clip(share, 0, 1).astype(np.float32)


def _interpolate(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear; exact here, since the integral of a pixel image is bilinear between its nodes."""
    x = np.clip(x, 0, table.shape[1] - 1)
    y = np.clip(y, 0, table.shape[0] - 1)
    x0 = np.minimum(x.astype(np.int64), table.shape[1] - 2)
    y0 = np.minimum(y.astype(np.int64), table.shape[0] - 2)
    fx, fy = x - x0, y - y0
    top = table[y0, x0] * (1 - fx) + table[y0, x0 + 1] * fx
    bottom = table[y0 + 1, x0] * (1 - fx) + table[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy
