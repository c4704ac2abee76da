"""What crosses the border of a site before training: on which scale features are.

Every site tells mean and variance of each feature over its training bags, once, and without noise;
then all are told the scale that they share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayfed_hn.federation.wire import Message, expect, open_message, serialise, within
from rayfed_hn.models.standardise import Standardisation

LARGEST = 1e15  # of a mean or a deviation


@dataclass(frozen=True)
class StatisticsRequest:
    """Measure the features of your training bags.

    Attributes:
        site: Who is asked.
        version: The server's.
        feature_dim: D.
    """

    site: str
    version: int
    feature_dim: int


@dataclass(frozen=True)
class PrepareRequest:
    """Use this scale from now on.

    Attributes:
        site: Who is asked.
        version: The server's.
        standardisation: What all sites share.
    """

    site: str
    version: int
    standardisation: Standardisation


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and variance of every feature at a site, each training bag with the same weight.

    Attributes:
        site: Who sent it.
        version: Of the request.
        mean_D, variance_D: float64 (D,).
    """

    site: str
    version: int
    mean_D: np.ndarray
    variance_D: np.ndarray

    def to_bytes(self) -> bytes:
        """The message as it leaves the site."""
        tensors = {"mean": self.mean_D, "variance": self.variance_D}
        return serialise({"version": np.array([self.version]), **tensors})

    @classmethod
    def from_bytes(cls, message: Message, site: str, feature_dim: int) -> FeatureStatistics:
        """Read a message from a site. Raises ``MessageError`` if it is not one of these."""
        tensors = open_message(message, 16 * feature_dim)
        version = int(expect(tensors, "version", np.int64, (1,))[0])
        mean_D, variance_D = (
            expect(tensors, name, np.float64, (feature_dim,)) for name in ("mean", "variance")
        )
        # A value that one float32 cannot hold squared would spoil the scale of all sites.
        within(mean_D, -LARGEST, LARGEST, "a mean")
        within(variance_D, 0, LARGEST**2, "a variance")
        return cls(site, version, mean_D, variance_D)


@dataclass(frozen=True)
class Prepared:
    """A site that has taken the scale over.

    Attributes:
        site: Who sent it.
        version: Of the request.
    """

    site: str
    version: int

    def to_bytes(self) -> bytes:
        """The message as it leaves the site."""
        return serialise({"version": np.array([self.version])})

    @classmethod
    def from_bytes(cls, message: Message, site: str) -> Prepared:
        """Read a message from a site. Raises ``MessageError`` if it is not one of these."""
        version = expect(open_message(message, 8), "version", np.int64, (1,))
        return cls(site, int(version[0]))
