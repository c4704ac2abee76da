"""A private authority and certificates, to try a federation out; hospitals have their own."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rayfed_hn.errors import ConfigError
from rayfed_hn.transport.credentials import PREFIX, may_be_site

AUTHORITY, SERVER = "ca", "server"


def make_certificates(
    folder: Path, sites: Sequence[str], server: Sequence[str], days: int
) -> list[Path]:
    """Write ``ca.pem``, ``server.pem`` and ``site-NAME.pem``, each with its ``.key`` (0600).

    An authority that is there already makes the new ones; what is there is not written over.

    Args:
        folder: Where.
        sites: Names of sites.
        server: Host names or addresses that the server is reached by.
        days: That they are good for.

    Returns:
        The certificates that were made.

    Raises:
        ConfigError: One is there already, or a name cannot be that of a site.
    """
    for name in sites:
        if not may_be_site(name):
            raise ConfigError(
                f"--sites: got {name!r}; a name has letters, digits, '.', '_' and '-', 59 at most"
            )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: list[Path] = []
    wanted = {f"site-{name}": (f"{PREFIX}{name}", []) for name in sites}
    if server:
        wanted[SERVER] = (SERVER, [_address(name) for name in server])
    authority = _Authority.read(folder)
    _check_new(folder, wanted if authority else (AUTHORITY, *wanted))
    if authority is None:
        authority = _Authority.make(folder, days)
        made.append(folder / f"{AUTHORITY}.pem")
    for stem, (name, addresses) in wanted.items():
        authority.issue(folder / stem, name, addresses, days)
        made.append(folder / f"{stem}.pem")
    return made


def _check_new(folder: Path, stems: Iterable[str]) -> None:
    for path in (folder / f"{stem}.{suffix}" for stem in stems for suffix in ("pem", "key")):
        if path.exists():
            raise ConfigError(f"FOLDER: {path} is there already; take it away first")


class _Authority:
    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def read(cls, folder: Path) -> _Authority | None:
        path = folder / f"{AUTHORITY}.pem"
        if not path.exists():
            return None
        try:
            key = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"FOLDER: the authority in {folder} cannot be used ({error})"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"FOLDER: the authority in {folder} is none of this command")
        return cls(certificate, key)

    @classmethod
    def make(cls, folder: Path, days: int) -> _Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("rayfed_hn try-out authority")
        builder = (
            _builder(name, name, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        certificate = builder.sign(key, hashes.SHA256())
        _write(folder / AUTHORITY, certificate, key)
        return cls(certificate, key)

    def issue(
        self, stem: Path, name: str, addresses: Sequence[x509.GeneralName], days: int
    ) -> None:
        """A certificate of a server if it has addresses, else of a site."""
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if addresses else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(_name(name), self._certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if addresses:
            builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        _write(stem, builder.sign(self._key, hashes.SHA256()), key)


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _address(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    handle = os.open(f"{stem}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
    Path(f"{stem}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
