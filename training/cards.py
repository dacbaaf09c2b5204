"""From finished fits to what users get: the bundled prior, its registry entry, its card, the README's tables."""

import csv
import hashlib
import re
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

from huggingface_hub import ModelCardData

from dwp_init import load_prior, save_prior
from dwp_init.files import CONFIG, MODEL, write_bytes, write_json
from dwp_init.hub import BUNDLED, REGISTRY, registry
from training import recipes
from training.figures import plot_kernels
from training.fit import fitted_prior
from training.kernels import PARTS, KernelSet

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
RESULTS = ROOT / "training" / "results"
EFFECT_STEPS = ("25", "120")
LEARNED = "learned kernels, He's RMS"
README_INITS = ("PyTorch default", "white noise, dwp's RMS", "dwp", "Gaussian prior", LEARNED)


def bundle(recipe: ModuleType, out: Path) -> list[str]:
    """Copies a recipe's finished priors into the package, enters them in the registry and draws their kernels.

    Args:
        recipe: A recipe with ``PRIORS``, stage by name of the prior.
        out: The folder with its finished stages.

    Returns:
        The names.

    Raises:
        ValueError: A prior was made from synthetic data.
        FileNotFoundError: A stage is not finished.
    """
    stages = recipe.stages()
    for name, stage in recipe.PRIORS.items():
        if not (out / stage / "done.json").exists():
            raise FileNotFoundError(f"stage {stage} in {out} is not finished; run the recipe first, for {name!r}")
        prior = fitted_prior(out / stage)
        if prior.details["source"]["synthetic"]:
            raise ValueError(f"{out / stage} was made from synthetic data, under --smoke; a published prior never is")
        folder = save_prior(prior, BUNDLED / name)
        entry = {
            "kernel_shape": list(prior.kernel_shape),
            "family": prior.family,
            "source": prior.details["source"]["dataset"],
            "license": prior.details["license"],
            "log_prob": prior.details["metrics"]["log_prob"],
            "sha256": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in (CONFIG, MODEL)},
        }
        registry()[name] = entry
        write_json(REGISTRY, dict(sorted(registry().items())))
        real = KernelSet.load(out / stages[stage].needs[0]).test
        (CARDS / name).mkdir(parents=True, exist_ok=True)
        plot_kernels(real, prior, CARDS / name / "kernels.png")
    return list(recipe.PRIORS)


def pages() -> dict[Path, str]:
    """Returns every page that is written from results, with its text: a card per bundled prior, and the README."""
    written = {CARDS / name / "README.md": card(name) for name in registry()}
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
    details, size = prior.details, _size(name)
    metrics, source = details["metrics"], details["source"]
    density = _read(f"density_notmnist_{size}.csv")
    metadata = ModelCardData(
        library_name="dwp_init",
        license=details["license"].lower(),
        tags=["dwp-prior", "weight-initialization", "deep-weight-prior", f"kernel-{size}", "pytorch"],
    )
    return Template((CARDS / "template.md").read_text()).substitute(
        metadata=metadata.to_yaml(),
        name=name,
        size=size.replace("x", "×"),
        bound="exact" if prior.exact else "as a lower bound that tightens with the number of samples",
        family=_describe_network(prior),
        source="\n".join(f"| {key} | {value} |" for key, value in _source_rows(source).items()),
        kernels=metrics["kernels"],
        test_networks=source["held_out_networks"]["test"],
        density="\n".join(_density_row(row, name) for row in density),
        samples="\n".join(_sample_row(label, row) for label, row in metrics["samples"].items()),
        effect=_effect(name),
        limits=LIMITS,
        recipe=next(recipe for recipe in recipes.names() if name in getattr(recipes.load(recipe), "PRIORS", {})),
    )


LIMITS = """\
- It knows single kernels, not how the channels of a layer go together; it was not measured on deep or normalised nets.
- Its kernels come from two-layer networks on 28×28 grey letters; it was not measured on photographs or at other depths.
- Networks trained to the end: what was measured is the start of training."""


def _describe_network(prior: Any) -> str:
    arguments = prior.arguments()
    if arguments["network"] == "paper":
        return (
            f"A variational auto-encoder with the convolutional networks of the paper's Appendix H.1 and "
            f"{arguments['latent_dim']} latent dimensions, on raw kernels; {_parameters(prior):,} parameters."
        )
    return (
        f"A variational auto-encoder with two dense layers each way ({arguments['hidden']} wide in the decoder) and "
        f"{arguments['latent_dim']} latent dimensions, on kernels whitened by their own covariance; "
        f"{_parameters(prior):,} parameters."
    )


