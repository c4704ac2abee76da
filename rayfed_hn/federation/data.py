"""What one site trains, validates and is tested on, cut from the bag store by case."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rayfed_hn.bags.clam_tables import ClamSplit, read_clam_splits
from rayfed_hn.bags.splits import Split, check_given, given_split, split
from rayfed_hn.bags.store import BagEntry, SiteBags
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import Config, DataConfig
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.labels import label_of
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.tasks import Survival, Task


@dataclass(frozen=True)
class SiteBag(LabelledBag):
    """A bag with what is needed to report its score.

    Attributes:
        slide, case: Salted hashes; the names stay at the site.
        origin: Index into ``SiteData.origins``.
        coords_N2, tile_size0: Where the tiles of the (first) slide lie and their side, in level-0
            pixels; None and 0 where bags are drawn from a pool.
    """

    slide: int
    case: int
    origin: int = 0
    coords_N2: np.ndarray | None = field(default=None, kw_only=True)
    tile_size0: float = field(default=0.0, kw_only=True)


@dataclass(frozen=True)
class SiteData:
    """The bags of one site, memory-mapped.

    Attributes:
        name: The site.
        origins: The hospitals that its bags are from: itself, or all of them when pooled.
        train, validation, test: A slide each, or all slides of a case.
        test_slides: Where test bags are cases, their slides one by one.
    """

    name: str
    origins: tuple[str, ...]
    train: tuple[SiteBag, ...]
    validation: tuple[SiteBag, ...]
    test: tuple[SiteBag, ...]
    test_slides: tuple[SiteBag, ...] = ()

    def standardised(self, scale: Standardisation) -> SiteData:
        """The same bags, whose features are used on this scale."""

        def scaled(bags: tuple[SiteBag, ...]) -> tuple[SiteBag, ...]:
            return tuple(replace(bag, standardisation=scale) for bag in bags)

        parts = self.train, self.validation, self.test, self.test_slides
        return SiteData(self.name, self.origins, *(scaled(part) for part in parts))


@dataclass(frozen=True)
class Folds:
    """How the cases of every site are divided: by us, or as the tables of ``data.splits`` say.

    Attributes:
        num_folds, fold: ``data.folds`` and ``data.fold``.
        seed: The run's seed.
        tables: All folds of ``data.splits``; empty without it.
        by_event: Whether folds are to be alike in events (survival), and not in labels.
    """

    num_folds: int
    fold: int
    seed: int
    tables: tuple[ClamSplit, ...] = ()
    by_event: bool = False

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
        by_event = config.task.kind == "survival"
        return cls(data.folds, data.fold, config.run.seed, tables, by_event)

    def shifted(self, by: int) -> Folds:
        """The same division with a later fold under test."""
        number = len(self.tables) or self.num_folds
        return replace(self, fold=(self.fold + by) % number)

    def split(self, entries: Sequence[BagEntry]) -> Split:
        """Divide one site."""
        if self.tables:
            return given_split(entries, self.tables[self.fold])
        if self.by_event:
            entries = [replace(entry, label=str(entry.event)) for entry in entries]
        return split(entries, self.num_folds, self.fold, self.seed)

    def training(self, entries: Sequence[BagEntry]) -> list[BagEntry]:
        """The bags of one site that are not under test."""
        parts = self.split(entries)
        return [entries[i] for i in sorted((*parts.train, *parts.validation))]

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


def load_site(bags: SiteBags, task: Task, folds: Folds) -> SiteData:
    """Cut one site's bags by case into training, validation and test bags."""
    parts = folds.split(bags.entries)
    whole = task.unit == "case"

    def load(indices: Sequence[int]) -> tuple[SiteBag, ...]:
        groups = _by_case(bags.entries, indices) if whole else [[index] for index in indices]
        return tuple(_load_bag(bags, group, task) for group in groups)

    name = bags.entries[0].site
    slides = tuple(_load_bag(bags, [index], task) for index in parts.test) if whole else ()
    return SiteData(
        name, (name,), load(parts.train), load(parts.validation), load(parts.test), slides
    )


def num_bags(entries: Sequence[BagEntry], indices: Sequence[int], task: Task) -> int:
    """How many bags these slides make."""
    return len(_by_case(entries, indices)) if task.unit == "case" else len(indices)


def _by_case(entries: Sequence[BagEntry], indices: Sequence[int]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(entries[index].case_id, []).append(index)
    return list(groups.values())


def _load_bag(bags: SiteBags, indices: Sequence[int], task: Task) -> SiteBag:
    entries = [bags.entries[index] for index in indices]
    first, labels = entries[0], {label_of(task, entry) for entry in entries}
    label = task.case_label(labels)
    if label is None:
        raise DataError("slides of one case have different labels; set task.unit=slide")
    loaded = [bags.load(index) for index in indices]
    timed = isinstance(task, Survival)  # what is not predicted is not told either
    return SiteBag(
        features_ND=loaded[0].features_ND,
        label=label,
        time=(first.time or 0.0) if timed else 0.0,
        event=first.event is not False or not timed,
        more=tuple(bag.features_ND for bag in loaded[1:]),
        coords_N2=loaded[0].coords_N2,
        tile_size0=loaded[0].tile_size0,
        slide=_opaque(first.slide_id, bags.salt),
        case=_opaque(first.case_id, bags.salt),
    )


def _opaque(text: str, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), key=salt, digest_size=8).digest()) >> 1


def halves(
    bags: Sequence[SiteBag], strata: Sequence[int], seed: int
) -> tuple[tuple[SiteBag, ...], tuple[SiteBag, ...]]:
    """Two disjoint halves in which every stratum is equally frequent, as far as numbers allow.

    A site with a single bag has it in both.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    parts: tuple[list[int], list[int]] = ([], [])
    for stratum in sorted(set(strata)):
        own = [i for i, other in enumerate(strata) if other == stratum]
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
        join([site.test_slides for site in sites]),
    )


def open_sites(root: Path, names: Sequence[str], config: DataConfig) -> dict[str, SiteBags]:
    """Open the bags of the named sites, without the tiles that ``data.max_...`` leave out."""
    return {name: SiteBags(root, name, tile_filter(config)) for name in names}
