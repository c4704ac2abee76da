"""The bags that virtual sites draw from: synthetic ones, or those of a bag store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rayfed_hn.bags.splits import Split, split
from rayfed_hn.bags.store import SiteBags
from rayfed_hn.config import Config, ScaleConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.data import Folds, open_sites
from rayfed_hn.federation.labels import knows, label_of
from rayfed_hn.federation.survey import survey
from rayfed_hn.files import write_atomically
from rayfed_hn.models.standardise import Standardisation, agree, measure
from rayfed_hn.models.tasks import Binary, Task
from rayfed_hn.seeds import derive

# Of a positive synthetic bag: how many tiles differ, and by how much in every direction. By 1.0 a
# few versions told all bags apart, whatever the method; by 0.1 none learned within twenty.
POSITIVE_TILES, SHIFT = 0.1, 0.25


@dataclass(frozen=True)
class Pool:
    """Where bags lie and what is known of them; cheap to send to another process.

    Attributes:
        task: What is predicted.
        feature_dim: D.
        labels: Class of every bag.
        origins: For every bag the number of the real site that it is from; 0 for synthetic ones.
        hospitals: The real sites.
        training, testing: Which bags sites train on, and which they are tested on; divided by
            case, once for all virtual sites, since a case that one is tested on may not be one
            that another has trained the network on.
        path: The file of synthetic features, float32 (bags, N, D); None for a bag store.
        config: Says which bag store, and which of its tiles.
        scale: What the real sites would agree to standardise features by; None: by nothing.
    """

    task: Task
    feature_dim: int
    labels: tuple[int, ...]
    origins: tuple[int, ...]
    hospitals: tuple[str, ...]
    training: tuple[int, ...]
    testing: tuple[int, ...]
    path: Path | None
    config: Config
    scale: Standardisation | None = None

    def write(self) -> None:
        """Make the file of synthetic features, unless it is there."""
        if self.path is not None and not self.path.exists():
            config, labels = self.config, self.labels
            write_atomically(
                self.path, lambda path: _write(path, config.scale, labels, config.run.seed)
            )

    def open(self) -> Sequence[np.ndarray]:
        """Features of every bag, each (N, D), mapped into memory and shared between processes."""
        if self.path is not None:
            # A plain view: the class that NumPy has for maps makes every slice of it slow.
            return list(np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False)))
        opened = _stores(self.config, self.hospitals, self.task)
        return [bags.load(i).features_ND for bags in opened for i in range(len(bags.entries))]


def make_pool(config: Config, folder: Path) -> Pool:
    """The bags of ``data.bags``, or ``scale.pool`` synthetic ones, which are not written yet.

    Args:
        config: ``scale``, ``data``, ``task`` and ``run.seed``.
        folder: Where synthetic features will be written.

    Raises:
        ConfigError: Natural sites are asked for, but there is no bag store; or its task is not
            one of classes.
    """
    if config.data.bags is not None:
        return _stored(config)
    if config.scale.partition == "natural":
        raise ConfigError(
            "scale.partition: got natural, which takes its sites from a bag store; give data.bags, "
            "or use dirichlet or size"
        )
    path, scale = folder / "pool.npy", config.scale
    labels = tuple(number % 2 for number in range(scale.pool))
    data = config.data
    parts = _parts([(len(labels), split(_made(labels), data.folds, data.fold, config.run.seed))])
    origins = (0,) * scale.pool
    return Pool(Binary(("0", "1")), scale.feature_dim, labels, origins, (), *parts, path, config)


@dataclass(frozen=True)
class _Made:
    """A synthetic bag, a case of its own."""

    case_id: str
    label: int
    site: str = "pool"


def _made(labels: Sequence[int]) -> list[_Made]:
    return [_Made(f"{number:09d}", label) for number, label in enumerate(labels)]


def _parts(sites: Iterable[tuple[int, Split]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Training and test bags of the pool.

    Args:
        sites: The number of bags of every real site, which follow one another, and its division.
    """
    training: list[int] = []
    testing: list[int] = []
    first = 0
    for count, parts in sites:
        training += [first + index for index in sorted((*parts.train, *parts.validation))]
        testing += [first + index for index in parts.test]
        first += count
    return tuple(training), tuple(testing)


def _write(path: Path, scale: ScaleConfig, labels: Sequence[int], seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(derive(seed, "pool")))
    with path.open("wb") as file:
        shape = (scale.pool, scale.tiles, scale.feature_dim)
        about = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        for label in labels:
            features_ND = rng.standard_normal(shape[1:], dtype=np.float32)
            if label:
                features_ND[: max(1, round(POSITIVE_TILES * scale.tiles))] += SHIFT
            file.write(features_ND.tobytes())


def _stored(config: Config) -> Pool:
    assert config.data.bags is not None
    found = survey(config, Path(config.data.bags))
    if found.task.kind == "survival":
        raise ConfigError("task.kind: scale draws bags by class; survival has none")
    labels: list[int] = []
    origins: list[int] = []
    folds, divided = Folds.of(config), list[tuple[int, Split]]()
    opened = _stores(config, found.hospitals, found.task)
    for number, bags in enumerate(opened):
        labels += [label_of(found.task, entry) for entry in bags.entries]
        origins += [number] * len(bags.entries)
        divided.append((len(bags.entries), folds.split(bags.entries)))
    shared = config.model.standardise == "shared"
    return Pool(
        found.task,
        found.feature_dim,
        tuple(labels),
        tuple(origins),
        found.hospitals,
        *_parts(divided),
        None,
        config,
        _agreed(opened, [parts for _, parts in divided]) if shared else None,
    )


def _agreed(stores: Sequence[SiteBags], divided: Sequence[Split]) -> Standardisation:
    """As ``train`` has it of the real sites: each measures the bags that it trains on."""
    return agree([
        measure(bags.load(index).features_ND for index in (*parts.train, *parts.validation))
        for bags, parts in zip(stores, divided, strict=True)
        if parts.train or parts.validation
    ])  # fmt: skip


def _stores(config: Config, hospitals: Sequence[str], task: Task) -> list[SiteBags]:
    opened = list(open_sites(Path(config.data.bags or ""), hospitals, config.data).values())
    for bags in opened:
        bags.keep(lambda entry: knows(task, entry))
    return opened
