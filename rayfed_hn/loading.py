"""From YAML and ``section.key=value`` words to a checked configuration.

``load`` merges, in this order: the defaults of ``config.py``, one YAML file, and the words of the
command line. Anything unknown, of the wrong type, out of range or impossible together is refused
with one ``ConfigError`` before anything starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rayfed_hn.config import Config
from rayfed_hn.config.spaces import KINDS, written
from rayfed_hn.errors import ConfigError
from rayfed_hn.privacy_checks import check_privacy
from rayfed_hn.round_checks import check_rounds
from rayfed_hn.task_checks import check_task
from rayfed_hn.trees import flatten

_SPACE = "tune.space."  # keys of it are keys of the configuration


@dataclass(frozen=True)
class Knob:
    """One configurable key, for help texts and checks."""

    key: str
    type: str
    default: Any
    about: str
    limits: dict[str, Any]

    @property
    def literal(self) -> bool:
        """Whether values are texts, which are meant as they stand."""
        return self.type.startswith(("text", "one of ", "list of text"))

    @property
    def allowed(self) -> str:
        """The values that may be given, in words."""
        words = [self.type]
        for name, phrase in (("at_least", ">="), ("above", ">"), ("at_most", "<=")):
            if name in self.limits:
                words.append(f"{phrase} {self.limits[name]:g}")
        if "each_of" in self.limits:
            words.append("each one of " + ", ".join(self.limits["each_of"]))
        return ", ".join(words)


def knobs(cls: type = Config, prefix: str = "") -> Iterator[Knob]:
    """Yield every key of the configuration tree, in order."""
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        if dataclasses.is_dataclass(hint):
            yield from knobs(cast(type, hint), f"{prefix}{f.name}.")
            continue
        default = f.default_factory() if callable(f.default_factory) else f.default
        limits = {k: v for k, v in f.metadata.items() if k != "about"}
        yield Knob(f"{prefix}{f.name}", _type_name(hint), default, f.metadata["about"], limits)


@functools.cache
def known_knobs() -> dict[str, Knob]:
    """Every key of the configuration tree by its name."""
    return {knob.key: knob for knob in knobs()}


def is_knob(key: str) -> bool:
    """Whether a key exists."""
    return key.startswith(_SPACE) or key in known_knobs()


def help_text(prefixes: tuple[str, ...]) -> str:
    """Key, default, meaning and range of every knob whose key starts with one of the prefixes."""
    lines = ["Keys, with their defaults:"]
    for knob in knobs():
        if knob.key.startswith(prefixes):
            default = yaml.safe_dump(knob.default, default_flow_style=True).split("\n")[0]
            lines.append(f"  {knob.key}={default}  [{knob.allowed}]")
            lines += textwrap.wrap(
                knob.about, 92, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return "\n".join(lines)


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    args = [a for a in get_args(hint) if a is not type(None)]
    if get_origin(hint) is dict:
        return "mapping"
    if get_origin(hint) is list:
        return f"list of {_type_name(args[0])}"
    if args:  # X | None
        return _type_name(args[0])
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(hint, str(hint))


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Merge defaults, a YAML file and ``section.key=value`` words into a checked ``Config``.

    Raises:
        ConfigError: Names the key, the value, what is allowed and the nearest right name.
    """
    merged = OmegaConf.structured(Config)
    if path is not None:
        for key, value in _read_yaml(Path(path)):
            merged = _set(merged, key, value, f"in {path}")
    for word in overrides:
        key, value = _parse_word(word)
        merged = _set(merged, key, value, "on the command line")
    config = cast(Config, OmegaConf.to_object(merged))
    check(config)
    return config


