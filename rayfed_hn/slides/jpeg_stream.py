"""Makes a whole JPEG of a TIFF's tile and the tables that its tiles share.

TIFF says by its own tags whether a tile is RGB or YCbCr; libjpeg looks for markers. So markers of
the tile's own are dropped, and one that says the same as the TIFF is put in.
"""

from __future__ import annotations

SUBSAMPLINGS = ("444", "422", "420")
_START, _END = b"\xff\xd8", b"\xff\xd9"
_APPLICATION, _COMMENT = range(0xE0, 0xF0), 0xFE
_TABLES = (0xDB, 0xC4, 0xDD)  # quantisation, Huffman, restart interval
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


def prefix_of(tables: bytes, is_rgb: bool) -> bytes:
    """Return what comes before a tile's own segments.

    Args:
        tables: The value of the TIFF's JPEGTables tag; empty if every tile brings its own.
        is_rgb: Whether the samples are RGB, else YCbCr.

    Raises:
        ValueError: The tables hold something else than tables.
    """
    kept, at = [_START], len(_START)
    if tables and not (tables.startswith(_START) and tables.endswith(_END)):
        raise ValueError("no JPEG tables")
    while at < len(tables) - len(_END):
        marker, end = tables[at + 1], at + _segment(tables, at)
        if marker in _TABLES:
            kept.append(tables[at:end])
        elif marker not in _APPLICATION and marker != _COMMENT:
            raise ValueError("more than tables")
        at = end
    return b"".join([*kept, _ADOBE, b"\x00" if is_rgb else b"\x01"])


def splice(prefix: bytes, tile: bytes) -> bytes:
    """Return a whole JPEG.

    Args:
        prefix: As ``prefix_of`` gives it.
        tile: A tile as it is in the file.

    Raises:
        ValueError: The tile is no JPEG.
    """
    if not tile.startswith(_START):
        raise ValueError("no JPEG")
    at = len(_START)
    while len(tile) > at + 3 and tile[at + 1] in _APPLICATION:
        at += _segment(tile, at)
    return prefix + tile[at:]


def _segment(data: bytes, at: int) -> int:
    """Return the length of the segment that begins at ``at``."""
    if len(data) < at + 4 or data[at] != 0xFF:
        raise ValueError("no segment")
    return 2 + int.from_bytes(data[at + 2 : at + 4], "big")
