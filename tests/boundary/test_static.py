"""What the source may not hold: ways for objects, names or foreign code to get through."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rayfed_hn

ROOT = Path(rayfed_hn.__file__).parent
NEVER = {
    *("ray.put", "ray.get_actor", "eval", "exec", "compile", "os.system", "os.popen"),
    *("yaml.unsafe_load", "yaml.full_load", "joblib.load", "OmegaConf.register_new_resolver"),
}
NEVER_CALLED = ("get_actor", "__ray_call__", "register_new_resolver", "unsafe_load")
NEVER_IMPORTED = ("pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib")
# A loader of YAML that makes nothing but texts; and the named actors that Ray Data has itself.
SAFE_LOADERS = ("yaml.BaseLoader", "yaml.SafeLoader")


def complaints(source: str, place: str) -> list[str]:
    """What is wrong with a module, ``place`` being its path below the package."""
    return [f"{place}:{line}: {what}" for line, what in _found(ast.parse(source), place)]


def _found(tree: ast.AST, place: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            for name in [module] if module else [alias.name for alias in node.names]:
                top = (name or "").split(".")[0]
                if top == "ray" and not place.startswith("orchestration/"):
                    yield node.lineno, "imports ray"
                if top in NEVER_IMPORTED:
                    yield node.lineno, f"imports {top}"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _call(node))


def _call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name in NEVER or last in NEVER_CALLED or ".__ray_call__." in name:
        yield f"calls {name}"
    if last == "options" and "name" in given:
        yield "names an actor, which anybody in the cluster can then find"
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if name == "np.load" and given.get("allow_pickle") != "False":
        yield "np.load without allow_pickle=False"
    if name == "yaml.load" and not (
        len(node.args) > 1 and ast.unparse(node.args[1]) in SAFE_LOADERS
    ):
        yield "yaml.load without a safe loader"
    if given.get("shell", "False") != "False":
        yield "runs a shell"


def test_the_package_opens_no_way_through() -> None:
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 100
    found = [
        complaint
        for path in paths
        for complaint in complaints(path.read_text(), path.relative_to(ROOT).as_posix())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "from ray import put",
        "import pickle",
        "import os, cloudpickle",
        "ray.put(x)",
        "ray.get_actor('centre')",
        "handle.__ray_call__.remote(f)",
        "Actor.options(name='centre').remote()",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "OmegaConf.register_new_resolver('eval', eval)",
    ],
)
def test_each_way_is_found(source: str) -> None:
    assert complaints(source, "federation/site.py")


@pytest.mark.parametrize(
    "source",
    ["import raymond", "module.eval()", "torch.load(p, weights_only=True)", "yaml.safe_load(text)"],
)
def test_what_is_harmless_is_not(source: str) -> None:
    assert not complaints(source, "federation/site.py")
