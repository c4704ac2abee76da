"""Features in CLAM's ``pt_files``: one tensor (N, D) a file, written by ``torch.save``.

Such a file is a pickle. Only a tensor is taken out of it (``weights_only``), never code.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.bags.limits import MAX_BYTES, REMEDY, as_float32, check_size
from rayfed_hn.errors import SetAside

if TYPE_CHECKING:
    from torch import Tensor

_NO_TENSOR = (
    "holds something other than one tensor of numbers",
    "save the features alone: torch.save(tensor, file); or give the .h5 file instead",
)


def read_pt(path: Path) -> NDArray[np.float32]:
    """Read features (N, D); the tensor may be (N, D) or (1, N, D), of any real floating type.

    Raises:
        SetAside: Missing, damaged, not a mere tensor, empty, absurdly large, or not finite.
    """
    import torch

    tensor = _table(path)
    check_size(*tensor.shape)
    try:
        exact = tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32)
        return as_float32(np.array(exact.detach().numpy()))  # a copy: the file may be mapped
    except (RuntimeError, TypeError) as error:
        raise SetAside("is no readable tensor file, or damaged", REMEDY) from error


def read_pt_width(path: Path) -> int:
    """Return D; the features are mapped, not read, where the file allows it.

    Raises:
        SetAside: As for ``read_pt``.
    """
    return _table(path).shape[1]


def _table(path: Path) -> Tensor:
    import torch

    size = _size(path)
    mapped = _is_plain_archive(path, size)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # of a damaged or hostile file torch raises almost anything
        raise SetAside(
            "is no readable tensor file, is damaged, or holds code (which is never run)", REMEDY
        ) from error
    if not isinstance(found, torch.Tensor) or not found.is_floating_point():
        raise SetAside(*_NO_TENSOR)
    # No more values than the file has bytes for: a few bytes can claim any shape (strides of 0,
    # sparse and meta tensors).
    if found.layout != torch.strided or found.device.type != "cpu":
        raise SetAside(*_NO_TENSOR)
    if found.numel() * found.element_size() > size:
        raise SetAside(*_NO_TENSOR)
    table = found[0] if found.ndim == 3 and len(found) == 1 else found
    if table.ndim != 2:
        raise SetAside("has a tensor that is no table of numbers (N, D)", REMEDY)
    return table


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SetAside("the file is missing", "correct its path in the manifest") from error
    if size > 2 * MAX_BYTES + 2**20 or not path.is_file():  # float64 and a header
        raise SetAside(f"is too large or no file ({size} bytes)", REMEDY)
    return size


def _is_plain_archive(path: Path, size: int) -> bool:
    """Return whether this is torch's archive, not the format before version 1.6.

    Raises:
        SetAside: It is an archive that unpacks to more than it is, which torch never writes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    if unpacked > size:
        raise SetAside("is a compressed archive, no tensor file", REMEDY)
    return True
