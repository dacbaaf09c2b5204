import io
import json
import re
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from dwp_init import SETS, load_prior
from dwp_init.registry import registry
from training.publish import gallery
from training.publish.benchmark_page import read_tasks
from training.publish.cards import render_card
from training.starts.controls import OWN


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return gallery.gallery_pages()


def test_every_prior_and_set_has_a_tile_with_a_value_for_each_filter() -> None:
    tiles = gallery.tiles()
    assert [tile.name for tile in tiles] == [*SETS, *registry()]
    assert all(tile.facets.keys() == gallery.FACETS.keys() and all(tile.facets.values()) for tile in tiles)
    assert not any("unknown" in values for tile in tiles for values in tile.facets.values())
    by_name = {tile.name: tile for tile in tiles}
    assert by_name["natural-dw5x5"].facets["licence"] == ("Apache-2.0",)
    assert (
        by_name["natural"].facets["size"] == ("3×3", "5×5", "7×7", "up to 16×16")
        and len(by_name["natural"].pictures) == 5
    )


def test_members_of_sets_are_for_the_layers_that_take_them() -> None:
    tiles = {tile.name: tile for tile in gallery.tiles()}
    for each in SETS.values():
        assert [tiles[str(name)].facets["kind"] for _, name in each] == [(kind,) for kind, _ in each]
    assert tiles["natural-stem"].note == "up to 16×16 stem"
    assert tiles["tinyimagenet-stem-7x7"].note == "7×7 stem in colour"


def test_a_page_of_a_set_does_not_grow_by_a_chart_with_each_task(pages: dict[str, str]) -> None:
    finished = [each for each in read_tasks() if each.finished and each.has("natural", OWN)]
    files = re.findall(
        r'<img src="\.\./([^"]*)" alt="[^"]+" width="\d+" height="\d+" loading="lazy">', pages["priors/natural.md"]
    )
    assert files == [f"pictures/natural-{each.task.name}.svg" for each in finished]
    curves = gallery.gallery_curves()
    assert all(ElementTree.fromstring(curves[f"priors/{file}"]).tag.endswith("svg") for file in files)
    assert pages["priors/natural.md"].count("<svg") == 1


def test_pictures_show_draws_by_depth_and_stems_in_colour() -> None:
    by_name = {tile.name: tile for tile in gallery.tiles()}
    rows = len(load_prior("tinyimagenet-dw7x7").depths)
    (by_depth,), (stem,) = by_name["tinyimagenet-dw7x7"].pictures, by_name["natural-stem"].pictures
    assert by_depth.pixels.shape[0] == rows * (7 * 6 + 1) + 1 and "a row for each depth" in by_depth.text
    assert len(stem.pixels.flatten(0, 1).unique(dim=0)) > 200
    pictures = gallery.gallery_pictures()
    assert all(content.startswith(b"RIFF") for content in pictures.values())
    assert pictures.keys() == {f"priors/{each.file}" for tile in by_name.values() for each in tile.pictures} | {
        f"priors/pictures/{name}-first.webp" for name in registry()
    }


def test_a_priors_page_is_its_card_with_draws_and_charts(pages: dict[str, str]) -> None:
    for name in registry():
        card, page = render_card(load_prior(name), name), pages[f"priors/{name}.md"]
        kept = [line for line in card.split("---\n", 2)[2].splitlines() if line]
        assert [line for line in kept if line not in page] == []
        assert ('class="draw"' in page) == (f"priors/models/{name}.safetensors" in gallery.gallery_models())
        assert ("over steps from" in page) == name.startswith("notmnist-")
    assert pages["priors/natural-dw7x7.md"].count("<svg") == 0  # no density was measured


def test_what_the_script_is_told_are_the_priors_arguments(pages: dict[str, str]) -> None:
    settings = json.loads(re.findall(r"data-settings='([^']*)'", pages["priors/tinyimagenet-5x5.md"])[0])
    prior = load_prior("tinyimagenet-5x5")
    assert settings["scales"] == prior.arguments()["scales"] and settings["dim"] == 25
    assert settings["depths"] == pytest.approx(prior.depths, abs=1e-3)
    for depth, exact in zip(settings["depths"], prior.depths, strict=True):
        assert prior.at(depth) is prior.at(exact)


def test_a_page_of_a_set_names_its_members_and_its_tasks(pages: dict[str, str]) -> None:
    natural = pages["priors/natural.md"]
    assert all(f"({name}.md)" in natural for _, name in SETS["natural"])
    assert 'apply_(model, prior="natural")' in natural
    tasks = [each for each in read_tasks() if each.finished and each.has("natural", OWN)]
    assert all(f'alt="{each.task.name.removeprefix("bench_").replace("_", " ")}: ' in natural for each in tasks)
    assert set(pages) == {"priors/index.md", *(f"priors/{name}.md" for name in (*SETS, *registry()))}


def test_the_first_picture_of_a_page_is_the_draw_of_seed_0() -> None:
    prior = load_prior("notmnist-7x7")
    kernels = prior.sample(gallery.DRAWN_KERNELS, torch.Generator().manual_seed(0))
    expected = gallery.kernel_sheet(kernels, gallery.ACROSS, zoom=12)
    pictures = gallery.gallery_pictures()
    path = "priors/pictures/notmnist-7x7-first.webp"
    with Image.open(io.BytesIO(pictures[path])) as found:
        assert found.convert("RGB").tobytes() == expected.numpy().tobytes()
