from __future__ import annotations

import pytest

from rayfed_hn.slides import jpeg_stream


def test_what_a_prefix_may_hold() -> None:
    table = b"\xff\xdb\x00\x05abc"
    tables = b"\xff\xd8\xff\xe0\x00\x04JF" + table + b"\xff\xfe\x00\x03c\xff\xd9"
    prefix = jpeg_stream.prefix_of(tables, is_rgb=True)
    assert prefix.startswith(b"\xff\xd8" + table + b"\xff\xee")
    assert prefix.endswith(b"Adobe\x00\x64\x00\x00\x00\x00\x00")
    tile = b"\xff\xd8\xff\xe0\x00\x04JF\xff\xda\x00\x02xx"
    assert jpeg_stream.splice(prefix, tile) == prefix + b"\xff\xda\x00\x02xx"
    for bad in (b"\xff\xd8\xff\xc0\x00\x04JF\xff\xd9", b"nothing", b"\xff\xd8\x00\x00\x00\xff\xd9"):
        with pytest.raises(ValueError, match=r"tables|segment"):
            jpeg_stream.prefix_of(bad, is_rgb=False)
    for bad in (b"", b"\xff", b"JPEG"):
        with pytest.raises(ValueError, match="no JPEG"):
            jpeg_stream.splice(prefix, bad)
