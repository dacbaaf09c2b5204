"""Does ``apply_`` keep the activations of public models at the scale of their authors' initialisation?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import dwp_init
from dwp_init.convolutions import he_rms, is_convolution
from dwp_init.weights import weight_of
from training.engine.options import check_counts
from training.engine.records import Row, print_table, write_table
from training.engine.stage import Context, Stage
from training.engine.sweep import Sweep
from training.engine.workers import Progress
from training.experiments.coverage import ONLY_BY_NAME, coverage_table, layers_left
from training.figures.style import add_legend, save_figure
from training.networks.public import PublicModel, build_public, pink_images
from training.starts.base import KAIMING, legend
from training.starts.natural import NATURAL_FAN_IN, NATURAL_KEEP
from training.starts.priors import DWP_ORTHOGONAL, bundled_digests

RULES = {"kaiming": KAIMING, "he_rms": DWP_ORTHOGONAL, "auto": "apply_'s default"}
RULES |= {"keep": NATURAL_KEEP, "fan_in": NATURAL_FAN_IN}
NOTHING = "no layer can be initialised"  # of a message of apply_
TITLES = {"output": "RMS of the output", "greatest": "greatest RMS after a convolution"}
WITHIN = 3.0  # factor of the scale of the model's own initialisation


@dataclass(frozen=True)
class PublicModels(Stage):
    """Measures activations on 1/f noise in evaluation mode, normalisation at its first statistics, for several starts.

    The starts are the authors', and others of the spatial convolutions that the set of priors fits, while all other
    parameters are the same: what ``apply_`` does with ``scale="auto"``, where the set may leave layers, and with
    ``"keep"`` and ``"fan_in"``; the set at He's root mean square (zeros and other weights that authors set up
    overwritten too); and normal white noise of exactly He's root mean square, which tables call Kaiming after its law.
    Records ``<name>.csv``, a row per model with the root mean square of its outputs and the greatest of its
    convolutions, over those of the authors' start; ``<name>_summary.csv``; ``<name>_coverage.csv``, the spatial
    convolutions that are drawn, and those that are not by kind, size and reason; and ``<name>.png``.

    Args:
        name: Base name of the recorded files.
        models: Names for :func:`training.networks.public.build_public`.
        prior: A bundled set of priors.
        size: Size of the images, where a model has none of its own.
        images: Number of images.
        seed: Seed of weights, draws and images.
    """

    name: str = "public_models"
    models: tuple[str, ...] = ()
    prior: str = "natural"
    size: int = 96
    images: int = 2
    seed: int = 0

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(self.prior)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(size=self.size, images=self.images, models=len(self.models))
        settings: dict[str, Any] = {"total": len(self.models), "engine": context.engine, "unit": "model"}
        with Sweep(folder, ("model",), desc=self.name, members=lambda model: ((model,),), **settings) as sweep:
            rows = sweep(self.measure, self.models)
        summary = summary_table(rows)
        record = folder / "record"
        write_table(record / f"{self.name}.csv", rows)
        write_table(record / f"{self.name}_summary.csv", summary)
        write_table(record / f"{self.name}_coverage.csv", coverage := coverage_table(rows))
        plot_ratios(rows, record / f"{self.name}.png")
        print_table(summary)
        print_table(coverage)
        return {"summary": summary}

    @torch.no_grad()
    def measure(self, name: str, progress: Progress) -> list[Row]:
        """Returns the row of one model."""
        try:
            public = build_public(name, self.seed, self.size)
            images = pink_images(self.images, public.size, self.seed)
            row = {
                "model": name,
                "left": layers_left(public.network, self.prior),
                **_measured(public, images, self.prior, self.seed),
            }
        except Exception as error:
            raise RuntimeError(f"{name}: {error}") from error
        progress(1, name)
        return [row]


class Activations(NamedTuple):
    """Root mean square of the outputs of a network, and the greatest one of the outputs of its convolutions."""

    output: float
    greatest: float


def scale_of(public: PublicModel, images: Tensor) -> Activations:
    """Measures a model on images; infinite where a value is not finite."""
    found: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: found.append(_rms(output)))
        for module in public.network.modules()
        if is_convolution(module)
    ]
    outputs = list(_tensors(public.run(images)))
    for hook in hooks:
        hook.remove()
    total = math.sqrt(sum(_rms(each) ** 2 * each.numel() for each in outputs) / sum(map(Tensor.numel, outputs)))
    return Activations(total, max(found))


def _measured(public: PublicModel, images: Tensor, prior: str, seed: int) -> Row:
    """Writes one start over the other; each layer of those after the first two is a draw at another scale."""
    network = public.network
    found = {"own": scale_of(public, images)}
    own = {name: value.clone() for name, value in network.state_dict().items()}
    default = _apply(network, prior, seed)
    found["auto"] = scale_of(public, images)
    for name, value in network.state_dict().items():
        value.copy_(own[name])
    report = _apply(network, prior, seed, scale="keep")
    found["keep"] = scale_of(public, images)
    layers = {row.layer: network.get_submodule(row.layer) for row in report.drawn} if report else {}
    for row in report.drawn if report else ():
        rescale_(layers[row.layer], he_rms(layers[row.layer]) / (row.gain_after or 1.0))
    found["fan_in"] = scale_of(public, images)
    left = [name for name, reason in report.skipped.items() if ONLY_BY_NAME in reason] if report else []
    again = _apply(network, prior, seed, layers=left) if left else None
    layers |= {row.layer: network.get_submodule(row.layer) for row in again.drawn} if again else {}
    for layer in layers.values():
        rescale_(layer, he_rms(layer))
    found["he_rms"] = scale_of(public, images)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        write_(layer, torch.randn(weight_of(layer).read().shape, generator=generator))
        rescale_(layer, he_rms(layer))
    found["kaiming"] = scale_of(public, images)
    return _row(default, report, public, found)


def _apply(network: nn.Module, prior: str, seed: int, **options: Any) -> dwp_init.Report | None:
    """Returns the report of ``apply_``; ``None`` where there is nothing that it could draw."""
    try:
        return dwp_init.apply_(network, prior, seed=seed, **options)
    except ValueError as error:
        if NOTHING in str(error):
            return None
        raise


def _row(
    default: dwp_init.Report | None,
    whole: dwp_init.Report | None,
    public: PublicModel,
    found: Mapping[str, Activations],
) -> Row:
    coverage, spatial = default.coverage if default else None, whole.coverage.all_layers if whole else ""
    own = found["own"]
    row: Row = {
        "size": public.size,
        "weights_m": round(sum(each.numel() for each in public.network.parameters()) / 1e6, 2),
        "drawn": coverage.layers if coverage else 0,
        "spatial": spatial,
        "weight_share": round(coverage.weight_share, 3) if coverage else 0.0,
        "own_output": shortened(own.output),
        "own_greatest": shortened(own.greatest),
    }
    for rule in RULES:
        row[f"{rule}_output"] = shortened(ratio(found[rule].output, own.output))
        row[f"{rule}_greatest"] = shortened(ratio(found[rule].greatest, own.greatest))
    return row


def rescale_(layer: nn.Module, rms: float) -> None:
    """Gives the weight of a layer this root mean square."""
    weight = weight_of(layer).read()
    write_(layer, weight * (rms / weight.square().mean().sqrt()))


def write_(layer: nn.Module, value: Tensor) -> None:
    """Gives a layer this weight."""
    weight = weight_of(layer)
    for tensor, stored in zip(weight.stored, weight.values_for(value), strict=True):
        tensor.copy_(stored)
    weight.refresh()


def ratio(found: float, own: float) -> float:
    """Returns a scale over that of the authors' start, 1 if both are 0."""
    if own == 0:
        return 1.0 if found == 0 else math.inf
    return found / own


