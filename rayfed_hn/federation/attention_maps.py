"""Where a site's network looks on some of its bags, as small maps for TensorBoard.

Maps are drawn by the site, from the places of tiles alone: no pixel of a slide is opened for them,
and no name of a slide is written. Even so the outline of the tissue is a patient's, so that they
lie where ``Plan.pictures`` says, and are in no message.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from rayfed_hn.federation.data import SiteBag
from rayfed_hn.models.attending import attention_of
from rayfed_hn.models.site_model import SiteModel

MAX_SIDE = 128  # cells of a map; tiles of larger slides share them
CELL_PX = 4
BLANK = np.array([235, 235, 235], np.uint8)
LOW, HIGH = np.array([255.0, 247, 236]), np.array([127.0, 0, 0])


def write_maps(
    folder: Path,
    bags: Sequence[SiteBag],
    names: Sequence[str],
    network: tuple[SiteModel, Tensor],
    version: int,
) -> None:
    """Write a map of every bag whose tiles have places; what was in the folder before goes.

    Args:
        folder: Of TensorBoard's files.
        bags: Of the site; of several slides of a case the first is drawn.
        names: Of the classes or intervals.
        network: The model, and the parameters (P,) that fill it.
        version: Of the network.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for number, bag in enumerate(bags, 1):
            attention_N = attention_of(*network, bag)[: len(bag.features_ND)]
            picture_HW3 = draw(bag, attention_N)
            if picture_HW3 is not None:
                tag = f"attention of the last network/test bag {number}, {names[bag.label]}"
                writer.add_image(tag, picture_HW3, version, dataformats="HWC")


def draw(bag: SiteBag, attention_N: np.ndarray) -> np.ndarray | None:
    """A map, uint8 (H, W, 3): a cell a tile, dark where attention is above that of other tiles.

    None where it is not known where the tiles lie. Where tiles share a cell, the highest counts.
    """
    if bag.coords_N2 is None:
        return None
    if len(bag.coords_N2) > 1 and not np.ptp(bag.coords_N2, axis=0).any():
        return None
    place_N2 = ((bag.coords_N2 - bag.coords_N2.min(axis=0)) // bag.tile_size0).astype(int)
    place_N2 //= 1 + int(place_N2.max()) // MAX_SIDE
    width, height = place_N2.max(axis=0) + 1
    rank_N = np.argsort(np.argsort(attention_N, kind="stable"), kind="stable")
    share_N = (rank_N + 1) / len(rank_N)
    cells_HW = np.full((height, width), np.nan)
    order_N = np.argsort(share_N)  # so that the highest of a cell is written last
    for (x, y), share in zip(place_N2[order_N].tolist(), share_N[order_N].tolist(), strict=True):
        cells_HW[y, x] = share
    shade_HW1 = np.nan_to_num(cells_HW)[..., None]
    drawn_HW3 = (LOW + shade_HW1 * (HIGH - LOW)).astype(np.uint8)
    drawn_HW3[np.isnan(cells_HW)] = BLANK
    return drawn_HW3.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)
