"""Who a certificate says one is. There is no way to talk without one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from rayfed_hn.errors import ConfigError

PREFIX = "site="
_SITE = re.compile(r"[A-Za-z0-9._-]{1,59}")  # a common name has 64 characters at most


@dataclass(frozen=True)
class Credentials:
    """PEM of a certificate, its key, and the authority that the other side's must be of."""

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes

    @classmethod
    def read(cls, certificate: Path, key: Path, authority: Path) -> Credentials:
        """Read the three files.

        Raises:
            ConfigError: One cannot be read or is none, or others may read the key.
        """
        options = {"--certificate": certificate, "--key": key, "--ca": authority}
        found = {option: _read(option, path) for option, path in options.items()}
        if key.stat().st_mode & 0o077:
            raise ConfigError(f"--key: others may read {key}; chmod 600 {key}")
        for option in ("--certificate", "--ca"):
            try:
                x509.load_pem_x509_certificates(found[option])
            except ValueError:
                raise ConfigError(f"{option}: {options[option]} holds no PEM certificate") from None
        return cls(*found.values())

    @property
    def site(self) -> str:
        """The site that the certificate is of.

        Raises:
            ConfigError: It is of none.
        """
        name = site_named(self.certificate)
        if name is None:
            raise ConfigError(
                f"--certificate: it names no site; its subject needs one common name of the form "
                f"{PREFIX}NAME"
            )
        return name


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{option}: {path} cannot be read ({error.strerror}); 'rayfed-hn certificates' makes "
            "some to try it out"
        ) from None


def site_named(pem: bytes) -> str | None:
    """The site that a certificate is of: its one common name is ``site=NAME``; else None."""
    try:
        names = x509.load_pem_x509_certificate(pem).subject.get_attributes_for_oid(
            NameOID.COMMON_NAME
        )
    except ValueError:
        return None
    texts = [str(name.value) for name in names]
    if len(texts) != 1 or not texts[0].startswith(PREFIX):
        return None
    name = texts[0].removeprefix(PREFIX)
    return name if may_be_site(name) else None


def may_be_site(name: str) -> bool:
    """Whether a certificate can be of a site of this name."""
    return _SITE.fullmatch(name) is not None and name.strip(".") != ""
