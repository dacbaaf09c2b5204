"""How alike the inputs of a layer are: the constants by which ``apply_`` reckons the response of smooth kernels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import dwp_init
from training.engine.options import check_counts
from training.engine.records import Row, print_table, write_table
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.networks.registry import build
from training.starts.base import ConvLayer, initialize_, kind_of, spatial_convolutions
from training.starts.controls import NOISE
from training.starts.priors import bundled_digests

STACKS: dict[str, tuple[bool, type[nn.Module]]] = {  # whether separable, and the activation
    "stack": (False, nn.ReLU),
    "stack-silu": (False, nn.SiLU),
    "separable": (True, nn.ReLU),
    "separable-silu": (True, nn.SiLU),
}
DRAWS = {"natural": True, "independent": False}  # whether output channels are orthogonal


class Model(NamedTuple):
    """A model of the correlations between a layer's inputs.

    Attributes:
        distance: Whether ρ^|Δ| is multiplied over the axes, or |Δ| is the Euclidean distance.
        rho: ρ.
        alike: γ, the correlation between channels inside a network.
        stem: γ between the channels of an image.
    """

    distance: Literal["axes", "euclidean"]
    rho: float
    alike: float
    stem: float


DISTANCES: tuple[Literal["axes", "euclidean"], ...] = ("axes", "euclidean")
RHOS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.925, 0.95)
MODELS = [
    Model(distance, rho, alike, 0.9 if alike else 0.0)
    for distance, alike, rho in product(DISTANCES, (0.0, 0.3, 0.4), RHOS)
]


@dataclass(frozen=True)
class ResponseRho(Stage):
    """Compares models of correlation by how well they predict the growth of activations in networks of several kinds.

    In each network, each layer's growth, the root mean square of its outputs over that of its inputs, is measured with
    drawn kernels and with white noise. The error of a model is the logarithm of their ratio at the same response: 0
    where drawn kernels of a response let activations grow as white noise does. Records ``<name>.csv``.

    Args:
        networks: Names and numbers of channels, such as ``vgg 16 32 64``; ``stack 3 64 12`` has 12 convolutions 3×3 of
            64 channels, each before a ReLU, and ``separable-silu 3 64 12`` depthwise and pointwise ones before SiLUs.
        name: Base name of the CSV file.
        data: Name of the data set.
        images: Number of images, the first ones for training.
        seeds: Number of draws.
        prior: A bundled set of priors.
    """

    networks: tuple[str, ...] = ()
    name: str = "response_rho"
    data: str = "cifar10"
    images: int = 64
    seeds: int = 2
    prior: str = "natural-v1"

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(self.prior)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(images=self.images, seeds=self.seeds, networks=len(self.networks))
        images, _ = context.images(self.data, "train").to(context.device)
        parts = images[: self.images]
        runs = list(product(self.networks, range(self.seeds)))
        settings: dict[str, Any] = {"total": len(runs), "engine": context.engine, "unit": "network"}
        with Sweep(folder, ("network", "seed"), desc=self.name, **settings) as sweep:
            rows = sweep(partial(_measured, self.prior, parts), runs)
        table = errors_table(rows)
        write_table(folder / "record" / f"{self.name}.csv", table)
        best = min((row for row in table if row["draws"] == "natural" and row["kind"] == "all"), key=_rms_of)
        print_table([best])
        return {"best": best}


def _rms_of(row: Row) -> float:
    return float(row["rms_error"])


def _measured(prior: str, raw: Tensor, run: tuple[str, int], progress: Progress) -> list[Row]:
    """Measures one network with one seed, on images as they are and on standardised ones."""
    name, seed = run
    standard = (raw - raw.mean((0, 2, 3), keepdim=True)) / raw.std((0, 2, 3), keepdim=True)
    found = [
        {"images": called, "draws": draws, **layer}
        for called, images in {"raw": raw, "standardised": standard}.items()
        for draws, orthogonal in DRAWS.items()
        for layer in layer_errors(network_of(name, seed), network_of(name, seed), images, prior, seed, orthogonal)
    ]
    progress(1, name)
    return [{"network": name, "seed": seed, "layers": found}]


@torch.no_grad()
def layer_errors(
    white: nn.Module, drawn: nn.Module, images: Tensor, prior: str, seed: int, orthogonal: bool
) -> list[Row]:
    """Initialises two copies of a network; returns kind and errors, one per model, of the layers that a prior fits."""
    initialize_(white, NOISE, seed)
    report = dwp_init.apply_(drawn, prior, seed=seed, orthogonal=orthogonal, scale="fan_in")
    growths = [log_growth(network, images) for network in (white, drawn)]
    pairs = zip(spatial_convolutions(white).values(), spatial_convolutions(drawn).items(), strict=True)
    rows: list[Row] = []
    for place, (other, (name, layer)) in enumerate(pairs):
        if name not in report.initialized:
            continue
        stem = place == 0 and layer.groups == 1
        over = growths[1][name] - growths[0][name]
        errors = (over - log_response(layer, model, stem) + log_response(other, model, stem) for model in MODELS)
        rows.append({"kind": "stem" if stem else kind_of(layer), "errors": [round(error, 4) for error in errors]})
    return rows


def network_of(name: str, seed: int) -> nn.Module:
    """Builds a network by name and numbers, in evaluation mode, its convolutions of He's variance without biases."""
    torch.manual_seed(seed)
    kind, *numbers = name.split()
    widths = tuple(map(int, numbers))
    network = _stack(kind, *widths) if kind in STACKS else build(kind, widths, 10, (3, 32, 32))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.eval()


