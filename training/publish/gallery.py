"""The gallery of the documentation site: a tile and a page for each bundled prior and each set of priors."""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from dwp_init import SETS, GaussianMixture, MixtureByDepth, PatchWhitening, Prior, PriorSet, load_prior
from dwp_init.folder import MODEL
from dwp_init.picture import ACROSS, colors_of, kernel_sheet, planes_of
from dwp_init.registry import BUNDLED, registry
from dwp_init.report import size_text
from training.figures.svg import svg_file, svg_size
from training.figures.webp import webp_bytes
from training.publish.benchmark_page import read_tasks
from training.publish.benchmark_record import OnRecord
from training.publish.cards import card_values
from training.publish.charts import densities_of, density_chart, first_steps_chart, over_own_chart, task_curves
from training.publish.details import Details
from training.publish.templates import render
from training.starts.controls import OWN

FACETS = {
    "size": "kernel size",
    "kind": "kind of layer",
    "domain": "domain",
    "family": "family",
    "licence": "licence",
}
DOMAIN_OF_DATA = {
    "notmnist": "letters",
    "tinyimagenet": "photographs",
    "ImageNet": "photographs",
}  # by how data sets begin
DRAWN_KERNELS = 32  # in a picture
SIDE, LARGE = 40, 80  # pixels of the side of a kernel, about, on a tile and on a page
INITS = {"notmnist-7x7": "dwp", "notmnist-5x5": "dwp", "-vae": "dense VAE", "-h1": "paper's VAE"}
"""By how names of priors end, the initialisation of ``converge_mnist`` that draws from them."""


class Picture(NamedTuple):
    """A picture of draws: its file within the gallery, its pixels ``(height, width, 3)`` and what it shows."""

    file: str
    pixels: Tensor
    text: str


class Curves(NamedTuple):
    """A chart of curves: its file within the gallery, what it shows, its size in pixels and its content."""

    file: str
    label: str
    width: int
    height: int
    content: bytes


@dataclass(frozen=True)
class Tile:
    """A prior or a set in the gallery.

    Args:
        name: Its name.
        facets: What it can be filtered by: for each of ``FACETS`` its values.
        note: What kernels it has.
        pictures: Pictures of draws.
    """

    name: str
    facets: dict[str, tuple[str, ...]]
    note: str
    pictures: tuple[Picture, ...]


_prior = cache(load_prior)  # each is asked for several times


@cache
def tiles() -> tuple[Tile, ...]:
    """Returns the tiles: sets first, then priors in the order of the registry."""
    priors = {name: _prior_tile(name) for name in registry() if (BUNDLED / name).exists()}
    return (*(_set_tile(each, priors) for each in SETS.values()), *priors.values())


@cache
def gallery_pages() -> dict[str, str]:
    """Returns the pages by their place in the site."""
    found = tiles()
    choices = {facet: sorted({value for tile in found for value in tile.facets[facet]}) for facet in FACETS}
    pages = {"priors/index.md": render("site_gallery.md.jinja", tiles=found, facets=FACETS, choices=choices)}
    for name in registry():
        pages[f"priors/{name}.md"] = _prior_page(_prior(name), name)
    for each in SETS.values():
        pages[f"priors/{each.name}.md"] = _set_page(each)
    return pages


def _tasks_of(name: str) -> list[OnRecord]:
    return [each for each in read_tasks() if each.finished and each.has(name, OWN)]


@cache
def _curves_of(name: str) -> list[Curves]:
    """The curves of a set in each finished task: files, so that a page does not grow with the tasks."""
    return [
        Curves(f"pictures/{name}-{each.task}.svg", each.label, *svg_size(each.svg), svg_file(each.svg))
        for each in task_curves(_tasks_of(name), name)
    ]


@cache
def gallery_curves() -> dict[str, bytes]:
    """Returns the SVG files of curves by their place in the site."""
    return {f"priors/{each.file}": each.content for name in SETS for each in _curves_of(name)}


@cache
def gallery_pictures() -> dict[str, bytes]:
    """Returns the WebP files by their place in the site."""
    shown = [picture for tile in tiles() for picture in tile.pictures]
    shown += [_first_draw(_prior(name), name) for name in registry()]
    return {f"priors/{each.file}": webp_bytes(Image.fromarray(each.pixels.numpy())) for each in shown}


def gallery_models() -> dict[str, Path]:
    """Returns the files of tensors that pages read in the browser, by their place in the site."""
    mixtures = [name for name in registry() if isinstance(_prior(name), GaussianMixture | MixtureByDepth)]
    return {f"priors/models/{name}.safetensors": BUNDLED / name / MODEL for name in mixtures}


def _prior_tile(name: str) -> Tile:
    prior = _prior(name)
    details = Details.of(prior)
    kind, depths = layers_of(prior, details.source.kind), prior.depths
    facets = {
        "size": (_size_text(prior),),
        "kind": (kind,),
        "domain": tuple(sorted(_domains(details))),
        "family": (prior.family,),
        "licence": (details.license,),
    }
    in_colour = prior.kernel_shape[0] == 3 and not isinstance(prior, PatchWhitening)
    note = f"{facets['size'][0]} {kind}{' in colour' if in_colour else ''}"
    return Tile(name, facets, f"{note}{', by depth' if depths else ''}", (_sheet_of(prior, name),))


