"""What a card says of a prior, in Markdown, from the prior itself and its ``details`` alone; nothing there is trusted.

``details`` can be any JSON: what has not the form that the pipeline writes is shown as it is or left out, and a section
for which there is no figure says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dwp_init import (
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelChain,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
    Prior,
)
from dwp_init.convolutions import KINDS
from training.kernels.kernelset import PARTS

DATA_SETS = {
    "mnist": "MNIST",
    "notmnist": "notMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tinyimagenet32-a": "the first 100 classes of Tiny ImageNet at 32×32",
}
LONGEST = 300
FEW = 10  # kernels to each of their numbers; below, a covariance is hardly known
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#&~$])")
_SOURCES = {
    "dataset": str,
    "images": int,
    "layer": (str, list),
    "filters": list,
    "networks": int,
    "epochs": int,
    "batch_size": int,
    "lr": float,
    "l2": float,
    "precision": str,
    "test_accuracy_mean": float,
}
_SAMPLES = {"rms": float, "norm_5_50_95": list, "frechet": float}
_BY_EM = {"components": list, "shrinkages": list, "restarts": int, "most": int}
_BY_GRADIENT = {"epochs": int, "batch_size": int, "lr": float}


def plain(value: object) -> str:
    """Renders any JSON value as one line of text in which nothing is Markdown, HTML or a table's bar."""
    text = value if isinstance(value, str) else f"{value:g}" if type(value) is float else json.dumps(value)
    text = one_line(text)
    return _MARKUP.sub(r"\\\1", text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def one_line(text: str) -> str:
    """Replaces line breaks and whatever else is not printable by single spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def section(details: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns one object of ``details``, such as ``metrics``; empty where there is none."""
    return details[key] if isinstance(details.get(key), dict) else {}


def number(mapping: Mapping[str, Any], key: str) -> float | None:
    """Returns a number, None where there is none."""
    return mapping[key] if _is(mapping.get(key), float) else None


def is_synthetic(prior: Prior) -> bool:
    """Whether a prior was made under ``--smoke``, from synthetic images."""
    return bool(section(prior.details, "source").get("synthetic", False))


def is_bound(prior: Prior) -> bool:
    """Whether a prior's held-out log p is a lower bound."""
    return not prior.exact or section(prior.details, "metrics").get("kind") == "bound"


def size_text(prior: Prior) -> str:
    """Returns a kernel's height and width, such as ``7×7``."""
    return "×".join(map(str, prior.kernel_shape[1:]))


def layer_kind(prior: Prior) -> str:
    """Returns which of ``dwp_init.convolutions.KINDS`` the prior's kernels are of; empty where it is not recorded."""
    found = section(prior.details, "source").get("kind")
    return found if found in KINDS else ""


def kernels_text(prior: Prior) -> str:
    """Returns what the prior draws, such as ``7×7 convolution kernels of 3 channels``."""
    channels, depthwise = prior.kernel_shape[0], "depthwise " if layer_kind(prior) == "depthwise" else ""
    return f"{size_text(prior)} {depthwise}convolution kernels" + (f" of {channels} channels" if channels > 1 else "")


def kernels_note(prior: Prior) -> str:
    """Returns the same for a table's cell, such as ``7×7``, ``7×7 RGB stem`` or ``3×3 depthwise, by depth``."""
    channels, of = prior.kernel_shape[0], layer_kind(prior)
    text = size_text(prior)
    if (channels, of) == (3, "stem"):
        text += " RGB stem"
    elif channels > 1:
        text += f" of {channels} channels"
    if of == "depthwise":
        text += " depthwise"
    return f"{text}, by depth" if isinstance(prior, MixtureByDepth) else text


def source_text(prior: Prior) -> str:
    """Says in a sentence or two what the prior was fitted on."""
    source = section(prior.details, "source")
    if _fits(source, _SOURCES):
        what = "random images of its shape in the place of " if is_synthetic(prior) else ""
        layers = "one layer" if isinstance(source["layer"], str) else f"{len(source['layer'])} layers"
        first = (
            f"The kernels of {layers} of {source['networks']:,} small networks, trained on {what}{data_text(source)} "
            f"({source['images']:,} images)."
        )
    elif isinstance(source.get("checkpoint"), str):
        first = f"Not fitted here but imported: {plain(source['checkpoint'])}."
    elif isinstance(source.get("checkpoints"), list) and source["checkpoints"]:
        count, kind = f"{len(source['checkpoints']):,}", plain(source.get("kind", "convolution"))
        first = f"The {kind} kernels of {count} trained networks: {plain(source['checkpoints'])}."
    elif isinstance(source.get("file"), str):
        first = f"Kernels of its maker's own, from the file {plain(source['file'])}."
    else:
        return "What it was fitted on is not recorded."
    return f"{first} {_kept_text(source)}".rstrip()


def data_text(source: Mapping[str, Any]) -> str:
    """Returns the name by which a data set is known."""
    return DATA_SETS.get(source["dataset"]) or plain(source["dataset"])


def _kept_text(source: Mapping[str, Any]) -> str:
    counts, shares = section(source, "kernels"), _kept_shares(source)
    if not _fits(counts, dict.fromkeys(PARTS, int)) or not shares:
        return ""
    total = sum(counts[part] for part in PARTS)
    if min(shares) == 1:
        return f"All {total:,} kernels were kept."
    if len(shares) > 1:
        return f"{total:,} kernels were kept, {_span(shares)} of each layer's; smaller ones were left out."
    return f"{total:,} of about {float(f'{total / shares[0]:.3g}'):,.0f} kernels were kept; smaller ones were left out."


def _kept_shares(source: Mapping[str, Any]) -> list[float]:
    """Returns what share of its kernels each layer kept; empty where one is none."""
    kept = source.get("kept")
    shares = kept if isinstance(kept, list) else [kept]
    return shares if all(_is(share, float) and 1e-4 <= share <= 1 for share in shares) else []


def _span(shares: list[float]) -> str:
    low, high = (f"{100 * share:.1f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def source_table(prior: Prior) -> str:
    """Renders what is recorded of kernels and fit, a row each; empty where nothing is."""
    source = section(prior.details, "source")
    rows = _source_rows(source) if _fits(source, _SOURCES) else {plain(key): plain(source[key]) for key in source}
    counts = section(source, "kernels")
    if _fits(counts, dict.fromkeys(PARTS, int)):
        rows.pop("kernels", None)
        split = ", split by network" if "held_out_networks" in source else ""
        rows["kernels to fit / validate / test"] = " / ".join(f"{counts[part]:,}" for part in PARTS) + split
    if fit := section(prior.details, "fit"):
        rows["fit"] = _fit_text(prior, fit)
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]) if rows else ""


