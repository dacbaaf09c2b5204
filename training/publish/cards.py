"""Cards: what a prior's page on the Hugging Face Hub says, from its configuration; and the pages of this repository."""

import re
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dwp_init import KernelVAE, MixtureByDepth, Prior, load_prior
from dwp_init.picture import kernel_sheet, write_png
from dwp_init.registry import BUNDLED, registry
from dwp_init.sets import SETS
from dwp_init.storage import write_bytes
from training import recipes
from training.engine.records import ROOT
from training.experiments.converge import LEARNED
from training.figures.kernels import plot_latent_space
from training.publish import wording
from training.publish.check import HUB_ID, card_metadata, check_card
from training.publish.tables import (
    BENCHMARKS,
    FAMILIES,
    bayes_line,
    benchmark_of,
    benchmark_table,
    benchmarks,
    cost_line,
    density_line,
    density_table,
    draws_cost,
    effect_line,
    effect_table,
    families_table,
    few_labels_accuracy,
    few_labels_calibration,
    few_labels_lead,
    figure_table,
    figures,
    joint_table,
    priors_table,
    read,
    size_of_record,
)

CARDS = ROOT / "model_cards"
CARD, KERNELS, LATENT = "README.md", "kernels.png", "latent.png"
MNIST_INITS = ("PyTorch default", "white noise, dwp's RMS", "dwp", "dense VAE", "Gaussian prior", LEARNED)
LIMITS = (  # of the priors with tables of record
    "Its kernels come from two-layer networks on 28×28 grey letters; it was not measured on photographs, at other "
    "depths, or on deep or normalised networks.",
    "Only the start of training was measured, not networks trained to the end.",
)


def render_card(prior: Prior, address: str) -> str:
    """Renders the model card, ``README.md``, of a prior.

    Everything is taken from the prior and its ``details``; for a bundled prior under its own name the tables of record
    in ``training/results`` are shown too, as far as it is in them. Where there is no figure, the card says so.

    Args:
        prior: Any prior that :func:`dwp_init.save_prior` can save.
        address: What users pass as ``prior=``: a name of the registry, or ``user/repo`` on the Hub.

    Returns:
        YAML front matter and Markdown; its only relative links are to ``kernels.png`` and, for a VAE of two latents,
        ``latent.png``.

    Raises:
        ValueError: ``details`` names no licence, or the address is of another form.
    """
    if not HUB_ID.fullmatch(address):
        raise ValueError(f"a card's address is a registry name, or user/repo on the Hub; got {address!r}")
    metadata, bundled = card_metadata(prior), _is_bundled(prior, address)
    name = wording.one_line(prior.details.get("name", "")) or address
    return _fill(
        "template.md.jinja",
        metadata=metadata.to_yaml(),
        name=wording.plain(name),
        address=address,
        synthetic=wording.is_synthetic(prior),
        kernels=wording.kernels_text(prior),
        exactness="exactly" if prior.exact else "by a lower bound that tightens with the number of samples",
        caption=_caption(prior, wording.plain(name), bundled),
        plane=has_a_plane(prior),
        source=wording.source_text(prior),
        table=wording.source_table(prior),
        family=wording.family_text(prior),
        samples=wording.samples_text(prior),
        license=wording.plain(prior.details["license"]),
        **(_bundled(prior, address) if bundled else _unrecorded(prior)),
    )


