# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hub adds to its image definition, and the definition that follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import features, image_store, images
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import image
from hypothesis import given
from hypothesis import strategies as some

NOTHING: dict[str, Any] = {
    **{"hub_image": "standard", "hub_features": [], "hub_environments": [], "hub_apt": []},
    "hub_devices": [],
}
GEO = {"name": "geo", "conda": ["geopandas"], "requirements": "files/geo.txt"}


def wish(**values: Any) -> image.Wish:
    found = image.of_hub({**NOTHING, **values}, "/inventory", [{"name": "standard"}, {"name": "small"}])
    assert found is not None
    return found


def test_a_hub_that_adds_nothing_has_its_definition_s_image() -> None:
    assert wish() == image.Wish("standard", {})
    assert wish().name == "standard"
    assert image.derived([{"name": "standard"}], [wish(), wish(hub_image="small")]) == []


def test_hubs_that_add_the_same_share_an_image() -> None:
    one, other = (
        wish(hub_features=["lsp", "rtc"], hub_apt=["gnuplot"]),
        wish(hub_features=["rtc", "lsp"], hub_apt=["gnuplot"]),
    )
    assert one.name == other.name
    definitions = [{"name": "standard", "features": ["myst"], "apt": ["graphviz"], "revision": "a"}]
    assert image.derived(definitions, [one, other, wish()]) == [
        {"name": one.name, "features": ["myst", "lsp", "rtc"], "apt": ["graphviz", "gnuplot"], "revision": "a"}
    ]


@pytest.mark.parametrize(
    "other", [{"hub_features": ["rtc"]}, {"hub_apt": ["lsp"]}, {"hub_image": "small", "hub_features": ["lsp"]}]
)
def test_other_wishes_have_other_names(other: dict[str, Any]) -> None:
    assert wish(hub_features=["lsp"]).name != wish(**other).name


def test_a_hub_s_environment_takes_the_place_of_its_definition_s() -> None:
    added = image.Wish("standard", {"environments": [{"name": "geo", "kernel": "Mine"}]})
    base = {"name": "standard", "environments": [{"name": "ml"}, {"name": "geo", "kernel": "Geo"}]}
    assert added.definition(base)["environments"] == [{"name": "ml"}, {"name": "geo", "kernel": "Mine"}]
    assert base["environments"] == [{"name": "ml"}, {"name": "geo", "kernel": "Geo"}]


def test_devices_decide_the_variant_of_what_a_hub_adds() -> None:
    cpu, gpu = wish(hub_features=["tensorflow"]), wish(hub_features=["tensorflow"], hub_devices=["nvidia.com/gpu=all"])
    assert (cpu.additions["features"], gpu.additions["features"]) == (["tensorflow:cpu"], ["tensorflow:gpu"])
    base = {"name": "standard", "features": ["lsp", "tensorflow"]}
    assert image.features_of(gpu.definition(base)) == ["lsp", "tensorflow:gpu"]
    assert image.features_of(base) == ["lsp", "tensorflow:cpu"]
    assert image.features_of({"name": "standard", "source": "pull"}) is None


def test_paths_start_from_the_inventory() -> None:
    values = {**NOTHING, "hub_environments": [GEO, {"name": "a", "conda_lock": "/srv/a.lock", "requirements": ""}]}
    environments = image.wish(values, "/inventory").additions["environments"]
    assert environments[0]["requirements"] == "/inventory/files/geo.txt"
    assert environments[1] == {"name": "a", "conda_lock": "/srv/a.lock", "requirements": ""}


@pytest.mark.parametrize("source", ["load", "pull"])
def test_nothing_is_added_to_an_image_that_comes_as_it_is(source: str) -> None:
    definitions = [{"name": "standard", "source": source}]
    found = list(image.check(wish(hub_features=["lsp"], hub_apt=["gnuplot"]), "m1", definitions))
    assert [key for key, _value, _what, _remedy in found] == ["hub_features", "hub_apt"]
    assert all("not built by its machine" in what for _key, _value, what, _remedy in found)
    assert list(image.check(wish(), "m1", definitions)) == []


@pytest.mark.parametrize(
    "bad", [{"hub_image": "none"}, {"hub_features": ["x"]}, {"hub_environments": [GEO]}, {"hub_apt": None}]
)
def test_a_hub_with_bad_values_has_no_wish(bad: dict[str, Any]) -> None:
    assert image.of_hub({**NOTHING, **bad}, "/inventory", [{"name": "standard"}]) is None


@given(
    some.from_regex(images.NAME, fullmatch=True).filter(lambda name: len(name) < 64),
    some.lists(some.sampled_from(features.names()), min_size=1, unique=True),
)
def test_derived_images_can_be_told_by_their_names(name: str, chosen: list[str]) -> None:
    derived = image.Wish(name, {"features": sorted(chosen)}).name
    assert len(derived) <= 63
    assert not images.NAME.fullmatch(derived)
    assert image_store.is_derived(f"{images.REPOSITORY}/{derived}:{'0' * 12}")
    assert not image_store.is_derived(f"{images.REPOSITORY}/{name}:{'0' * 12}")
