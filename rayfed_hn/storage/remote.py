"""A folder in object storage, through Arrow's filesystems, and where its copy on this disk lies.

``s3://bucket/folder`` and its kin (``gs://``, ``abfs://``, ``file://``) are opened with the
credentials that their own programs use: environment, files in the home, or the machine's role.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

import pyarrow.fs as arrow_fs

from rayfed_hn.errors import ConfigError, StorageError
from rayfed_hn.files import sync

CACHE = "RAYFED_HN_CACHE"  # where copies lie; the same on every node
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "file")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # as Amazon's own programs have it
CHUNK_BYTES = 2**22


@dataclass(frozen=True)
class Remote:
    """A folder in object storage.

    Args:
        uri: ``scheme://place/folder``, without credentials.
    """

    uri: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if "@" in parts.netloc and parts.scheme in ("s3", "gs", "gcs"):
            raise ConfigError(
                f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}: an address with "
                "credentials would be written into logs and run directories; give them in the "
                "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in the machine's role"
            )
        if parts.query or parts.fragment or ".." in parts.path.split("/"):
            raise ConfigError(
                f"{self.uri}: give scheme://place/folder alone; the address of a server that is "
                f"not Amazon's goes into {ENDPOINTS[1]}"
            )

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.uri.rstrip('/')}/{name}")

    @property
    def copy(self) -> Path:
        """Where its copy on this machine's disk lies; the same place on every node."""
        scheme, _, rest = self.uri.partition("://")
        return cache() / scheme / rest.strip("/")

    def check(self) -> None:
        """Find out whether there is a bucket, before hours are spent on what goes there.

        Raises:
            StorageError: There is none, or it may not be looked at.
        """
        if isinstance(self._system, arrow_fs.LocalFileSystem):
            return
        bucket = self._base.partition("/")[0]
        with _told(self.uri):
            info = self._system.get_file_info(bucket)
        if info.type == arrow_fs.FileType.NotFound:
            raise StorageError(f"{self.uri}: there is no bucket {bucket}; make it, or correct this")

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time (ns since 1970) of all files in it, by their path below it.

        None of a folder that does not exist.
        """
        with _told(self.uri):
            selector = arrow_fs.FileSelector(self._base, recursive=True, allow_not_found=True)
            found = self._system.get_file_info(selector)
        return {
            info.path[len(self._base) :].lstrip("/"): (info.size or 0, info.mtime_ns or 0)
            for info in found
            if info.type == arrow_fs.FileType.File
        }

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        with _told(self._uri_of(name)):
            return self._system.get_file_info(self._path(name)).type == arrow_fs.FileType.File

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""
        with _told(self._uri_of(name)):
            try:
                with self._system.open_input_stream(self._path(name)) as stream:
                    return stream.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        with _told(self._uri_of(name)), tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self.upload(Path(file.name), name)

    def download(self, name: str, to: Path) -> None:
        """Fill a file of this disk."""
        with (
            _told(self._uri_of(name)),
            self._system.open_input_stream(self._path(name)) as stream,
            to.open("wb") as file,
        ):
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)

    def upload(self, source: Path, name: str) -> None:
        """Put a file there; nobody sees it before all of it has arrived."""
        with _told(self._uri_of(name)):
            if isinstance(self._system, arrow_fs.LocalFileSystem):
                _copy_whole(source, Path(self._path(name)))
                return
            # Arrow's streams publish what was written so far when an exception closes them, Ctrl-C
            # among others. This is one call, within which Python raises nothing: a process that is
            # killed leaves nothing behind, and one that is interrupted ends after the file.
            arrow_fs.copy_files(
                str(source),
                self._path(name),
                arrow_fs.LocalFileSystem(),
                self._system,
                use_threads=False,
            )

    def delete(self, name: str) -> None:
        """Take a file away, if it is there."""
        with _told(self._uri_of(name)):
            try:
                self._system.delete_file(self._path(name))
            except FileNotFoundError:
                return

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _uri_of(self, name: str) -> str:
        return f"{self.uri.rstrip('/')}/{name}"

    @property
    def _system(self) -> arrow_fs.FileSystem:
        return self._opened[0]

    @property
    def _base(self) -> str:
        return self._opened[1].rstrip("/")

    @cached_property
    def _opened(self) -> tuple[arrow_fs.FileSystem, str]:
        try:
            return arrow_fs.FileSystem.from_uri(self.uri + _query(self.uri, os.environ))
        except (OSError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"{self.uri}: cannot be opened ({error})") from None


def _copy_whole(source: Path, to: Path) -> None:
    """Copy a file to a folder that others read, under another name until all of it is there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.{uuid.uuid4().hex}.partial")
    try:
        with source.open("rb") as there, partial.open("xb") as here:
            shutil.copyfileobj(there, here, CHUNK_BYTES)
        sync(partial)
        partial.replace(to)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _query(uri: str, environment: Mapping[str, str]) -> str:
    """What Arrow has to be told of a server that is not Amazon's."""
    endpoint = next((environment[name] for name in ENDPOINTS if environment.get(name)), None)
    if not uri.startswith("s3://") or endpoint is None:
        return ""
    parts = urlsplit(endpoint)
    return f"?scheme={parts.scheme}&endpoint_override={quote(parts.netloc, safe='')}"


def is_remote(text: str) -> bool:
    """Whether a text is an address and not a path."""
    return re.match(r"[a-z][a-z0-9+]*://", text) is not None


def remote_of(text: str) -> Remote:
    """The folder at an address.

    Raises:
        ConfigError: Nobody here knows such addresses, or it has credentials in it.
    """
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{scheme}://: not a kind of storage that is known here; use a path, or one of "
            f"{', '.join(f'{name}://' for name in SCHEMES)}"
        )
    return Remote(text.rstrip("/"))


def origin_of(path: Path) -> Remote | None:
    """What a folder on this disk is a copy of; None: of nothing."""
    try:
        scheme, *rest = path.resolve().relative_to(cache()).parts
    except ValueError:
        return None
    if scheme not in SCHEMES or not rest:  # what was set aside is a copy of nothing
        return None
    return Remote(f"{scheme}://{'/' if scheme == 'file' else ''}{'/'.join(rest)}")


def named(path: Path) -> str:
    """What a user calls a folder: the address of what it is a copy of, or its path."""
    remote = origin_of(path)
    return str(path) if remote is None else remote.uri


def cache() -> Path:
    """Where copies lie: ``RAYFED_HN_CACHE``, or a folder of this user's own."""
    given = os.environ.get(CACHE)
    return Path(given or Path.home() / ".cache" / "rayfed_hn").resolve()


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """One error for what storage has to say.

    Raises:
        StorageError: Names the address.
    """
    try:
        yield
    except OSError as error:
        said = str(error).partition(" (Request ID")[0].partition("; Details")[0]
        raise StorageError(f"{uri}: {said}") from error