def _init_scale(source: Mapping[str, Any]) -> str:
    factor = source.get("init_scale", 1.0)
    return f", spatial kernels from {plain(factor)} of their usual initial scale" if factor != 1 else ""


def _source_rows(source: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "data": f"{data_text(source)}, {source['images']:,} images",
        "networks": _networks_text(source),
        "their training": f"{source['epochs']:,} epochs, batches of {source['batch_size']:,}, Adam {source['lr']:g}, "
        f"linear decay, l2 {source['l2']:g}, {plain(source['precision'])}{_init_scale(source)}",
        "their test accuracy": f"{100 * source['test_accuracy_mean']:.1f} %",
        **_layer_row(source["layer"]),
    }
    if kept := _kept_row(source):
        rows["kernels kept"] = kept
    made = section(source, "made_with")
    if _fits(made, {"torch": str, "processor": str}):
        rows["made with"] = f"PyTorch {plain(made['torch'])}, {plain(made['processor'])}"
    return rows


def _layer_row(layer: str | list[Any]) -> dict[str, str]:
    return {"layer": plain(layer)} if isinstance(layer, str) else {"layers": plain(", ".join(map(str, layer)))}


def _kept_row(source: Mapping[str, Any]) -> str:
    """Says what share of the kernels was kept and by which rule; the threshold is known where there is one layer."""
    shares, threshold, share = _kept_shares(source), number(source, "norm_threshold"), number(source, "min_norm")
    rule = "" if share is None else f"{share:g} times the 95 % quantile of the fitting networks"
    if len(shares) > 1:
        return f"{_span(shares)} of each layer's" + (f", of norm ≥ {rule}" if rule else "")
    if not shares or threshold is None:
        return ""
    return f"{_span(shares)}, of norm ≥ {threshold:g}" + (f", {rule}" if rule else "")


