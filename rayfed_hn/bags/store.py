"""The bag store: bags are written once, one file per slide, and mapped into memory ever after.

``ROOT/recipe.json`` says how the bags were made; ``ROOT/site=<site>/<slide_id>.arrow`` is a bag.
Bags of two recipes never share a store. Only the owner of the files can read them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.entry import BagEntry, content_digest, read_bag, read_entry, write_entry
from rayfed_hn.bags.tile_filter import TileFilter
from rayfed_hn.errors import DataError
from rayfed_hn.files import clear_partial, write_text
from rayfed_hn.trees import flatten

__all__ = [
    "BagEntry",
    "SiteBags",
    "create",
    "digest",
    "find_entry",
    "list_sites",
    "locked",
    "read_recipe",
    "recipe_digest",
    "write",
]

SALT_BYTES = 16
LOCK = ".lock"


def create(root: Path, recipe: dict[str, Any]) -> None:
    """Make a store, or accept the one that is there if it has the same recipe.

    Args:
        root: The store's folder (``data.bags``).
        recipe: Everything that decides the features, as JSON values.

    Raises:
        DataError: The store has another recipe, or the folder holds something else.
    """
    if (root / "recipe.json").exists():
        _compare(root, read_recipe(root), recipe)
        return
    _refuse_foreign(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"format": 1, "sha256": recipe_digest(recipe), "recipe": recipe}
    write_text(root / "recipe.json", json.dumps(content, indent=2, sort_keys=True) + "\n")


def _refuse_foreign(root: Path) -> None:
    if (root / "recipe.json").exists() or not root.exists():
        return
    if not root.is_dir() or any(path.name != LOCK for path in root.iterdir()):
        raise DataError(f"{root} is no bag store and not empty; give data.bags another folder")


def recipe_digest(recipe: dict[str, Any]) -> str:
    """SHA-256 (hex) of a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def read_recipe(root: Path) -> dict[str, Any]:
    """Return the store's recipe.

    Raises:
        DataError: The folder is no bag store, or its recipe is damaged.
    """
    path = root / "recipe.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recipe, stated = content["recipe"], content["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{root} is no bag store (it has no recipe.json); run rayfed-hn embed "
            f"data.manifest=... data.bags={root} first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged; delete the store and embed again") from error
    if not isinstance(recipe, dict) or recipe_digest(recipe) != stated:
        raise DataError(f"{path} was changed by hand; delete the store and embed again")
    return recipe