def write_card(folder: Path, address: str) -> list[Path]:
    """Writes ``README.md`` and its pictures into a prior's folder, for its owner to edit.

    The pictures show draws from the prior with a fixed seed.

    Args:
        folder: A prior's folder.
        address: What users will pass as ``prior=``, such as ``user/repo``.

    Returns:
        The files written.

    Raises:
        FileExistsError: One of them is there already; nothing is written then.
        ValueError: What :func:`dwp_init.load_prior` and :func:`render_card` raise.
    """
    prior = load_prior(Path(folder))
    text = render_card(prior, address)
    names = [CARD, KERNELS, LATENT] if has_a_plane(prior) else [CARD, KERNELS]
    paths = [Path(folder) / name for name in names]
    if taken := [path.name for path in paths if path.exists()]:
        raise FileExistsError(f"{folder} holds {' and '.join(taken)} already; edit what is there, or remove it first")
    check_card(text, prior, names)
    generator = torch.Generator(prior.device).manual_seed(0)
    channels, _, width = prior.kernel_shape
    write_png(paths[1], kernel_sheet(prior.sample(64, generator), zoom=max(720 // (8 * channels * width), 1)))
    if has_a_plane(prior):
        plot_latent_space(prior, prior.sample(400, generator), paths[2])
    write_bytes(paths[0], text.encode())
    return paths


def pages() -> dict[Path, str]:
    """Returns every page that is written from results, with its text: the cards, the README and three more."""
    bundled = [name for name in registry() if (BUNDLED / name).exists()]
    written = {CARDS / name / CARD: render_card(load_prior(name), name) for name in bundled}
    written[CARDS / "families.md"] = _fill(
        "families.md.jinja",
        families=families_table(),
        density_7x7=density_table("7x7"),
        density_5x5=density_table("5x5"),
        joint=joint_table(),
    )
    written[CARDS / "few_labels.md"] = _fill(
        "few_labels.md.jinja",
        accuracy=few_labels_accuracy,
        lead=few_labels_lead,
        calibration=few_labels_calibration,
        bayes=bayes_line(),
    )
    written[CARDS / "benchmark.md"] = _fill(
        "benchmark.md.jinja",
        summary=benchmark_table(),
        effect=effect_table(MNIST_INITS),
        titles={name: BENCHMARKS[name] for name in benchmarks()},
        table=benchmark_of,
        figures=figures(),
        figure_table=figure_table,
    )
    return written | {ROOT / "README.md": _fill_readme((ROOT / "README.md").read_text())}


def write_pages() -> list[Path]:
    """Writes :func:`pages`."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())
    return list(pages())


def has_a_plane(prior: Prior) -> bool:
    """Whether a prior's latent space can be drawn: a VAE's of two dimensions."""
    return isinstance(prior, KernelVAE) and prior.latent_dim == 2


def in_colour(prior: Prior) -> bool:
    """Whether a prior's kernels can be drawn in colour: those of three channels."""
    return prior.kernel_shape[0] == 3


def _fill(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(CARDS),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def _is_bundled(prior: Prior, address: str) -> bool:
    """Whether a prior is the bundled one of this name, tensors and all."""
    if address not in registry():
        return False
    ours = load_prior(address)
    tensors, found = ours.state_dict(), prior.state_dict()
    return (
        prior.details == ours.details
        and tensors.keys() == found.keys()
        and all(torch.equal(tensors[key], found[key].cpu()) for key in tensors)
    )


def _bundled(prior: Prior, name: str) -> dict[str, Any]:
    """Returns the parts of a bundled prior's card that depend on what was recorded."""
    recipe = next(recipe for recipe in recipes.names() if name in getattr(recipes.load(recipe), "PRIORS", {}))
    size = size_of_record(name)
    found = _unrecorded(prior) if size is None else _recorded(prior, name, size)
    sets = [each.name for each in SETS.values() if name in {like for _, like in each}]
    if size is None and sets:
        found["effect"] = wording.effect_of_sets(sets)
    origin = f" Made by `python -m training run {recipe}` in a clone of `dwp_init`."
    return found | {"cost": draws_cost(name), "origin": origin}


def _recorded(prior: Prior, name: str, size: str) -> dict[str, Any]:
    """Returns those of a prior that is in the tables of record of its size."""
    held_out = read(f"density_notmnist_{size}.csv")[0]
    every = "all" if held_out["kernels"] == held_out["of"] else f"{int(held_out['kernels']):,} evenly spaced ones of"
    networks = prior.details["source"]["held_out_networks"]["test"]
    _, called = FAMILIES[name.removeprefix(f"notmnist-{size}")]
    return {
        "density": (
            f"{density_line(size, name)} It is the mean over {every} {int(held_out['of']):,} kernels of {networks} "
            "source networks that were held out whole, ± standard error over networks. The other rows are the families "
            "fitted to the same kernels, most of them not published; a bound is one from below, by importance "
            "sampling. The recalls are those of a leave-one-out nearest neighbour that tells held-out kernels (first) "
            f"from draws (second): .5 and .5 where the laws agree.\n\n{density_table(size, name)}"
        ),
        "effect": (
            "The paper's network on MNIST (60,000 images, Adam 1e-3, batches of 128), its 7×7 and 5×5 layers from "
            "priors of one family: test accuracy in %, mean of paired seeds ± standard deviation of the paired "
            f"difference. «{called}» is this prior, «Gaussian prior» a full-covariance Gaussian fitted to the same "
            "kernels; the last row draws the learned kernels themselves, at random.\n\n"
            f"{effect_table((called, 'Gaussian prior', LEARNED))}"
        ),
        "limits": [*wording.limits(prior), *LIMITS],
    }


def _unrecorded(prior: Prior) -> dict[str, Any]:
    """Returns the same parts for any other prior."""
    return {
        "density": wording.density_text(prior),
        "effect": "Not measured: how a network trains from its draws, beside Kaiming's initialisation.",
        "limits": [
            *wording.limits(prior),
            *wording.source_limits(prior),
            "Whether it helps on your network and data was not measured.",
        ],
        "cost": "Not measured: how long drawing takes, beside `kaiming_normal_`.",
        "origin": "",
    }


def _caption(prior: Prior, name: str, bundled: bool) -> str:
    if bundled:
        shown = ", in colour" if in_colour(prior) else ", by depth" if isinstance(prior, MixtureByDepth) else ""
        return f"{wording.size_text(prior)} kernels of held-out networks beside draws from {name}{shown}"
    channels = ", its channels side by side" if prior.kernel_shape[0] > 1 else ""
    return f"Draws from {name}, each on its own scale{channels}, blue below and red above 0"


def _fill_readme(text: str) -> str:
    tables = {
        "priors": priors_table(),
        "benchmark": benchmark_table(every=False),
        "effect": effect_line(),
        "cost": cost_line(),
        "bayes": bayes_line(),
    }
    for name, table in tables.items():
        block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not block.search(text):
            raise ValueError(f"README.md has no block <!-- {name} --> … <!-- /{name} --> to fill")
        text = block.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text
