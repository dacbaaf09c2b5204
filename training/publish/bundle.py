"""From finished fits to the package: the bundled priors, their registry entries and their pictures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dwp_init import Prior, save_prior
from dwp_init.folder import read_files
from dwp_init.registry import BUNDLED, registry
from training.engine.records import DONE, check_outputs, read_config
from training.engine.stage import Context, Stage
from training.figures.kernels import (
    DRAWN,
    REAL,
    plot_colour_kernels,
    plot_depths,
    plot_families,
    plot_latent_space,
    plot_stems,
)
from training.fits.base import fitted_prior
from training.fits.by_depth import FitByDepth
from training.kernels.kernelset import KernelSet
from training.publish.cards import KERNELS_PICTURE, LATENT_PICTURE, has_a_plane
from training.publish.check import check_sources
from training.publish.release import digests, registry_entry, write_entry
from training.publish.templates import CARDS


def bundle(recipe: ModuleType, out: Path) -> list[str]:
    """Copies a recipe's finished priors into the package, enters them in the registry and draws their kernels.

    An entry's ``repo`` and ``revision``, its pin to the Hub, are kept if neither file changed, and dropped otherwise.

    Args:
        recipe: A recipe with ``PRIORS``, stage by name of the prior.
        out: The folder with its finished stages.

    Returns:
        The names of the priors.

    Raises:
        ValueError: A prior was made from synthetic data, with other settings than the recipe's, or from networks
            without a licence entry.
        FileNotFoundError: A stage is not finished.
    """
    stages = recipe.stages()
    priors = {name: _finished(name, stage, stages, out) for name, stage in recipe.PRIORS.items()}
    for name, prior in priors.items():
        needs = stages[recipe.PRIORS[name]].needs
        prior.details["source"] |= provenance([out / need for need in needs] or [out / recipe.PRIORS[name]])
        sha256 = digests(read_files(save_prior(prior, BUNDLED / name)))
        write_entry(name, registry_entry(prior, sha256, **_pin(name, sha256)))
        _draw(prior, _layers(stages[recipe.PRIORS[name]], out), CARDS / name)
    return list(priors)


def _layers(fit: Stage, out: Path) -> Sequence[KernelSet]:
    """Returns the kernels of each depth of a fit by depth, or else those of its kernels stages."""
    if isinstance(fit, FitByDepth):
        return fit.layers(Context(out=out))[1]
    return [KernelSet.load(out / need) for need in fit.needs]


def _draw(prior: Prior, layers: Sequence[KernelSet], folder: Path) -> None:
    """Plots held-out kernels and draws: by depth, in colour or in grey; and a VAE's latent plane."""
    folder.mkdir(parents=True, exist_ok=True)
    if prior.joint:
        plot_stems(prior, folder / KERNELS_PICTURE)
        return
    if not layers:
        plot_families(None, {DRAWN: prior}, folder / KERNELS_PICTURE, columns=1)
        return
    kernels = KernelSet.together(layers)
    if prior.depths:
        plot_depths([layer.test for layer in layers], prior, folder / KERNELS_PICTURE)
    elif prior.kernel_shape[0] == 3:
        draws = prior.sample(64, torch.Generator().manual_seed(0))
        plot_colour_kernels({REAL: kernels.test, DRAWN: draws}, folder / KERNELS_PICTURE)
    else:
        plot_families(kernels.test, {DRAWN: prior}, folder / KERNELS_PICTURE)
    if has_a_plane(prior):
        plot_latent_space(prior, kernels.train, folder / LATENT_PICTURE)


def _pin(name: str, sha256: Mapping[str, str]) -> dict[str, str]:
    """Returns a prior's pin to the Hub if these are the files that it pins; else nothing."""
    before = registry().get(name, {})
    return {key: before[key] for key in ("repo", "revision") if key in before and before.get("sha256") == sha256}


def _finished(name: str, stage: str, stages: Mapping[str, Stage], out: Path) -> Prior:
    if not (out / stage / DONE).exists():
        raise FileNotFoundError(f"stage {stage} in {out} is not finished; run the recipe first, for {name!r}")
    check_outputs(out / stage)
    prior = fitted_prior(out / stage)
    if prior.details["source"]["synthetic"]:
        raise ValueError(f"{out / stage} was made from synthetic data, under --smoke; such a prior is never bundled")
    check_sources(prior)
    _check_settings(stage, stages, out)
    return prior


def _check_settings(name: str, stages: Mapping[str, Stage], out: Path) -> None:
    """Raises ValueError where a stage, or one that it was made from, has other settings than the recipe's."""
    config, wanted = read_config(out / name), json.loads(json.dumps(dataclasses.asdict(stages[name])))
    found = config["settings"]
    if found != wanted:
        other = [f"{key} is {found.get(key)!r}, not {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key]]
        raise ValueError(f"{out / name} was made with other settings than the recipe's: {'; '.join(other)}")
    for need, fingerprint in config["needs"].items():
        if read_config(out / need)["fingerprint"] != fingerprint:
            raise ValueError(f"{out / name} was made from another {need} than the one in {out}; run the recipe again")
        _check_settings(need, stages, out)


def provenance(kernels: Sequence[Path]) -> dict[str, Any]:
    """Returns what a prior's configuration lacks on its kernels: how they were chosen, and digests of data or manifest.

    Args:
        kernels: The folders of the kernels stages, one for each layer; a rule that differs between them is a list. Or
            that of a fit to images.
    """
    settings = [read_config(folder)["settings"] for folder in kernels]
    rules = [each.get("min_norm") for each in settings]
    sources = {folder.parent / need for folder, each in zip(kernels, settings, strict=True) for need in each["needs"]}
    sources = sources or set(kernels)
    data = {name: splits for source in sorted(sources) for name, splits in read_config(source)["data"].items()}
    digests = {name: found if isinstance(found, str) else found["train"]["sha256"] for name, found in data.items()}
    chosen = {} if rules == [None] else {"min_norm": rules[0] if len(set(rules)) == 1 else rules}
    return chosen | ({"data_sha256": digests} if digests else {})