def _networks_text(source: Mapping[str, Any]) -> str:
    count, kind = f"{source['networks']:,}", source.get("network", "mnist")
    if kind == "mnist":
        filters = " and ".join(map(plain, source["filters"]))
        return f"{count} of the paper's Appendix H.2, with {filters} filters (256 and 512 there)"
    return f"{count} of kind {plain(kind)}, {'/'.join(map(plain, source['filters']))} filters"


def _fit_text(prior: Prior, fit: Mapping[str, Any]) -> str:
    if isinstance(prior, Gaussian):
        return "maximum likelihood"
    if isinstance(prior, (GaussianMixture, MixtureByDepth)) and _fits(fit, _BY_EM):
        tried = [" or ".join(map(plain, fit[key])) for key in ("components", "shrinkages")]
        by_depth, starts = isinstance(prior, MixtureByDepth), fit["restarts"]
        averaged = f", the average of {starts:,} starts" if by_depth and starts > 1 else ""
        reaches = fit.get("reaches", (0,)) if by_depth else (0,)
        own = f", to a layer's kernels and those up to {' or '.join(map(plain, reaches))} layers away"
        averaged = (own if max(reaches) > 0 else "") + averaged
        return (
            f"{'at each depth ' * by_depth}expectation-maximisation with {tried[0]} components and a shrinkage of "
            f"{tried[1]} kernels{averaged}, the best on the validation kernels; at most {fit['most']:,} kernels"
        )
    if isinstance(prior, KernelDensity) and _fits(fit, {"most": int}):
        return f"the bandwidth that is best on the validation kernels; at most {fit['most']:,} kernels kept"
    if _fits(fit, _BY_GRADIENT):
        latents = f", latents per kernel and step: {fit['importance_samples']}" if _is_latent(prior, fit) else ""
        return (
            f"{fit['epochs']:,} epochs (300 in the paper), batches of {fit['batch_size']:,}, AdamW {fit['lr']:g}, "
            f"linear decay{latents}, the best on the validation kernels"
        )
    return plain(dict(fit))


def _is_latent(prior: Prior, fit: Mapping[str, Any]) -> bool:
    return isinstance(prior, KernelVAE) and _fits(fit, {"importance_samples": int})


def family_text(prior: Prior) -> str:
    """Says of what family the prior is, and how large."""
    count, tensors = prior.parameter_count, prior.state_dict().values()
    stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
    noun = "parameter" if any(True for _ in prior.parameters()) else "number"
    return f"{_family(prior)} {count:,} {noun}{'s' * (count != 1)}; its tensors take {stored:.3g} MB."


def _family(prior: Prior) -> str:
    if isinstance(prior, KernelVAE):
        return _latent_family(prior)
    if isinstance(prior, GaussianMixture):
        return _mixture(prior)
    if isinstance(prior, MixtureByDepth):
        components = sum(mixture.components for mixture in prior.mixtures)
        depths = ", ".join(f"{depth:.2g}" for depth in prior.depths)
        return (
            f"Gaussian scale mixtures by relative depth ({depths}), {components} components in all; each layer takes "
            "that of the depth nearest to its own."
        )
    if isinstance(prior, KernelDensity):
        return f"A kernel density: {prior.count:,} learned kernels, each blurred by the covariance of all."
    if isinstance(prior, Flow):
        kind = f"{prior.transforms} {'coupling' if prior.coupling else 'autoregressive'} transforms"
        return f"A normalizing flow ({prior.network}) of {kind}, {prior.hidden} wide, on whitened kernels."
    if isinstance(prior, Autoregressive):
        return (
            f"An autoregressive density, weight by weight, of {prior.mixtures} normals each, {prior.hidden} wide, on "
            "whitened kernels."
        )
    return "A Gaussian with a full covariance."


