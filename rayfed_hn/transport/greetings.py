"""What a site and the server say before any request: the site's card, and the server's settings.

A card is numbers only. Names of classes are in the configuration, which both sides have, and labels
that are not among them stay at the site: they may be anything that was typed there.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayfed_hn.errors import MessageError
from rayfed_hn.federation.cards import SiteCard
from rayfed_hn.federation.source import source_digest
from rayfed_hn.federation.wire import MAX_BAGS, Message, expect, open_message, serialise, within
from rayfed_hn.transport.frames import GREETING_BYTES

MAX_FEATURES = 2**17  # D
MAX_LIFE = 2**62
_COUNTS = (
    *("feature_dim", "num_known", "num_unknown", "num_unusable", "num_cases"),
    *("num_train", "num_validation", "num_test"),
)
_HASHES = {"recipe": 4, "digest": 4, "code": 4, "run": 2}  # length in int64


def program() -> str:
    """SHA-256 of what runs here (hex)."""
    return hashlib.sha256(source_digest().encode()).hexdigest()


@dataclass(frozen=True)
class Hello:
    """A site's first words.

    Attributes:
        life: Drawn at random when the site's process began.
        run: Name of the run that the site's folder knows; "" where it is new.
        code: SHA-256 of the site's program (hex).
        card: What it says of its bags.
    """

    life: int
    run: str
    code: str
    card: SiteCard

    def to_bytes(self, classes: Sequence[str]) -> bytes:
        """The message as it leaves the site.

        Args:
            classes: Names of the task, in their order; none under survival.
        """
        card = self.card
        counts = {name: getattr(card, name, None) for name in _COUNTS}
        counts |= dict(zip(_COUNTS[-3:], card.num_bags, strict=True))
        hashes = {"recipe": card.recipe, "digest": card.digest, "code": self.code}
        words = {name: _words(text, _HASHES[name]) for name, text in hashes.items()}
        words["run"] = _words(self.run or "0" * 32, _HASHES["run"])
        return serialise({
            "life": np.array([self.life]),
            "counts": np.array([counts[name] for name in _COUNTS]),
            "classes": np.array([card.labels.get(name, 0) for name in classes], np.int64),
            **words,
        })  # fmt: skip

    @classmethod
    def from_bytes(cls, message: Message, site: str, classes: Sequence[str]) -> Hello:
        """Read a message from a site. Raises ``MessageError`` if it is not one of these."""
        tensors = open_message(message, GREETING_BYTES)
        if tensors.keys() != {"life", "counts", "classes", *_HASHES}:
            raise MessageError(f"a greeting of other tensors: {sorted(tensors)}")
        life = expect(tensors, "life", np.int64, (1,))
        within(life, 1, MAX_LIFE, "life")
        hashes = {name: _hash(tensors, name, number) for name, number in _HASHES.items()}
        run, code = hashes["run"], hashes["code"]
        card = _card(tensors, site, classes, hashes["recipe"], hashes["digest"])
        return cls(int(life[0]), "" if run == "0" * 32 else run, code, card)


def _card(
    tensors: dict[str, np.ndarray], site: str, classes: Sequence[str], recipe: str, digest: str
) -> SiteCard:
    numbers = expect(tensors, "counts", np.int64, (len(_COUNTS),))
    own = expect(tensors, "classes", np.int64, (len(classes),))
    within(numbers, 0, MAX_BAGS, "a count of bags, cases or features")
    within(own, 0, MAX_BAGS, "bags of a class")
    counts = dict(zip(_COUNTS, numbers.tolist(), strict=True))
    within(numbers[:1], 1, MAX_FEATURES, "feature_dim")
    if classes and int(own.sum()) != counts["num_known"]:
        raise MessageError(f"{own.sum()} bags of all classes, but {counts['num_known']} in all")
    train, validation, test = (counts.pop(name) for name in _COUNTS[-3:])
    if train + validation + test > counts["num_known"] or counts["num_cases"] > train:
        raise MessageError("more bags or cases are divided than there are")
    labels = {name: n for name, n in zip(classes, own.tolist(), strict=True) if n}
    parts = train, validation, test
    return SiteCard(
        site, recipe, digest, labels=labels, strange={}, num_bags=parts, num_unnamed=0, **counts
    )


def _words(text: str, number: int) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.int64, number)


def _hash(tensors: dict[str, np.ndarray], name: str, number: int) -> str:
    return expect(tensors, name, np.int64, (number,)).tobytes().hex()


@dataclass(frozen=True)
class Welcome:
    """What the server answers.

    Attributes:
        run: Name of the run, which the site's ledger knows it by.
        settings: What both sides must have in common, by key.
    """

    run: str
    settings: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The message as it is sent."""
        return json.dumps({"run": self.run, "settings": dict(self.settings)}).encode()

    @classmethod
    def from_bytes(cls, message: Message) -> Welcome:
        """Read a message from the server. Raises ``MessageError`` if it is not one of these."""
        if len(message) > GREETING_BYTES:
            raise MessageError(f"a welcome of {len(message):,} bytes; at most {GREETING_BYTES:,}")
        try:
            found = json.loads(bytes(message).decode())
            run, settings = found["run"], found["settings"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MessageError(f"the welcome cannot be read ({type(error).__name__})") from None
        if not (isinstance(run, str) and re.fullmatch("[0-9a-f]{32}", run) and int(run, 16)):
            raise MessageError("the welcome names no run")
        if not isinstance(settings, dict) or not all(map(_is_setting, settings.values())):
            raise MessageError("the welcome has settings that are none")
        return cls(run, settings)


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(one, list) for one in value) and all(map(_is_setting, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