def shortened(value: float) -> float:
    """Rounds a value to four digits."""
    return float(f"{value:.4g}")


def summary_table(rows: Sequence[Row]) -> list[Row]:
    """Counts for each start the models, of those with a drawn layer, within ``WITHIN`` of their authors' scale."""
    drawn = [row for row in rows if row["drawn"]]
    table: list[Row] = []
    for rule, start in RULES.items():
        pairs = [(row[f"{rule}_output"], row[f"{rule}_greatest"]) for row in drawn]
        within = [all(1 / WITHIN <= value <= WITHIN for value in pair) for pair in pairs]
        finite = [math.isfinite(value) for pair in pairs for value in pair]
        apart = sorted(max(math.inf if not value else abs(math.log(value)) for value in pair) for pair in pairs)
        table.append(
            {
                "start": start,
                "models": len(rows),
                "with_a_drawn_layer": len(drawn),
                "within_a_factor_of_3": sum(within),
                "share": round(sum(within) / max(len(drawn), 1), 4),
                "not_finite": len(finite) - sum(finite),
                "median_factor": shortened(math.exp(apart[len(apart) // 2])) if drawn else "",
                "greatest_factor": shortened(_factor(apart[-1])) if drawn else "",
            }
        )
    return table


def _factor(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 700 else math.inf


def plot_ratios(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the outputs of each model and its greatest activation over those of its own start, a panel each.

    Args:
        rows: Rows of :class:`PublicModels`.
        path: Path of the PNG.
    """
    figure = Figure(figsize=(9, 4.2))
    panels = figure.subplots(1, 2, sharey=True)
    drawn = [row for row in rows if row["drawn"]]
    for axes, measure in zip(panels, ("output", "greatest"), strict=True):
        for rule, start in RULES.items():
            values = sorted(min(max(row[f"{rule}_{measure}"], 1e-6), 1e12) for row in drawn)
            axes.plot(range(1, len(values) + 1), values, color=legend(start)[1], label=legend(start)[0], linewidth=1.4)
        axes.axhspan(1 / WITHIN, WITHIN, color="#bdc3c7", alpha=0.4)
        axes.set(yscale="log", xlabel="models, sorted by each start", title=TITLES[measure])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("over the authors' start")
    add_legend(panels[0], fontsize=7)
    save_figure(figure, path)


def _rms(values: Tensor) -> float:
    found = values.double().square().mean().sqrt().item()
    return found if math.isfinite(found) else math.inf


def _tensors(found: Any) -> Iterator[Tensor]:
    """Yields the floating-point tensors inside lists and dictionaries."""
    if isinstance(found, Tensor):
        if found.is_floating_point() and found.numel():
            yield found
    else:
        for each in found.values() if isinstance(found, Mapping) else found:
            yield from _tensors(each)