def _mixture(prior: GaussianMixture) -> str:
    restarts = section(prior.details, "fit").get("restarts")
    kind = "Gaussians" if len(prior.scales) == 1 else "Gaussian scale mixtures"
    text = f"A mixture of {prior.components:,} {kind} with full covariances"
    if type(restarts) is int and restarts > 1 and prior.components % restarts == 0:
        text += f": the average of {restarts} fits of {prior.components // restarts} components"
    if len(prior.scales) > 1:
        scales = ", ".join(f"{scale:g}" for scale in prior.scales)
        text += f", each component at {len(prior.scales)} strengths ({scales})"
    return f"{text}."


def _latent_family(prior: KernelVAE) -> str:
    kind = "A variational auto-encoder"
    if isinstance(prior, KernelChain):
        kind = f"A Markov-chain prior (Eq. 9, T = {prior.transitions}): a variational auto-encoder"
    networks = (
        "the convolutional networks of the paper's Appendix H.1"
        if prior.network == "paper"
        else f"two dense layers each way ({prior.hidden} wide in the decoder)"
    )
    seen = "whitened" if prior.whiten else "raw"
    return f"{kind} with {networks} and {prior.latent_dim} latent dimensions, on {seen} kernels."


def density_text(prior: Prior) -> str:
    """Says how likely held-out kernels are, beside a Gaussian and a mixture; what is missing is not measured."""
    metrics = section(prior.details, "metrics")
    if number(metrics, "log_prob") is None:
        return "Not measured: the log p of kernels held out of the fit, and a Gaussian's and a mixture's beside it."
    exactness = "a lower bound by importance sampling" if is_bound(prior) else "exact"
    unknown, known = density_cells(prior), density_cells(prior, "log_prob_at_depth")
    by_depth = _log_prob_by_depth(prior)
    lines = [
        f"Mean log p of {_held_out_text(prior)}, in nats per kernel; this prior's is {exactness}:\n",
        "| density | log p | over the Gaussian |",
        "|---|---|---|",
        *_density_rows(", depth unknown" if known[0] else "", "Gaussian with a full covariance", unknown),
        *(_density_rows(", depth known", "Gaussian for each depth", known) if known[0] else []),
        "| mixture of Gaussians beside it | not measured | |",
        *([f"\nBy relative depth, 0 at the images: {by_depth}."] if by_depth else []),
    ]
    return "\n".join(lines)


def density_cells(prior: Prior, known: str = "log_prob") -> tuple[str, str, str]:
    """Renders log p of held-out kernels, a Gaussian's, and how far it is above that; empty where it was not measured.

    Args:
        prior: The prior.
        known: The metric: ``log_prob``, or ``log_prob_at_depth`` for kernels of known depth.
    """
    metrics = section(prior.details, "metrics")
    found, gaussian = number(metrics, known), number(metrics, f"gaussian_{known}")
    shown = ["" if value is None else f"{value:.7g}" for value in (found, gaussian)]
    return *shown, "" if None in (found, gaussian) else f"{found - gaussian:+.3f}"


def _density_rows(which: str, control: str, cells: tuple[str, str, str]) -> list[str]:
    found, beside, over = cells
    return [f"| **this prior**{which} | {found} | {over} |", f"| {control} | {beside or 'not measured'} | |"]


def _held_out_text(prior: Prior) -> str:
    """Says what kernels a prior was judged by, such as ``192 kernels of 2 networks that were held out whole``."""
    count = section(prior.details, "metrics").get("kernels")
    kernels = f"{count:,} kernel{'s' * (count != 1)}" if _is(count, int) else "kernels"
    networks = section(section(prior.details, "source"), "held_out_networks").get("test")
    if not _is(networks, int):
        return f"{kernels} held out of the fit"
    held_out = "1 network that was" if networks == 1 else f"{networks:,} networks that were"
    return f"{kernels} of {held_out} held out whole"


def _log_prob_by_depth(prior: Prior) -> str:
    """Lists log p of the kernels of each depth under the mixture of that depth; empty where it was not measured."""
    values = section(prior.details, "metrics").get("log_prob_by_depth")
    depths = prior.depths if isinstance(prior, MixtureByDepth) else ()
    if not isinstance(values, list) or len(values) != len(depths) or not all(_is(value, float) for value in values):
        return ""
    return ", ".join(f"{value:g} at {depth:.2g}" for value, depth in zip(values, depths, strict=True))


