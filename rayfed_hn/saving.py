"""What a full disk, or one that cannot be written to, is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rayfed_hn.errors import StorageError


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failure to write into one error.

    Args:
        path: What is written.

    Raises:
        StorageError: Names the file, what the system says, and how to go on.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        said = os.strerror(number) if number else str(error)
        raise StorageError(
            f"{path} cannot be written ({said}); what was committed before is whole, and "
            "run.resume=true goes on after making room"
        ) from error
