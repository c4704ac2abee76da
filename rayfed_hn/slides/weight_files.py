"""Files of weights and programs: read once, and hashed before anything looks into them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rayfed_hn.errors import ConfigError

MAX_BYTES = 16 * 2**30  # four times the largest published tile encoder


def check_file(path: Path, key: str, remedy: str) -> None:
    """Refuse what is no file of a sensible size.

    Args:
        path: The file.
        key: What named it, for messages: ``embed.weights`` or ``embed.encoder``.
        remedy: What the user can do.

    Raises:
        ConfigError: It is absent, empty, a folder, a pipe, or far too large.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:
        size = None
    if size is None:
        raise ConfigError(f"{key}={path} is not a file; {remedy}")
    if not 0 < size <= MAX_BYTES:
        raise ConfigError(
            f"{key}={path} has {size} bytes; allowed: 1 to {MAX_BYTES} (16 GiB); {remedy}"
        )


def read_checked(path: Path, key: str, sha256: str | None, remedy: str) -> bytes:
    """Return the bytes of a file once they are what they should be.

    What is parsed later are the bytes that were hashed here, so that a file which changes in
    between gains nothing. The eight digits in the names of torchvision's and timm's files are
    checked too.

    Args:
        path: The file.
        key: What named it, for messages.
        sha256: What its SHA-256 (hex) must be; None: anything.
        remedy: What the user can do if it cannot be read.

    Raises:
        ConfigError: It cannot be read, or is not the file that it should be.
    """
    check_file(path, key, remedy)
    try:
        data = path.read_bytes()
    except OSError:
        raise ConfigError(f"{key}={path} cannot be read; {remedy}") from None
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ConfigError(
            f"{key}={path} is not the file that embed.weights_sha256 names: its SHA-256 begins "
            f"with {digest[:12]}, not with {sha256[:12].lower()}; get it again, or correct "
            "embed.weights_sha256 if its publisher states another"
        )
    named = re.fullmatch(r".+-([0-9a-f]{8})\.(pth|pt)", path.name)
    if named and not digest.startswith(named[1]):
        raise ConfigError(
            f"{key}={path} is damaged or renamed: its name promises a SHA-256 that begins "
            f"with {named[1]}, it begins with {digest[:8]}; download it again"
        )
    return data
