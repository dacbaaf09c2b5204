"""Renders and writes cards: a prior's page on the Hugging Face Hub, made from the prior and its ``details``."""

from pathlib import Path
from typing import Any, TypeGuard

import torch

from dwp_init import KernelVAE, Prior, load_prior
from dwp_init.picture import kernel_sheet, planes_of, write_png
from dwp_init.registry import registry
from dwp_init.report import size_text
from dwp_init.sets import SETS
from dwp_init.storage import write_bytes
from training import recipes
from training.figures.kernels import plot_latent_space
from training.fits.base import FITS
from training.publish.check import HUB_ID, card_metadata, check_card
from training.publish.details import LONGEST, Details, plain
from training.publish.results import densities, effects, read_record, size_of_record
from training.publish.templates import render

CARD, KERNELS_PICTURE, LATENT_PICTURE = "README.md", "kernels.png", "latent.png"
CARD_TEMPLATE = "template.md.jinja"


def render_card(prior: Prior, address: str) -> str:
    """Renders the model card, ``README.md``, of a prior.

    All content comes from the prior and its ``details``. The card of a bundled prior under its own name also shows the
    tables of record in ``training/results`` that contain it. The card says which values were not measured.

    Args:
        prior: Any prior that :func:`dwp_init.save_prior` can save.
        address: What users pass as ``prior=``: a name of the registry, or ``user/repo`` on the Hub.

    Returns:
        YAML front matter and Markdown; its only relative links are to ``kernels.png`` and, for a VAE of two latents,
        ``latent.png``.

    Raises:
        ValueError: ``details`` names no licence, or the address has another form.
    """
    return render(CARD_TEMPLATE, **card_values(prior, address))


def card_values(prior: Prior, address: str) -> dict[str, Any]:
    """Returns what the template of cards gets; raises what :func:`render_card` does."""
    if not HUB_ID.fullmatch(address):
        raise ValueError(f"a card's address is a registry name, or user/repo on the Hub; got {address!r}")
    details = Details.of(prior)
    return {
        "metadata": card_metadata(prior).to_yaml(),
        "address": address,
        "name": plain(details.name or address),
        "prior": prior,
        "details": details,
        "shape": prior.kernel_shape,
        "size": size_text(prior.kernel_shape[1:]),
        "depths": prior.depths,
        "plane": has_a_plane(prior),
        "fit": _fit_text(prior, details),
        **_measured(prior, address),
    }


def write_card(folder: Path, address: str) -> list[Path]:
    """Writes ``README.md`` and its pictures into a prior's folder; its owner can edit them.

    The pictures show draws from the prior with a fixed seed.

    Args:
        folder: A prior's folder.
        address: What users will pass as ``prior=``, such as ``user/repo``.

    Returns:
        The files written.

    Raises:
        FileExistsError: One of the files already exists; nothing is written.
        ValueError: What :func:`dwp_init.load_prior` and :func:`render_card` raise.
    """
    prior = load_prior(folder)
    text = render_card(prior, address)
    names = [CARD, KERNELS_PICTURE, LATENT_PICTURE] if has_a_plane(prior) else [CARD, KERNELS_PICTURE]
    paths = [folder / name for name in names]
    if taken := [path.name for path in paths if path.exists()]:
        raise FileExistsError(f"{folder} holds {' and '.join(taken)} already; edit these files, or remove them first")
    check_card(text, prior, names)
    generator = torch.Generator(prior.device).manual_seed(0)
    kernels = prior.sample(64, generator)
    across = planes_of(kernels)[0, :, 0].numel()
    write_png(paths[1], kernel_sheet(kernels, zoom=max(720 // (8 * across), 1)))
    if has_a_plane(prior):
        plot_latent_space(prior, prior.sample(400, generator), paths[2])
    write_bytes(paths[0], text.encode())
    return paths


def has_a_plane(prior: Prior) -> TypeGuard[KernelVAE]:
    """Whether a prior's latent space can be drawn: a VAE's of two dimensions."""
    return isinstance(prior, KernelVAE) and prior.latent_dim == 2


def _fit_text(prior: Prior, details: Details) -> str:
    """Says how the prior was fitted: in its family's words, or else as the settings are recorded."""
    fit = FITS.get(prior.family)
    described = fit.describe(details.fit) if fit and details.fit else ""
    return plain(described, 2 * LONGEST) or (plain(dict(details.fit)) if details.fit else "")


def _measured(prior: Prior, address: str) -> dict[str, Any]:
    """Returns what was measured of a bundled prior, and how it was made; nothing for any other prior."""
    if not _is_bundled(prior, address):
        return {"bundled": False, "recipe": "", "record": {}, "sets": [], "together": [], "alone": []}
    size = size_of_record(address)
    return {
        "bundled": True,
        "recipe": next(name for name in recipes.names() if address in getattr(recipes.load(name), "PRIORS", {})),
        "record": {} if size is None else {"densities": densities(size), "effects": effects()},
        "sets": [each.name for each in SETS.values() if address in {like for _, like in each}],
        "together": [row for row in read_record("apply_cost") if address in row["priors"].split(" + ")],
        "alone": [row for row in read_record("decoding") if row["prior"] == address],
    }


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