def _compare(root: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    have, want = dict(flatten(found)), dict(flatten(asked))
    names = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
    if names:
        what = "; ".join(f"{k}: {have.get(k)!r} there, {want.get(k)!r} asked for" for k in names)
        raise DataError(
            f"{root} holds bags of another recipe ({what}); give data.bags another folder, or "
            "delete this one"
        )


def _entry_path(root: Path, site: str, slide_id: str) -> Path:
    return root / f"site={site}" / f"{slide_id}.arrow"


def write(root: Path, bag: Bag) -> Path:
    """Write a bag atomically, in place of the entry of that name if there is one.

    Raises:
        DataError: The folder is no bag store, or the bag has another width than its recipe says.
    """
    recipe = read_recipe(root)
    width = recipe.get("feature_dim", bag.feature_dim)
    if width != bag.feature_dim:
        raise DataError(
            f"{bag.slide_id}: {bag.feature_dim} features, but the bags of {root} have {width}; "
            "give it a store of its own (data.bags)"
        )
    path = _entry_path(root, bag.site, bag.slide_id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_entry(path, bag, recipe_digest(recipe))
    return path


def find_entry(root: Path, site: str, slide_id: str) -> BagEntry | None:
    """Return the entry, or None if there is none that is whole and of the store's recipe."""
    path = _entry_path(root, site, slide_id)
    if not path.exists():
        return None
    try:
        entry = read_entry(path)
    except DataError:
        return None
    return entry if entry.recipe_sha256 == recipe_digest(read_recipe(root)) else None


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Be the only one that embeds into the store; what a killed run left half-written is cleared.

    Raises:
        DataError: Another process is at it, or the folder holds something else.
    """
    _refuse_foreign(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"another rayfed-hn embed is writing into {root}; wait for it, or give data.bags "
                "another folder"
            ) from None
        clear_partial(root, "site=*/")
        yield


def list_sites(root: Path) -> list[str]:
    """Return the sites that have bags, sorted.

    Raises:
        DataError: The folder is no bag store.
    """
    read_recipe(root)
    return sorted(
        folder.name.removeprefix("site=")
        for folder in root.glob("site=*")
        if next(folder.glob("*.arrow"), None) is not None
    )


class SiteBags:
    """The bags of one site, opened as they are asked for.

    Args:
        root: The store.
        site: The hospital.
        tiles: Which tiles of the bags count (default: all).

    Attributes:
        site: Its name.
        entries: The bags without their features, sorted by slide_id.
        feature_dim: D, the same for every bag.
        unusable: What is wrong with entries that are left out: damaged or of another recipe
            (``rayfed-hn embed`` makes them again), or without a tile that counts.
        emptied: slide_ids of those without a tile that counts.
        unlabelled: Those that ``keep`` left out.

    Raises:
        DataError: There is no such site, or none of its bags can be used.
    """

    def __init__(self, root: Path, site: str, tiles: TileFilter | None = None) -> None:
        expected = recipe_digest(read_recipe(root))
        self.site = site
        self._folder = root / f"site={site}"
        self._tiles = tiles or TileFilter()
        self._bags: dict[int, Bag] = {}
        self.entries: list[BagEntry] = []
        self.unusable: list[str] = []
        self.emptied: list[str] = []
        self.unlabelled: list[BagEntry] = []
        for path in sorted(self._folder.glob("*.arrow")):
            try:
                entry = read_entry(path)
                if entry.recipe_sha256 != expected:
                    raise DataError(f"{path}: made by another recipe than the rest of the store")
                self.entries.append(self._filtered(entry))
            except DataError as error:
                self.unusable.append(str(error))
        self.entries.sort(key=lambda entry: entry.slide_id)
        if not self.entries:
            why = self.unusable[0] if self.unusable else f"sites: {', '.join(list_sites(root))}"
            raise DataError(f"{root} has no usable bags of site {site!r} ({why})")
        self.feature_dim = self.entries[0].feature_dim

    def __len__(self) -> int:
        return len(self.entries)

    def load(self, index: int) -> Bag:
        """Return a bag; its features are a read-only map of its file unless tiles are left out.

        Raises:
            DataError: The entry is damaged.
        """
        if index not in self._bags:
            self._bags[index] = self._tiles.apply(read_bag(self.entries[index].path))
        return self._bags[index]

    def keep(self, wanted: Callable[[BagEntry], bool]) -> None:
        """Leave out the bags that are not wanted, before any is loaded."""
        self.unlabelled += [entry for entry in self.entries if not wanted(entry)]
        self.entries = [entry for entry in self.entries if wanted(entry)]

    def _filtered(self, entry: BagEntry) -> BagEntry:
        if not self._tiles:
            return entry
        num_tiles = int(self._tiles.keeps(read_bag(entry.path).artefacts_N4).sum())
        if num_tiles == 0:
            self.emptied.append(entry.slide_id)
            raise DataError(
                f"{entry.path}: no tile is left by data.max_blur, max_pen, max_black and max_white"
            )
        return replace(entry, num_tiles=num_tiles)

    @property
    def salt(self) -> bytes:
        """16 random bytes that stay at the site; names are hashed with them before they leave."""
        path = self._folder / "salt"
        if not path.exists():
            _make_salt(path)
        salt = path.read_bytes()
        if len(salt) != SALT_BYTES:
            raise DataError(f"{path} is damaged; delete it (hashes of names will change)")
        return salt


def _make_salt(path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".salt.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SALT_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: of two processes at their first use, both take the first salt.
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def digest(root: Path) -> str:
    """SHA-256 (hex) over the recipe and the content of every bag; reads the whole store.

    Equal digests mean equal bags, however many workers wrote them and in whatever order. A store
    with unusable entries has another digest than one without those entries.
    """
    total = hashlib.sha256(recipe_digest(read_recipe(root)).encode())
    for site in list_sites(root):
        bags = SiteBags(root, site)
        for entry in bags.entries:
            total.update(content_digest(entry.path).encode())
        total.update("".join(bags.unusable).encode())
    return total.hexdigest()