def effect_of_sets(names: Sequence[str]) -> str:
    """Says where the effect of a prior on training is measured that is one of sets of priors."""
    listed = ", ".join(f'`prior="{name}"`' for name in names)
    return (
        f"Measured as one of a set, {listed}, of which each layer takes the prior of its kind: six networks, beside "
        "the usual initialisations, in `model_cards/benchmark.md` of a clone. Not measured: this prior alone, whose "
        "draws are independent."
    )


def samples_text(prior: Prior) -> str:
    """Renders what draws are like beside held-out kernels."""
    samples = section(section(prior.details, "metrics"), "samples")
    words = {"real": "held-out kernels", "drawn": "draws", "mean": "draws without noise"}
    rows = [
        _sample_row(words[key], samples[key])
        for key in words
        if key in samples and _fits(section(samples, key), _SAMPLES)
    ]
    if not rows:
        return "Not measured: how draws differ from held-out kernels."
    return "\n".join(
        [
            "| | rms | norm, 5 / 50 / 95 % | roughness | Fréchet distance |",
            "|---|---|---|---|---|",
            *rows,
            "\nRoughness is the mean squared difference of neighbouring weights over twice their mean square (white "
            "noise has 1); the Fréchet distance is that of the row's mean and covariance from those of the held-out "
            "kernels, and in the row of these, that of the fit's kernels.",
        ]
    )


def _sample_row(label: str, row: Mapping[str, Any]) -> str:
    norms = " / ".join(map(plain, row["norm_5_50_95"]))
    roughness = number(row, "roughness")
    return f"| {label} | {row['rms']} | {norms} | {'' if roughness is None else roughness} | {row['frechet']} |"


def limits(prior: Prior) -> list[str]:
    """Returns where a prior of this shape and this log p does not help, a sentence each."""
    channels = prior.kernel_shape[0]
    found = [f"It initialises convolutions with {size_text(prior)} kernels, and no other layer."]
    if channels == 1:
        found.append("It knows single kernels, not how the channels of a layer go together.")
    else:
        found.append(f"It draws {channels} channels together, so a layer's input channels must be a multiple of that.")
    if layer_kind(prior) == "depthwise":
        found.append("Its kernels are of depthwise layers; `layers=` of `apply_` narrows the choice to those.")
    metrics = section(prior.details, "metrics")
    log_prob, gaussian, at_depth = (
        number(metrics, key) for key in ("log_prob", "gaussian_log_prob", "log_prob_at_depth")
    )
    if log_prob is not None and gaussian is not None and log_prob < gaussian:
        found.append(
            "As a density it was not shown to be better than a Gaussian: the lower bound on its log p is below that."
            if is_bound(prior)
            else "As a density it is worse than a Gaussian."
        )
    if log_prob is not None and at_depth is not None and at_depth < log_prob:
        found.append("Knowing the depth does not help: held-out kernels are likelier under all its mixtures together.")
    return found + _few_kernels(prior)


def _few_kernels(prior: Prior) -> list[str]:
    train = section(section(prior.details, "source"), "kernels").get("train")
    depths = len(prior.depths) if isinstance(prior, MixtureByDepth) else 1
    if not _is(train, int) or train >= FEW * prior.dim * depths:
        return []
    at_depths = f", at {depths} depths" if depths > 1 else ""
    numbers = f"{train:,} of {prior.dim:,} numbers each{at_depths}"
    return [f"There were few kernels to fit it to, and the Gaussian beside it: {numbers}."]


def source_limits(prior: Prior) -> list[str]:
    """Returns what alone the prior has seen; nothing where that is not recorded."""
    source = section(prior.details, "source")
    if not _fits(source, _SOURCES) or is_synthetic(prior):
        return []
    return [
        f"Its kernels come from one kind of network and one data set: {_networks_text(source)}, trained on "
        f"{data_text(source)} to a test accuracy of {100 * source['test_accuracy_mean']:.1f} %."
    ]


def _fits(mapping: Mapping[str, Any], form: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether a mapping has all of a form's keys, with values of their types."""
    return all(_is(mapping.get(key), kind) for key, kind in form.items())


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    if kind in (int, float):
        kinds = (int,) if kind is int else (int, float)
        return type(value) in kinds and -1e15 < value < 1e15
    return isinstance(value, kind)
