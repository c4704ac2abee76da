"""What is wrong with a command, found out without running it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import click
from fences import ROOT, commands

from rayfed_hn.cli import app
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import is_knob, load

NEEDS = {"aws", "gcp", "ssh", "kubernetes", "docker", "root", "network", "gpu"}
PROGRAMS = {
    *("awk", "base64", "bash", "cat", "cd", "cp", "curl", "docker", "echo", "eval", "export"),
    *("git", "helm", "kubectl", "mkdir", "openssl", "pip", "python", "ray", "rm", "sleep", "ssh"),
    *("gcloud", "tensorboard", "tr", "umask", "wait"),
}
OURS = ("benchmarks/", "cluster/", "conf/", "docs/", "tests/")  # what begins so is a file of ours
MADE_BY_RUNS = re.compile(r"runs/\S+/(best|config)\.yaml")
_BEFORE = {"do", "then", "else", "if", "while", "{", "!", "time", "sudo", "env", "exec"}
_NO_COMMAND = {"for", "done", "fi", "}", "in"}
_ASSIGNED = re.compile(r"[A-Za-z_]\w*\+?=")
_FUNCTION = re.compile(r"^(\w+)\(\)\s*{.*\brayfed-hn \"\$@\"", re.M)


def complaints(text: str, written: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with the commands of a script.

    Args:
        text: The script.
        written: Files that here-documents of its page make, by name.
    """
    ours = set(_FUNCTION.findall(text))
    functions = set(re.findall(r"^(\w+)\(\)", text, re.M))
    found: list[str] = []
    for words in commands(text):
        for command in _unwrapped(words):
            if command[0] in ours:
                found += _of_rayfed(command[1:], written or {})
            elif command[0] not in functions:
                found += _of(command, written or {})
    return found


def _unwrapped(words: Sequence[str]) -> Iterator[list[str]]:
    """The command itself, and one that is handed to it behind ``--``."""
    own = list(words)
    while own and (own[0] in _BEFORE or _ASSIGNED.match(own[0])):
        own = own[1:]
    if not own or own[0] in _NO_COMMAND:
        return
    if own[:3] == ["ray", "job", "submit"] and "--" in own:
        cut = own.index("--")
        yield from _unwrapped(own[cut + 1 :])
        own = own[:cut]
    yield own


def _of(words: Sequence[str], written: Mapping[str, str]) -> Iterator[str]:
    program, *rest = words
    if program == "rayfed-hn":
        yield from _of_rayfed(rest, written)
        return
    for word in words:
        if word.startswith(OURS) and not (ROOT / word).exists():
            yield f"{word}: no such file"
    if program == "make":
        yield from (f"make {goal}: no such target" for goal in rest if goal not in _targets())
    elif program.startswith(OURS):
        if (ROOT / program).exists() and not os.access(ROOT / program, os.X_OK):
            yield f"{program}: is no program"
    elif program == "python" and rest and rest[0].startswith("benchmarks/"):
        yield from _of_benchmark(rest)
    elif program not in PROGRAMS:
        yield f"{program}: is not among the programs that the documentation takes for granted"


def _targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    for name, value in reversed(re.findall(r"^(\w+) [:?]?= (.*)$", text, re.M)):  # they nest
        text = text.replace(f"$({name})", value)
    return set(re.findall(r"^([\w./-]+):(?!=)", text, re.M))


def _of_benchmark(words: Sequence[str]) -> Iterator[str]:
    path = ROOT / words[0]
    text = path.read_text() if path.exists() else ""
    for word in words[1:]:
        if word.startswith("--") and f'"{word}"' not in text:
            yield f"{words[0]}: has no option {word}"


def _of_rayfed(words: Sequence[str], written: Mapping[str, str]) -> Iterator[str]:
    """Of ``rayfed-hn WORDS``; ``...`` stands for what everybody has to fill in."""
    rest, command = [word for word in words if word not in ("...", "$@")], app
    while isinstance(command, click.Group):
        if not rest:
            return  # the program, or a family of verbs, by its name
        if rest[0] == "VERB":
            return
        if rest[0] not in command.commands:
            yield f"{rest[0]}: no such verb"
            return
        command, rest = command.commands[rest[0]], rest[1:]
    if not rest:
        return  # the verb by its name
    if "--help" in rest:
        return
    try:
        with mock.patch.object(click.Path, "convert", lambda _, value, *__: value):
            given = command.make_context(command.name, list(rest)).params
    except click.UsageError as error:
        yield f"{command.name}: {error.format_message()}"
        return
    yield from _of_words(command, list(given.get("words", ())), written)


def _of_words(
    command: click.Command, words: Sequence[str], written: Mapping[str, str]
) -> Iterator[str]:
    files = [word for word in words if "=" not in word]
    keys = [word for word in words if "=" in word]
    if len(files) > 1:
        yield f"{command.name}: '{files[1]}' is not of the form section.key=value"
        return
    path = ROOT / files[0] if files else None
    with tempfile.TemporaryDirectory() as folder:
        if files and files[0] in written:
            path = Path(folder) / "written.yaml"
            path.write_text(written[files[0]])
        elif files and MADE_BY_RUNS.fullmatch(files[0]):
            path = None
        try:
            load(path, keys)
        except ConfigError as error:
            yield f"{command.name}: {error}"
    if "Keys, with their defaults:" in (command.help or ""):
        for key in (word.split("=")[0] for word in keys):
            own = "tune.space" if key.startswith("tune.space.") else key
            if is_knob(key) and f"  {own}=" not in (command.help or ""):
                yield f"{command.name}: {key} has no effect on it"
