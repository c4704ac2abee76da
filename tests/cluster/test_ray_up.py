"""Ray's own validator takes our files for ``ray up``, and its own options are in the commands."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from broken_keys import inside
from machines import FILES, ROOT, read

pytestmark = pytest.mark.ray


def check(document: dict[str, Any]) -> dict[str, Any]:
    """What ``ray up`` does with a file before it asks a cloud anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(document)
    validate_config(prepared)
    return prepared


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(name: str) -> None:
    prepared = check(read(name))
    types = prepared["available_node_types"]
    if name == "onprem":
        (only,) = types.values()
        assert only["min_workers"] == only["max_workers"] == len(prepared["provider"]["worker_ips"])
    else:
        assert types["head"]["max_workers"] == 0
        assert sum(one["max_workers"] for one in types.values()) == prepared["max_workers"]
    setup = prepared["setup_commands"]
    assert prepared["head_setup_commands"][: len(setup)] == setup


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("onprem", ("cluster_nam",), "a"),
        ("onprem", ("available_node_types",), {"head": {"node_config": {}, "resources": {}}}),
        ("onprem", ("provider",), {"type": "local"}),
        ("onprem", ("auth", "ssh_privat_key"), "a"),
        ("aws", ("available_node_types", "gpu", "min_worker"), 1),
        ("aws", ("available_node_types", "gpu", "resources", "GPU"), "1"),
        ("aws", ("available_node_types", "gpu", "node_config"), None),
        ("aws", ("head_node_type",), "heads"),
        ("aws", ("auth", "ssh_proxy_command"), None),
        ("gcp", ("setup_commands",), "pip install"),
        ("gcp", ("max_workers",), -1),
        ("gcp", ("available_node_types", "gpu", "min_workers"), 13),
    ],
    ids=str,
)
def test_ray_refuses_what_is_broken(name: str, where: tuple[str, ...], value: Any) -> None:
    import click
    import jsonschema

    document = read(name)
    inside(document, where[:-1])[where[-1]] = value
    with pytest.raises((jsonschema.ValidationError, ValueError, TypeError, click.ClickException)):
        check(document)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("who", ["head", "worker"])
def test_the_commands_are_those_of_ray(name: str, who: str) -> None:
    from ray.scripts.scripts import start, stop

    stopping, starting = read(name)[f"{who}_start_ray_commands"]
    assert shlex.split(stopping) == ["ray", "stop"]
    stop.make_context("ray stop", [])
    words = shlex.split(starting.split("; ")[-1])
    if (name, who) == ("onprem", "head"):  # the new autoscaler never starts the last machine
        assert words.pop(0) == "RAY_enable_autoscaler_v2=0"
    assert words[:2] == ["ray", "start"]
    found = start.make_context("ray start", words[2:]).params
    assert found["head"] == (who == "head")
    assert found["dashboard_host"] == "127.0.0.1" if who == "head" else not found["port"]


def test_an_option_that_ray_does_not_have_is_seen() -> None:
    import click
    from ray.scripts.scripts import start

    with pytest.raises(click.NoSuchOption):
        start.make_context("ray start", ["--head", "--dashboard-hosts=127.0.0.1"])


@pytest.mark.parametrize("page", ["README.md", "aws.yaml", "gcp.yaml"])
def test_more_machines_are_had_without_ending_what_runs(page: str) -> None:
    """A second ``ray up`` runs ``ray stop`` on the head again, or is told not to."""
    from ray.scripts.scripts import up

    text = (ROOT / "cluster" / page).read_text()
    again = re.findall(
        r"ray (up(?: --[a-z-]+)*)(?: cluster/\S+)?[`'](?=\s(?:again|makes it so))", text
    )
    assert again
    for words in again:
        context = up.make_context("ray up", [*words.split()[1:], str(ROOT / "cluster/aws.yaml")])
        assert context.params["no_restart"], words
