"""Who a certificate says one is. There is no way to talk without one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

from rayfed_hn.errors import ConfigError

PREFIX = "site="
_SITE = re.compile(r"[A-Za-z0-9._-]{1,59}")  # a common name has 64 characters at most


@dataclass(frozen=True)
class Credentials:
    """PEM of a certificate, its key, and the authority that the other side's must be of.

    Attributes:
        files: Where certificate and key were read.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authority: bytes
    files: tuple[Path, Path]

    @classmethod
    def read(cls, certificate: Path, key: Path, authority: Path) -> Credentials:
        """Read the three files.

        Raises:
            ConfigError: One cannot be read or is none, others may read the key, or it is not the
                certificate's.
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
        own = _public(_key(found["--key"], key))
        if own != _public(x509.load_pem_x509_certificates(found["--certificate"])[0]):
            raise ConfigError(
                f"--key: {key} is not the key of {certificate}; give the two that were made "
                "together"
            )
        return cls(*found.values(), files=(certificate, key))

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


def _key(pem: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise ConfigError(
            f"--key: {path} is encrypted, and nobody is asked for a passphrase; give it without "
            "one, in a file that only its user may read"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"--key: {path} holds no PEM private key") from None


def _public(owner: PrivateKeyTypes | x509.Certificate) -> bytes:
    return owner.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


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
