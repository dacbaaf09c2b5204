"""From finished fits to what users get: the bundled prior, its registry entry, its card, the README's tables."""

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

from huggingface_hub import ModelCardData

from dwp_init import Prior, load_prior, save_prior
from dwp_init.files import CONFIG, MODEL, write_bytes, write_json
from dwp_init.hub import BUNDLED, REGISTRY, registry
from training import recipes
from training.figures import plot_kernels
from training.fit import fitted_prior
from training.kernels import PARTS, KernelSet
from training.stages import DONE, Stage, read_config

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
        ValueError: A prior was made from synthetic data, or with other settings than the recipe's.
        FileNotFoundError: A stage is not finished.
    """
    stages = recipe.stages()
    priors = {name: _finished(name, stage, stages, out) for name, stage in recipe.PRIORS.items()}
    for name, prior in priors.items():
        needs = stages[recipe.PRIORS[name]].needs[0]
        prior.details["source"] |= _provenance(out / needs, out / stages[needs].needs[0])
        folder = save_prior(prior, BUNDLED / name)
        registry()[name] = {
            "kernel_shape": list(prior.kernel_shape),
            "family": prior.family,
            "source": prior.details["source"]["dataset"],
            "license": prior.details["license"],
            "log_prob": prior.details["metrics"]["log_prob"],
            "sha256": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in (CONFIG, MODEL)},
        }
        write_json(REGISTRY, dict(sorted(registry().items())))
        (CARDS / name).mkdir(parents=True, exist_ok=True)
        plot_kernels(KernelSet.load(out / needs).test, prior, CARDS / name / "kernels.png")
    return list(priors)


def _finished(name: str, stage: str, stages: Mapping[str, Stage], out: Path) -> Prior:
    if not (out / stage / DONE).exists():
        raise FileNotFoundError(f"stage {stage} in {out} is not finished; run the recipe first, for {name!r}")
    prior = fitted_prior(out / stage)
    if prior.details["source"]["synthetic"]:
        raise ValueError(f"{out / stage} was made from synthetic data, under --smoke; a published prior never is")
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
            raise ValueError(f"{out / name} was made from another {need} than the one in {out}; run the recipe anew")
        _check_settings(need, stages, out)


def _provenance(kernels: Path, sources: Path) -> dict[str, Any]:
    """What a prior's own configuration does not say of its kernels: the rule that kept them, and the data's digest."""
    data = read_config(sources)["data"]
    digests = {name: splits["train"]["sha256"] for name, splits in data.items()}
    return {"min_norm": read_config(kernels)["settings"]["min_norm"], "data_sha256": digests}


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
        bound="exactly" if prior.exact else "by a lower bound that tightens with the number of samples",
        family=_describe_network(prior),
        source="\n".join(f"| {key} | {value} |" for key, value in _source_rows(source, details["fit"]).items()),
        kernels=_counted(density[0]),
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
- Only the start of training was measured, not networks trained to the end."""


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


def _source_rows(source: dict[str, Any], fit: dict[str, Any]) -> dict[str, Any]:
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
        "fit": f"{fit['epochs']} epochs (300 in the paper), batches of {fit['batch_size']}, Adam {fit['lr']:g}, linear "
        f"decay, latents per kernel and step: {fit['importance_samples']}, the best on the validation networks",
        "made with": f"PyTorch {source['made_with']['torch']}, {source['made_with']['processor']}",
    }


def _density_row(row: dict[str, str], chosen: str) -> str:
    label = f"**{row['prior']}**" if row["prior"] == chosen else row["prior"]
    over = "" if row["prior"].endswith("gaussian") else _over_gaussian(row)
    return f"| {label} | {row['log_prob']} ± {row['standard_error']} | {over} | {row['elbo']} |"


def _over_gaussian(row: dict[str, str]) -> str:
    return f"{float(row['over_gaussian']):+} ± {row['over_gaussian_error']}"


def _counted(row: dict[str, str]) -> str:
    every = "all" if row["kernels"] == row["of"] else f"{int(row['kernels']):,} evenly spaced ones of"
    return f"{every} {int(row['of']):,}"


def _sample_row(label: str, row: dict[str, Any]) -> str:
    words = {"real": "held-out kernels", "drawn": "draws", "mean": "draws without noise"}
    norms = " / ".join(map(str, row["norm_5_50_95"]))
    return f"| {words[label]} | {row['rms']} | {norms} | {row['roughness']} | {row['frechet']} |"


def _effect(name: str) -> str:
    table = effect_table(("paper's VAE" if name.endswith("-h1") else "dwp", "Gaussian prior", LEARNED))
    return (
        "The paper's network on MNIST (60,000 images, Adam 1e-3, batches of 128), 7×7 and 5×5 priors together, test "
        f"accuracy in %, mean of paired seeds ± standard deviation of the paired difference:\n\n{table}"
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
    lines = ["| prior | kernels | log p | Gaussian's log p | over the Gaussian | size |", "|---|---|---|---|---|---|"]
    for name in registry():
        rows = {row["prior"]: row for row in _read(f"density_notmnist_{_size(name)}.csv")}
        row, gaussian = rows[name], rows[f"notmnist-{_size(name)}-gaussian"]
        size = sum(path.stat().st_size for path in (BUNDLED / name).iterdir())
        link = f"[`{name}`](model_cards/{name}/README.md)"
        lines.append(
            f"| {link} | {_size(name).replace('x', '×')} | {row['log_prob']} ± {row['standard_error']} | "
            f"{gaussian['log_prob']} | {_over_gaussian(row)} | {size / 1e6:.2f} MB |"
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