def _parameters(prior: Any) -> int:
    return sum(parameter.numel() for parameter in prior.parameters())


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
        "kernels kept": f"{100 * source['kept']:.1f} %, those of norm ≥ {source['norm_threshold']}",
        "kernels to fit / validate / test": " / ".join(f"{fitted[part]:,}" for part in PARTS) + ", split by network",
        "made with": f"PyTorch {source['made_with']['torch']}, {source['made_with']['processor']}",
    }


def _density_row(row: dict[str, str], chosen: str) -> str:
    label = f"**{row['prior']}**" if row["prior"] == chosen else row["prior"]
    return f"| {label} | {row['log_prob']} ± {row['standard_error']} | {row['elbo']} |"


def _sample_row(label: str, row: dict[str, Any]) -> str:
    words = {"real": "held-out kernels", "drawn": "draws", "mean": "draws without noise"}
    norms = " / ".join(map(str, row["norm_5_50_95"]))
    return f"| {words[label]} | {row['rms']} | {norms} | {row['roughness']} | {row['frechet']} |"


def _effect(name: str) -> str:
    table = effect_table(("paper's VAE" if name.endswith("-h1") else "dwp", "Gaussian prior", LEARNED))
    return (
        "The paper's network on MNIST (60,000 images, Adam 1e-3, batches of 128), 7×7 and 5×5 priors together, test "
        f"accuracy in %, mean of paired seeds:\n\n{table}"
    )


def effect_table(inits: tuple[str, ...]) -> str:
    """Renders rows of ``converge_mnist.csv``, Kaiming first, at the steps of record."""
    rows = _read("converge_mnist.csv")
    found = {(row["init"], row["step"]): row for row in rows}
    lines = ["| init | " + " | ".join(f"{s} steps | over Kaiming | seeds ahead" for s in EFFECT_STEPS) + " |"]
    lines.append("|---" * (1 + 3 * len(EFFECT_STEPS)) + "|")
    for init in ("Kaiming", *inits):
        cells = []
        for step in EFFECT_STEPS:
            row = found[init, step]
            ahead = "" if init == "Kaiming" else f"{row['seeds_ahead']} of {row['seeds']}"
            over = (
                "" if init == "Kaiming" else f"{float(row['over_kaiming']):+.2f} ± {float(row['over_kaiming_sd']):.2f}"
            )
            cells.append(f"{float(row['accuracy']):.2f} | {over} | {ahead}")
        lines.append(f"| {init} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def priors_table() -> str:
    """Renders the bundled priors with their density on held-out networks."""
    lines = ["| prior | kernels | log p, nats per kernel | full-covariance Gaussian | size |", "|---|---|---|---|---|"]
    for name in registry():
        metrics = load_prior(name).details["metrics"]
        size = sum(path.stat().st_size for path in (BUNDLED / name).iterdir())
        link = f"[`{name}`](model_cards/{name}/README.md)"
        lines.append(
            f"| {link} | {_size(name).replace('x', '×')} | {metrics['log_prob']} ± {metrics['standard_error']} | "
            f"{metrics['gaussian_log_prob']} | {size / 1e6:.2f} MB |"
        )
    return "\n".join(lines)


def _fill_readme(text: str) -> str:
    tables = {"priors": priors_table(), "effect": effect_table(README_INITS), "cost": _cost_line()}
    for name, table in tables.items():
        block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not block.search(text):
            raise ValueError(f"README.md has no block <!-- {name} --> … <!-- /{name} --> to fill")
        text = block.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text


def _cost_line() -> str:
    dense, paper = _read("apply_cost.csv")
    return (
        f"Drawing the {int(dense['kernels']):,} kernels of the paper's CIFAR network on a CPU takes "
        f"{dense['ratio_median']} times as long as `kaiming_normal_` (median; {paper['ratio_median']} times with the "
        f"paper's VAE) and {dense['extra_memory_mb']} MB of extra memory ({paper['extra_memory_mb']} MB)."
    )


def _read(name: str) -> list[dict[str, str]]:
    path = RESULTS / name
    if not path.exists():
        raise FileNotFoundError(f"no {path}; run the recipe that records it, see python -m training list")
    return list(csv.DictReader(path.read_text().splitlines()))


def _size(name: str) -> str:
    return next(part for part in name.split("-") if re.fullmatch(r"\d+x\d+", part))
