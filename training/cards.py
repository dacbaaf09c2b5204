"""From finished fits to what users get: the bundled prior, its registry entry, its card, the README's tables."""

import re
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import ModelCardData

from dwp_init import GaussianMixture, KernelVAE, Prior, load_prior
from dwp_init.files import write_bytes
from dwp_init.registry import registry
from training import recipes
from training.converge import LEARNED
from training.kernels import PARTS
from training.tables import (
    cost_line,
    density_table,
    effect_table,
    families_table,
    joint_table,
    kernel_size,
    priors_table,
    read,
)

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
README_INITS = ("PyTorch default", "white noise, dwp's RMS", "dwp", "dense VAE", "Gaussian prior", LEARNED)
CALLED = {"": "dwp", "-vae": "dense VAE", "-h1": "paper's VAE"}  # in the effect table, by the end of a prior's name


def has_a_plane(prior: Prior) -> bool:
    """Whether a prior's latent space can be drawn: a VAE's of two dimensions."""
    return isinstance(prior, KernelVAE) and prior.latent_dim == 2


def pages() -> dict[Path, str]:
    """Returns every page that is written from results, with its text: the cards, the families' page, the README."""
    written = {CARDS / name / "README.md": card(name) for name in registry()}
    written[CARDS / "families.md"] = Template((CARDS / "families_template.md").read_text()).substitute(
        families=families_table(),
        density_7x7=density_table("7x7"),
        density_5x5=density_table("5x5"),
        joint=joint_table(),
    )
    return written | {ROOT / "README.md": _fill_readme((ROOT / "README.md").read_text())}


def write_pages() -> list[Path]:
    """Writes :func:`pages`."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())
    return list(pages())


def card(name: str) -> str:
    """Renders the card of a bundled prior from its configuration and the results of record."""
    prior = load_prior(name)
    details, size = prior.details, kernel_size(name)
    metrics, source = details["metrics"], details["source"]
    metadata = ModelCardData(
        library_name="dwp_init",
        license=details["license"].lower(),
        tags=["dwp-prior", "weight-initialization", "deep-weight-prior", f"kernel-{size}", "pytorch"],
    )
    return Template((CARDS / "template.md").read_text()).substitute(
        metadata=metadata.to_yaml(),
        name=name,
        size=size.replace("x", "×"),
        bound="exactly" if prior.exact else "by a lower bound that tightens with the number of samples",
        family=_describe_family(prior),
        latent=LATENT if has_a_plane(prior) else "",
        source="\n".join(f"| {key} | {value} |" for key, value in _source_rows(source).items()),
        fit=_describe_fit(prior),
        kernels=_counted(read(f"density_notmnist_{size}.csv")[0]),
        test_networks=source["held_out_networks"]["test"],
        density=density_table(size, name),
        samples="\n".join(_sample_row(label, row) for label, row in metrics["samples"].items()),
        effect=_effect(name),
        limits=LIMITS,
        recipe=next(recipe for recipe in recipes.names() if name in getattr(recipes.load(recipe), "PRIORS", {})),
    )


LIMITS = """\
- It knows single kernels, not how the channels of a layer go together; it was not measured on deep or normalised nets.
- Its kernels come from two-layer networks on 28×28 grey letters; it was not measured on photographs or at other depths.
- Only the start of training was measured, not networks trained to the end."""


LATENT = """

![Where learned kernels lie in the two latent dimensions, and what the decoder makes of these](latent.png)
"""


def _describe_family(prior: Prior) -> str:
    arguments = prior.arguments()
    if isinstance(prior, GaussianMixture):
        restarts = prior.details["fit"]["restarts"]
        scales = ", ".join(f"{scale:g}" for scale in prior.scales)
        return (
            f"A mixture of {prior.components} Gaussian scale mixtures with full covariances: the average of {restarts} "
            f"fits of {prior.components // restarts} components, each component at {len(prior.scales)} strengths "
            f"({scales}); {prior.parameter_count:,} numbers."
        )
    if arguments["network"] == "paper":
        return (
            f"A variational auto-encoder with the convolutional networks of the paper's Appendix H.1 and "
            f"{arguments['latent_dim']} latent dimensions, on raw kernels; {prior.parameter_count:,} parameters."
        )
    return (
        f"A variational auto-encoder with two dense layers each way ({arguments['hidden']} wide in the decoder) and "
        f"{arguments['latent_dim']} latent dimensions, on kernels whitened by their own covariance; "
        f"{prior.parameter_count:,} parameters."
    )


def _describe_fit(prior: Prior) -> str:
    fit = prior.details["fit"]
    if isinstance(prior, GaussianMixture):
        choices = [" or ".join(f"{value:g}" for value in fit[key]) for key in ("components", "shrinkages")]
        return (
            f"expectation-maximisation with {choices[0]} components and a shrinkage of {choices[1]} kernels, the best "
            f"on the validation networks; at most {fit['most']:,} kernels"
        )
    return (
        f"{fit['epochs']} epochs (300 in the paper), batches of {fit['batch_size']}, AdamW {fit['lr']:g}, linear "
        f"decay, latents per kernel and step: {fit['importance_samples']}, the best on the validation networks"
    )


def _source_rows(source: dict[str, Any]) -> dict[str, Any]:
    filters = " and ".join(map(str, source["filters"]))
    fitted = source["kernels"]
    return {
        "data": f"{source['dataset']}, {source['images']:,} images",
        "networks": f"{source['networks']} of the paper's Appendix H.2, with {filters} filters (256 and 512 there)",
        "training": f"{source['epochs']} epochs, batches of {source['batch_size']}, Adam {source['lr']:g}, "
        f"linear decay, l2 {source['l2']:g}, {source['precision']}",
        "their test accuracy": f"{100 * source['test_accuracy_mean']:.1f} %",
        "layer": f"`{source['layer']}`",
        "kernels kept": f"{100 * source['kept']:.1f} %, of norm ≥ {source['norm_threshold']}, which is "
        f"{source['min_norm']} times the 95 % quantile of the fitting networks",
        "kernels to fit / validate / test": " / ".join(f"{fitted[part]:,}" for part in PARTS) + ", split by network",
        "made with": f"PyTorch {source['made_with']['torch']}, {source['made_with']['processor']}",
    }


def _counted(row: dict[str, str]) -> str:
    every = "all" if row["kernels"] == row["of"] else f"{int(row['kernels']):,} evenly spaced ones of"
    return f"{every} {int(row['of']):,}"


def _sample_row(label: str, row: dict[str, Any]) -> str:
    words = {"real": "held-out kernels", "drawn": "draws", "mean": "draws without noise"}
    norms = " / ".join(map(str, row["norm_5_50_95"]))
    return f"| {words[label]} | {row['rms']} | {norms} | {row['roughness']} | {row['frechet']} |"


def _effect(name: str) -> str:
    called = CALLED[name.removeprefix(f"notmnist-{kernel_size(name)}")]
    table = effect_table((called, "Gaussian prior", LEARNED))
    return (
        "The paper's network on MNIST (60,000 images, Adam 1e-3, batches of 128), 7×7 and 5×5 priors together, test "
        f"accuracy in %, mean of paired seeds ± standard deviation of the paired difference:\n\n{table}"
    )


def _fill_readme(text: str) -> str:
    tables = {"priors": priors_table(), "effect": effect_table(README_INITS), "cost": cost_line()}
    for name, table in tables.items():
        block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not block.search(text):
            raise ValueError(f"README.md has no block <!-- {name} --> … <!-- /{name} --> to fill")
        text = block.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text
