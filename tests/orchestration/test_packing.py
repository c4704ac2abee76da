"""Which sites live together, and what their actors ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from clusters import labelled, one_node
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load
from rayfed_hn.orchestration.packing import ACTOR_BYTES, OWN_ACTORS, Cluster, Packing, pack
from rayfed_hn.orchestration.planned import of_packing
from rayfed_hn.rooms import Node

ROOM = one_node(cpus=32)


def names(count: int) -> list[str]:
    return [f"site-{number}" for number in range(count)]


def packed(count: int, cluster: Cluster, *words: str, **knobs: Any) -> Packing:
    config = load(None, list(words)) if words else Config()
    config = replace(config, resources=replace(config.resources, **knobs))  # fast, not checked
    sites = names(count)
    packing = pack(config, sites, cluster)
    found = [site for place in packing.hosts for site in place.sites]
    assert sorted(found) == sorted(sites)  # every one once
    assert all(place.sites for place in packing.hosts)
    assert not packing.centre.sites
    assert packing.host_of.keys() == set(sites)
    for site, number in packing.host_of.items():
        assert site in packing.hosts[number].sites
    sizes = [len(place.sites) for place in packing.hosts]
    assert max(sizes) - min(sizes) <= 1
    cpus = sum(place.options["num_cpus"] for place in (*packing.hosts, packing.centre))
    assert cpus <= cluster.cpus + 1e-9 or cpus <= len(packing.hosts) + 1 <= cluster.cpus
    assert all(place.options["num_cpus"] > 0 for place in (*packing.hosts, packing.centre))
    return packing


@pytest.mark.parametrize(
    ("sites", "cpus", "actors"),
    [
        (1, 1, 1),
        (10, 2, 10),  # neighbours are kept apart as long as they are few
        (10, 32, 10),
        (OWN_ACTORS, 2, OWN_ACTORS),
        (OWN_ACTORS + 1, 2, 2),
        (32, 32, 32),
        (33, 32, 32),
        (1000, 32, 32),
        (1000, 1, 1),
    ],
)
def test_actors_by_themselves(sites: int, cpus: int, actors: int) -> None:
    assert len(packed(sites, one_node(cpus)).hosts) == actors


@pytest.mark.parametrize(
    ("sites", "room", "actors"),
    [(10, 10, 10), (10, 9, 9), (10, 1, 1), (10, 0, 1), (1000, 40, 32), (1000, 8, 8)],
)
def test_little_memory_takes_fewer(sites: int, room: int, actors: int) -> None:
    cluster = one_node(cpus=32, memory_bytes=2 * room * ACTOR_BYTES)
    assert len(packed(sites, cluster).hosts) == actors


@pytest.mark.parametrize(
    ("sites", "each", "actors"), [(10, 1, 10), (10, 3, 4), (10, 10, 1), (10, 99, 1), (1000, 7, 143)]
)
def test_sites_per_actor(sites: int, each: int, actors: int) -> None:
    packing = packed(sites, ROOM, f"resources.sites_per_actor={each}")
    assert len(packing.hosts) == actors
    assert max(len(place.sites) for place in packing.hosts) <= each


@given(
    st.integers(1, 300),
    st.integers(1, 64),
    st.floats(0, 200),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_every_site_lives_once(sites: int, cpus: int, room: float, each: int | None) -> None:
    packed(sites, one_node(cpus, memory_bytes=room * ACTOR_BYTES), sites_per_actor=each)


def test_a_core_each_only_where_one_is_left_for_the_server() -> None:
    for cpus, each in ((5, 1.0), (4, 0.8), (2, 0.4)):
        packing = packed(4, one_node(cpus))
        places = (*packing.hosts, packing.centre)
        assert {place.options["num_cpus"] for place in places} == {each}


@pytest.mark.parametrize(
    ("sites", "gpus", "each", "server", "fits"),
    [
        (4, 1, 0.25, 0, True),
        (5, 1, 0.25, 0, False),
        (10, 1, 0.1, 0, True),
        (1, 1, 0.1, 0.9, True),  # 1 - 0.9 is less than 0.1 to a computer
        (11, 1, 0.1, 0, False),
        (3, 1, 0.3, 0.1, True),
        (3, 1, 0.3, 0.2, False),
        (3, 2, 0.6, 0, False),  # an actor is on one GPU
        (2, 2, 0.6, 0, True),
        (2, 2, 0.6, 0.5, False),
        (3, 2, 0.5, 0.5, True),
        (4, 2, 0.5, 0.5, False),
        (2, 2, 1, 0, True),
        (2, 2, 1, 1, False),
        (7, 1, 0, 1, True),
        (7, 1, 0, 0, True),
    ],
)
def test_gpu_fractions(sites: int, gpus: int, each: float, server: float, fits: bool) -> None:
    words = [f"resources.gpus_per_site={each}", f"resources.gpus_for_server={server}"]
    cluster = one_node(cpus=32, gpus=gpus)
    if not fits:
        with pytest.raises(ConfigError, match=r"resources\.gpus_per_site.*do not fit"):
            packed(sites, cluster, *words)
        return
    packing = packed(sites, cluster, *words)
    assert [place.gpus for place in packing.hosts] == [each] * sites
    assert packing.centre.gpus == server


@pytest.mark.parametrize("knob", ["gpus_per_site", "gpus_for_server"])
def test_a_gpu_of_none(knob: str) -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        packed(3, ROOM, f"resources.{knob}=0.1")


fractions = st.integers(0, 100).map(lambda number: number / 100)


@given(st.integers(1, 60), st.integers(1, 8), fractions, fractions)
def test_what_a_refusal_proposes_fits(sites: int, gpus: int, each: float, server: float) -> None:
    knobs = {"gpus_for_server": server, "sites_per_actor": 1}
    cluster = one_node(cpus=32, gpus=gpus)
    try:
        packing = packed(sites, cluster, gpus_per_site=each, **knobs)
    except ConfigError as error:
        found = re.search(r"try resources\.gpus_per_site=([0-9.]+)( \(CPU only\))?", str(error))
        assert found is not None
        proposed = float(found[1])
        assert proposed < each
        assert (proposed == 0) == (found[2] is not None)
        packing = packed(sites, cluster, gpus_per_site=proposed, **knobs)
        with pytest.raises(ConfigError):  # no more than that fits
            packed(sites, cluster, gpus_per_site=proposed + 0.01, **knobs)
    assert_room(packing, gpus)


def assert_room(packing: Packing, gpus: int) -> None:
    """Put the actors on GPUs as Ray does: each on one of them."""
    left = [10_000] * gpus
    for place in (packing.centre, *packing.hosts):
        asked = round(place.gpus * 10_000)
        number = next(i for i, free in enumerate(left) if free >= asked)
        left[number] -= asked


PINS: Mapping[str, Cluster] = {
    "pin_label=hospital": labelled(
        2, [{"hospital": "site-0"}, {"hospital": "site-1", "rack": "1"}, {}]
    ),
    "pin_resource=site:": one_node(2, resources={"site:site-0": 1.0, "site:site-1": 1.0}),
}


@pytest.mark.parametrize(("word", "cluster"), PINS.items())
def test_pinned_sites(word: str, cluster: Cluster) -> None:
    for more in ((), ("resources.sites_per_actor=1",)):
        packing = packed(2, cluster, f"resources.{word}", *more)
        assert [place.sites for place in packing.hosts] == [("site-0",), ("site-1",)]
        for place in packing.hosts:
            (site,) = place.sites
            if "label" in word:
                assert place.options["label_selector"] == {"hospital": site}
                assert "resources" not in place.options
            else:
                (asked,) = place.options["resources"].items()
                assert asked[0] == f"site:{site}"
                assert 0 < asked[1] < 0.01
                assert "label_selector" not in place.options
        assert packing.centre.options.keys() == {"num_cpus", "num_gpus"}


def test_both_pins_at_once() -> None:
    labels, resources = PINS.values()
    (node,) = resources.nodes
    cluster = Cluster(2, [replace(own, resources=node.resources) for own in labels.nodes])
    packing = packed(2, cluster, *(f"resources.{word}" for word in PINS))
    assert all({"label_selector", "resources"} <= p.options.keys() for p in packing.hosts)


def test_many_pinned_sites_have_an_actor_each() -> None:
    cluster = labelled(2, [{"hospital": name} for name in names(50)])
    assert len(packed(50, cluster, "resources.pin_label=hospital").hosts) == 50


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("pin_label=hospital", "--labels=hospital=site-2"),
        ("pin_resource=site:", """--resources='{"site:site-2": 1}'"""),
    ],
)
def test_a_site_that_no_node_is_for(word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"resources\.{word.split('=')[0]}: no node") as caught:
        packed(3, PINS[word], f"resources.{word}")
    assert str(caught.value).endswith(says)
    assert "nor that of" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"site-2 \(nor that of site-3, site-4, site-5\)"):
        packed(6, PINS[word], f"resources.{word}")


def test_a_site_may_be_a_resource_by_its_own_name() -> None:
    packed(1, one_node(4, resources={"site-0": 1}), pin_resource="")
    with pytest.raises(ConfigError, match="no node has the resource site-0;") as caught:
        packed(1, one_node(4), pin_resource="")
    assert str(caught.value).endswith("""--resources='{"site-0": 1}'""")


def test_a_resource_that_is_used_up_is_missing() -> None:
    with pytest.raises(ConfigError, match="site:site-0"):
        packed(1, one_node(2, resources={"site:site-0": 0.0}), "resources.pin_resource=site:")


@pytest.mark.parametrize(("word", "cluster"), PINS.items())
def test_pinned_sites_do_not_share(word: str, cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"resources\.sites_per_actor: got 2"):
        packed(2, cluster, f"resources.{word}", "resources.sites_per_actor=2")


def of_nodes(*cpus: float, gpus: Sequence[int] = (), prefix: str = "site:site-") -> Cluster:
    """A head, and a node for every site, which it is pinned to by a resource."""
    each = [*gpus, *[0] * len(cpus)]
    made = [
        Node(f"n{i}", own, each[i], {f"{prefix}{i - 1}": 1.0} if i else {}, {}, f"{i:056x}")
        for i, own in enumerate(cpus)
    ]
    return Cluster(max(1, int(sum(cpus))), made)


def test_fractions_are_those_that_every_node_has_room_for() -> None:
    # 3 cores for 4 actors: in sum three quarters each, but each node has one core.
    packing = packed(3, of_nodes(1, 1, 1))
    assert {place.options["num_cpus"] for place in packing.places} == {0.5}
    assert all(place.node is not None for place in packing.places)


def test_the_server_leaves_the_nodes_of_sites_to_them() -> None:
    packing = packed(2, of_nodes(1, 1, 1), "resources.pin_resource=site:")
    found = [place.node and place.node.name for place in packing.places]
    assert found == ["n0", "n1", "n2"]
    assert "scheduling_strategy" not in packing.hosts[0].start  # its pin says where
    assert packing.centre.start["scheduling_strategy"].node_id == f"{0:056x}"


def test_gpus_that_are_not_where_sites_are_pinned_to() -> None:
    cluster = of_nodes(1, 1, 1, gpus=[2, 0, 1])
    words = ("resources.pin_resource=site:", "resources.gpus_per_site=0.5")
    with pytest.raises(
        ConfigError, match=r"actor of site-0 asks .* 0\.5 GPU .*n1 has 1 CPUs and 0"
    ):
        packed(2, cluster, *words)
    packed(2, of_nodes(1, 1, 1, gpus=[0, 1, 1]), *words)


def test_a_node_without_a_core() -> None:
    with pytest.raises(ConfigError, match=r"no room for all 3 actors.*autoscaling=true"):
        packed(2, of_nodes(1, 1, 0), "resources.pin_resource=site:")


@pytest.mark.parametrize("word", ["pin_resource=site:", "pin_label=hospital", "gpus_per_site=0.5"])
def test_what_an_autoscaler_is_to_add_is_not_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        packed(2, one_node(8), f"resources.{word}")
    config = load(None, [f"resources.{word}", "resources.autoscaling=true"])
    packing = pack(config, names(2), one_node(1))
    assert {place.options["num_cpus"] for place in packing.places} == {1.0}
    assert "a node that is still to come" in "\n".join(of_packing(packing, of_nodes(1, 1)))


def test_a_plan_names_every_actor_its_share_and_its_node() -> None:
    cluster = of_nodes(1, 1, 1, gpus=[0, 1, 1])
    packing = packed(2, cluster, "resources.pin_resource=site:", "resources.gpus_per_site=0.25")
    held = replace(cluster, held=(1.5, 1.0))
    assert of_packing(packing, held)[0].endswith(", of which others hold 1.5 CPU and 1 GPU now")
    head, *lines = of_packing(packing, cluster)
    assert head == "Placement: 3 actors, 3 CPU and 0.5 GPU together; 3 nodes have 3 CPU and 2 GPU"
    assert [line.split() for line in lines] == [
        ["server", "1", "CPU", "n0,", "or", "wherever", "there", "is", "room"],
        ["site-0", "1", "CPU", "and", "0.25", "GPU", "n1", "(site:site-0)"],
        ["site-1", "1", "CPU", "and", "0.25", "GPU", "n2", "(site:site-1)"],
    ]
    (line,) = of_packing(packed(2, one_node(4)), one_node(4))
    assert line == "Placement: 3 actors, 3 CPU together, on one node that has 4 CPU"
    many = packed(99, of_nodes(*[1] * 200))
    assert of_packing(many, of_nodes(1, 1))[-1] == "  and 76 more like these"
