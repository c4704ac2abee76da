"""What one site trains, validates and is tested on, cut from the bag store by case."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rayfed_hn.bags.clam_tables import ClamSplit, read_clam_splits
from rayfed_hn.bags.splits import Split, check_given, given_split, split
from rayfed_hn.bags.store import BagEntry, SiteBags
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import Config, DataConfig
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.training import LabelledBag


@dataclass(frozen=True)
class SiteBag(LabelledBag):
    """A bag with what is needed to report its score.

    Attributes:
        slide, case: Salted hashes; the names stay at the site.
        origin: Index into ``SiteData.origins``.
    """

    slide: int
    case: int
    origin: int = 0


@dataclass(frozen=True)
class SiteData:
    """The bags of one site, memory-mapped.

    Attributes:
        name: The site.
        origins: The hospitals that its bags are from: itself, or all of them when pooled.
    """

    name: str
    origins: tuple[str, ...]
    train: tuple[SiteBag, ...]
    validation: tuple[SiteBag, ...]
    test: tuple[SiteBag, ...]

    def standardised(self, scale: Standardisation) -> SiteData:
        """The same bags, whose features are used on this scale."""

        def scaled(bags: tuple[SiteBag, ...]) -> tuple[SiteBag, ...]:
            return tuple(replace(bag, standardisation=scale) for bag in bags)

        parts = scaled(self.train), scaled(self.validation), scaled(self.test)
        return SiteData(self.name, self.origins, *parts)


def find_classes(labels: Sequence[str], positive_label: str | None) -> tuple[str, str]:
    """The negative and the positive label.

    Raises:
        DataError: The labels are not two, or ``data.positive_label`` is none of them.
    """
    found = sorted(set(labels))
    if positive_label is not None and positive_label not in found:
        raise DataError(
            f"data.positive_label: '{positive_label}' is no label of these bags; "
            f"they have {', '.join(found)}"
        )
    if len(found) != 2:
        raise DataError(
            f"these bags have {len(found)} labels ({', '.join(found)}); two are needed. Correct "
            "the label column of the manifest and embed again"
        )
    positive = positive_label or found[1]
    return next(label for label in found if label != positive), positive


@dataclass(frozen=True)
class Folds:
    """How the cases of every site are divided: by us, or as the tables of ``data.splits`` say.

    Attributes:
        num_folds, fold: ``data.folds`` and ``data.fold``.
        seed: The run's seed.
        tables: All folds of ``data.splits``; empty without it.
    """

    num_folds: int
    fold: int
    seed: int
    tables: tuple[ClamSplit, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Folds:
        """Read ``data.splits``, if it is given.

        Raises:
            DataError: The tables cannot be used.
            ConfigError: There are fewer of them than the fold asks for.
        """
        data = config.data
        tables = () if data.splits is None else tuple(read_clam_splits(Path(data.splits)))
        if tables and data.fold >= len(tables):
            raise ConfigError(
                f"fold {data.fold} is asked for, but data.splits={data.splits} has {len(tables)} "
                f"tables; data.fold is 0 to {len(tables) - 1}, compare.folds at most {len(tables)}"
            )
        return cls(data.folds, data.fold, config.run.seed, tables)

    def split(self, entries: Sequence[BagEntry]) -> Split:
        """Divide one site."""
        if self.tables:
            return given_split(entries, self.tables[self.fold])
        return split(entries, self.num_folds, self.fold, self.seed)

    def check(self, by_site: Mapping[str, Sequence[BagEntry]], without: Sequence[str]) -> None:
        """Refuse tables, of any fold, that divide a case or name slides nobody has.

        Args:
            by_site: All bags.
            without: slide_ids that were set aside when bags were made.
        """
        for table in self.tables:
            check_given(by_site, table, without)

    @property
    def digest(self) -> str:
        """Of the tables' content; empty without them."""
        return " ".join(table.digest for table in self.tables)


def load_site(bags: SiteBags, classes: tuple[str, str], folds: Folds) -> SiteData:
    """Cut one site's bags by case into training, validation and test bags."""
    parts = folds.split(bags.entries)

    def load(indices: Sequence[int]) -> tuple[SiteBag, ...]:
        return tuple(_load_bag(bags, index, classes) for index in indices)

    name = bags.entries[0].site
    return SiteData(name, (name,), load(parts.train), load(parts.validation), load(parts.test))


def _load_bag(bags: SiteBags, index: int, classes: tuple[str, str]) -> SiteBag:
    entry: BagEntry = bags.entries[index]
    return SiteBag(
        features_ND=bags.load(index).features_ND,
        label=classes.index(entry.label),
        slide=_opaque(entry.slide_id, bags.salt),
        case=_opaque(entry.case_id, bags.salt),
    )


def _opaque(text: str, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), key=salt, digest_size=8).digest()) >> 1


def halves(bags: Sequence[SiteBag], seed: int) -> tuple[tuple[SiteBag, ...], tuple[SiteBag, ...]]:
    """Two disjoint halves in which every class is equally frequent, as far as numbers allow.

    A site with a single bag has it in both.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    parts: tuple[list[int], list[int]] = ([], [])
    for label in sorted({bag.label for bag in bags}):
        own = [i for i, bag in enumerate(bags) if bag.label == label]
        first = int(len(parts[0]) > len(parts[1]))  # the odd bag goes to the smaller half
        for place, index in enumerate(rng.permutation(own).tolist()):
            parts[(first + place) % 2].append(index)
    one, other = (tuple(bags[i] for i in sorted(part)) for part in parts)
    return one or other, other or one


def pool(sites: Sequence[SiteData], name: str = "pooled") -> SiteData:
    """One site with the bags of all, for the baseline that does without federation."""

    def join(parts: Sequence[tuple[SiteBag, ...]]) -> tuple[SiteBag, ...]:
        return tuple(replace(bag, origin=i) for i, part in enumerate(parts) for bag in part)

    return SiteData(
        name,
        tuple(site.name for site in sites),
        join([site.train for site in sites]),
        join([site.validation for site in sites]),
        join([site.test for site in sites]),
    )


def open_sites(root: Path, names: Sequence[str], config: DataConfig) -> dict[str, SiteBags]:
    """Open the bags of the named sites, without the tiles that ``data.max_...`` leave out."""
    return {name: SiteBags(root, name, tile_filter(config)) for name in names}