def _read_yaml(path: Path) -> list[tuple[str, Any]]:
    """Every key with its value; texts and labels as they stand, be they ``no`` or ``0.50``."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        literal = yaml.load(text, yaml.BaseLoader)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from None
    if content is None:
        return []
    if not isinstance(content, dict):
        raise ConfigError(f"configuration file {path} must hold sections such as 'data:'")
    words = dict(flatten(literal))
    return [
        (key, words.get(key, value) if _is_literal(key) and _is_given(value) else value)
        for key, value in flatten(content)
    ]


def _is_literal(key: str) -> bool:
    return key.startswith(_SPACE) or (key in known_knobs() and known_knobs()[key].literal)


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, list) and None in value)


def _parse_word(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{word}' is not of the form section.key=value")
    if _is_literal(key):  # a label such as 1, no or 0.50, or the word off, is meant as it stands
        return key, None if text in ("", "null") else text
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        return key, text


def _set(base: Any, key: str, value: Any, where: str) -> Any:
    if key.startswith(_SPACE):
        return _set_space(base, key.removeprefix(_SPACE), value, where)
    known = known_knobs()
    if any(k.startswith(f"{key}.") for k in known):
        raise ConfigError(f"{key}: is a section {where}; give its keys as {key}.name=value")
    if key not in known:
        raise ConfigError(_unknown(key, list(known), where))
    knob = known[key]
    if isinstance(knob.default, list) and not isinstance(value, list):
        words = "" if value is None else str(value).strip("[]")
        value = [v.strip() for v in words.split(",") if v.strip()]
    if "${" in str(value):
        raise ConfigError(f"{key}: '${{' is not allowed {where}; write the value itself")
    if isinstance(value, list) and any(isinstance(v, list | dict) for v in value):
        raise _not_allowed(knob, value, where)
    tree: Any = value
    for name in reversed(key.split(".")):
        tree = {name: tree}
    try:
        return OmegaConf.merge(base, tree)
    except (OmegaConfBaseException, ValueError, TypeError):
        raise _not_allowed(knob, value, where) from None


def _set_space(base: Any, key: str, value: Any, where: str) -> Any:
    """Put what a key may take into ``tune.space``; None takes it out."""
    stem, _, last = key.rpartition(".")
    if last in KINDS:  # a mapping of a file
        key, value = stem, {last: value}
    if key not in known_knobs():
        raise ConfigError(f"{_SPACE}{_unknown(key, list(known_knobs()), where)}")
    plain = cast(Config, OmegaConf.to_object(base))
    others = {other: space for other, space in plain.tune.space.items() if other != key}
    asked = {} if value is None else {key: written(f"{_SPACE}{key}", value, where)}
    tune = dataclasses.replace(plain.tune, space=others | asked)
    return OmegaConf.structured(dataclasses.replace(plain, tune=tune))


def read_value(key: str, text: str | None, where: str) -> Any:
    """The value that a text stands for.

    Raises:
        ConfigError: It is of another type or out of range.
    """
    value = value_of(OmegaConf.to_object(_set(OmegaConf.structured(Config), key, text, where)), key)
    _check_range(known_knobs()[key], value, f" {where}")
    return value


def _not_allowed(knob: Knob, value: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{knob.key}: got {value!r} {where}; allowed: {knob.allowed}; default: {knob.default!r}"
    )


def _unknown(key: str, known: list[str], where: str) -> str:
    by_last = {k.rsplit(".", 1)[1]: k for k in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    near = near or [by_last[m] for m in difflib.get_close_matches(key.rsplit(".", 1)[-1], by_last)]
    hint = f"did you mean {near[0]}?" if near else "see 'rayfed-hn VERB --help' for all keys"
    return f"{key}: unknown key {where}; {hint}"


def check(config: Config) -> None:
    """Check ranges and combinations. Raises ``ConfigError`` at the first that is impossible."""
    for knob in known_knobs().values():
        _check_range(knob, value_of(config, knob.key))
    if config.data.fold >= config.data.folds:
        raise ConfigError(
            f"data.fold: got {config.data.fold}; allowed: 0 to data.folds - 1 = "
            f"{config.data.folds - 1}"
        )
    if config.run.resume and config.run.dir is None:
        raise ConfigError(
            "run.dir: missing; run.resume=true goes on with the run in that folder, so name it"
        )
    if len(set(config.compare.methods)) < len(config.compare.methods):
        raise ConfigError(f"compare.methods: {config.compare.methods} names a method twice")
    if len(set(config.tune.objectives)) < len(config.tune.objectives):
        raise ConfigError(f"tune.objectives: {config.tune.objectives} names an objective twice")
    if len(set(config.onboard.labelled)) < len(config.onboard.labelled):
        raise ConfigError(f"onboard.labelled: {config.onboard.labelled} has a number twice")
    check_rounds(config)
    check_task(config)
    check_privacy(config)


def value_of(config: Any, key: str) -> Any:
    """The value of a key."""
    return functools.reduce(getattr, key.split("."), config)


def _check_range(knob: Knob, value: Any, where: str = "") -> None:
    if value is None:
        return
    limits = knob.limits
    each = value if isinstance(value, list) else [value]
    bad = isinstance(value, float) and not math.isfinite(value)
    bad = bad or ("at_least" in limits and any(v < limits["at_least"] for v in each))
    bad = bad or ("at_most" in limits and any(v > limits["at_most"] for v in each))
    bad = bad or ("above" in limits and any(v <= limits["above"] for v in each))
    if isinstance(value, list) and "each_of" in limits:
        bad = bad or not value or any(v not in limits["each_of"] for v in value)
    if bad:
        raise ConfigError(
            f"{knob.key}: got {value!r}{where}; allowed: {knob.allowed}; default: {knob.default!r}"
        )


def to_yaml(config: Config) -> str:
    """The whole resolved configuration as YAML that ``load`` reads back to an equal one."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def require(value: str | None, key: str, remedy: str) -> str:
    """Return a knob that this verb cannot do without, or raise ``ConfigError`` naming it."""
    if value is None:
        raise ConfigError(f"{key}: missing; {remedy}")
    return value
