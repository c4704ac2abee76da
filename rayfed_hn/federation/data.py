"""What one site trains, validates and is tested on, cut from the bag store by case."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rayfed_hn.bags.splits import split
from rayfed_hn.bags.store import BagEntry, SiteBags
from rayfed_hn.errors import DataError
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


def load_site(
    bags: SiteBags, classes: tuple[str, str], num_folds: int, fold: int, seed: int
) -> SiteData:
    """Cut one site's bags by case into training, validation and test bags."""
    parts = split(bags.entries, num_folds, fold, seed)

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


def open_sites(root: Path, names: Sequence[str]) -> dict[str, SiteBags]:
    """Open the bags of the named sites."""
    return {name: SiteBags(root, name) for name in names}