def _stack(kind: str, kernel: int, width: int, depth: int) -> nn.Sequential:
    separable, activation = STACKS[kind]
    parts: list[nn.Module] = [nn.Conv2d(3, width, kernel, padding=kernel // 2), activation()]
    for _ in range(depth - 1):
        groups = width if separable else 1
        parts += [nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups), activation()]
        parts += [nn.Conv2d(width, width, 1), activation()] if separable else []
    return nn.Sequential(*parts)


def log_growth(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Returns for each spatial convolution the logarithm of its outputs' root mean square over that of its inputs."""
    found: dict[str, float] = {}

    def add(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[name] = 0.5 * math.log(output.square().mean().item() / inputs[0].square().mean().item())

    for name, layer in spatial_convolutions(network).items():
        layer.register_forward_hook(partial(add, name))
    network(images)
    return found


def log_response(layer: ConvLayer, model: Model, stem: bool) -> float:
    """Returns the logarithm of a layer's response, its root mean square times its gain, by a model."""
    kernels = layer.weight.detach().double().flatten(2)
    size = layer.kernel_size
    places = torch.cartesian_prod(*(torch.arange(k, dtype=torch.float64) for k in size))
    apart = (places[:, None] - places).abs()
    distance = apart.sum(2) if model.distance == "axes" else apart.square().sum(2).sqrt()
    correlation = model.rho**distance
    alike = 0.0 if kernels.shape[1] == 1 else model.stem if stem else model.alike
    each, joint = kernels.flatten(0, 1), kernels.sum(1)
    moments = (1 - alike) * each.mT @ each + alike * joint.mT @ joint
    return 0.5 * math.log((moments * correlation).sum().item() / kernels.numel())


def errors_table(rows: Sequence[Row]) -> list[Row]:
    """Makes a row per model, way of drawing and kind of layer.

    ``rms_error`` and ``bias`` are the root mean square and the mean of the layers' errors; ``network_error`` is the
    root mean square of their sums over a network.
    """
    layers = [{**layer, "network": row["network"], "seed": row["seed"]} for row in rows for layer in row["layers"]]
    table: list[Row] = []
    for draws, (number, model), kind in product(DRAWS, enumerate(MODELS), ("all", "dense", "depthwise", "stem")):
        sums: dict[tuple[Any, ...], float] = {}
        errors: list[float] = []
        for layer in layers:
            if layer["draws"] == draws and kind in ("all", layer["kind"]):
                key = (layer["network"], layer["seed"], layer["images"])
                errors.append(layer["errors"][number])
                sums[key] = sums.get(key, 0.0) + errors[-1]
        if errors:
            found = torch.tensor(errors)
            table.append(
                {
                    **model._asdict(),
                    "draws": draws,
                    "kind": kind,
                    "rms_error": round(found.square().mean().sqrt().item(), 4),
                    "bias": round(found.mean().item(), 4),
                    "network_error": round(torch.tensor(list(sums.values())).square().mean().sqrt().item(), 3),
                    "layers": len(errors),
                }
            )
    return table