def layers_of(prior: Prior, harvested: str) -> str:
    """Returns the kind of layers that a prior is for; one of single channels of stems is for dense layers.

    Args:
        prior: The prior.
        harvested: The kind of the layers that its kernels are from; empty for dense ones.
    """
    return "dense" if not harvested or (harvested == "stem" and prior.kernel_shape[0] == 1) else harvested


def _size_text(prior: Prior) -> str:
    """The size of kernels without their channels, of a prior of many shapes that of the largest."""
    return prior.kernels_text if isinstance(prior, PatchWhitening) else size_text(prior.kernel_shape[1:])


def _set_tile(prior_set: PriorSet, priors: dict[str, Tile]) -> Tile:
    """A set has what its members have; each member has a line of kernels."""
    members = [(kind, priors[str(name)]) for kind, name in prior_set]
    facets = {facet: tuple(sorted({value for _, tile in members for value in tile.facets[facet]})) for facet in FACETS}
    facets |= {"family": ("set",), "kind": tuple(dict.fromkeys(kind for kind, _ in members))}
    pictures = [
        _picture(_prior(tile.name), f"{prior_set.name}-{tile.name}", ACROSS, f"{kind} layers: {tile.note}")
        for kind, tile in members
    ]
    return Tile(prior_set.name, facets, f"a set: {', '.join(facets['kind'])}", tuple(pictures))


def _domains(details: Details) -> set[str]:
    recorded = {origin.domain for origin in details.source.origins.values()} - {""}
    return (
        recorded
        or {domain for start, domain in DOMAIN_OF_DATA.items() if details.data.startswith(start)}
        or {"unknown"}
    )


def _sheet_of(prior: Prior, name: str) -> Picture:
    """Draws of a prior, by depth with a row for each."""
    if not prior.depths:
        return _picture(prior, name, DRAWN_KERNELS, f"{DRAWN_KERNELS} draws from {name}")
    generator = torch.Generator().manual_seed(0)
    rows = [prior.at(depth).sample(ACROSS, generator) for depth in prior.depths]
    return _painted(torch.cat(rows), name, f"Draws from {name}, a row for each depth, that of the first layers above")


def _first_draw(prior: Prior, name: str) -> Picture:
    """What the page shows before anything is drawn in the browser: seed 0, at the first depth."""
    text = f"{DRAWN_KERNELS} kernels drawn from {name}"
    return _picture(prior.at(prior.depths[0]) if prior.depths else prior, f"{name}-first", DRAWN_KERNELS, text, LARGE)


def _picture(prior: Prior, name: str, count: int, text: str, side: int = SIDE) -> Picture:
    return _painted(prior.sample_layer(count, torch.Generator().manual_seed(0)), name, text, side)


def _painted(kernels: Tensor, name: str, text: str, side: int = SIDE) -> Picture:
    pixels = kernel_sheet(kernels, ACROSS, zoom=_zoom(kernels, side), colors=colors_of(kernels))
    return Picture(f"pictures/{name}.webp", pixels, text)


def _zoom(kernels: Tensor, side: int) -> int:
    planes, _, width = planes_of(kernels)[0].shape
    return math.ceil(side / (width if colors_of(kernels) == "rgb" else planes * width))


def _prior_page(prior: Prior, name: str) -> str:
    values = card_values(prior, name)
    densities = densities_of(name, values["details"].metrics)
    init = next((init for end, init in INITS.items() if values["record"] and name.endswith(end)), "")
    return render(
        "site_prior.md.jinja",
        **values,
        first=_first_draw(prior, name),
        drawing=_drawing(prior, name),
        model_megabytes=(BUNDLED / name / MODEL).stat().st_size / 1e6,
        densities=density_chart(densities, f"Log p of held-out kernels under {name} and others") if densities else "",
        curves=first_steps_chart(init, f"Accuracy over steps from {name} and from Kaiming's initialisation")
        if init
        else "",
    )


def _drawing(prior: Prior, name: str) -> dict[str, Any]:
    """What the script that draws in the browser has to know besides the tensors; empty for other families."""
    mixture = prior.at(prior.depths[0]) if prior.depths else prior
    if not isinstance(mixture, GaussianMixture):
        return {}
    kernels = torch.empty(1, *prior.kernel_shape)
    planes, height, width = planes_of(kernels)[0].shape
    settings: dict[str, Any] = {
        "name": name,
        "depths": [float(f"{depth:.4g}") for depth in prior.depths],
        "scales": mixture.scales,
    }
    settings |= {
        "dim": prior.dim,
        "planes": planes,
        "height": height,
        "width": width,
        "rgb": colors_of(kernels) == "rgb",
    }
    settings |= {"count": DRAWN_KERNELS, "columns": ACROSS, "zoom": _zoom(kernels, LARGE)}
    return {"settings": json.dumps(settings), "depths": prior.depths}


def _set_page(prior_set: PriorSet) -> str:
    by_name = {tile.name: tile for tile in tiles()}
    finished = _tasks_of(prior_set.name)
    label = f"Accuracy of {prior_set.name} over the model's own start, by task, in points"
    return render(
        "site_set.md.jinja",
        set=prior_set,
        tile=by_name[prior_set.name],
        members=[(kind, by_name[str(name)]) for kind, name in prior_set],
        chart=over_own_chart(finished, prior_set.name, label) if finished else "",
        curves=_curves_of(prior_set.name),
    )
