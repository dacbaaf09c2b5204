"""What a prior does to a network: the report, kernels before and after, and the response of each layer."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from threading import Lock
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import dwp_init
from dwp_init.initialize import Scale
from dwp_init.picture import ACROSS, colors_of, kernel_sheet, planes_of, png_bytes
from dwp_init.report import Drawn, Report
from dwp_init.user_model import load_model
from training.figures.svg import ACCENT, FAINTER, bare, svg_of, web_ink

MOST_PARAMETERS, MOST_TOGETHER = 100_000_000, 200_000_000  # of a network, and of all networks of a race
KERNELS_SHOWN = 4 * ACROSS  # kernels of a picture
_SIDE = 36  # pixels of the side of a kernel, about
_BUILDING = Lock()  # held from the seed to the last weight, because the random numbers are those of the whole process


@dataclass(frozen=True)
class Look:
    """What a prior did to a network.

    Args:
        report: What was drawn.
        kernels: For each drawn layer, some of its kernels before and after, both ``(n, c, *size)``.
    """

    report: Report
    kernels: dict[str, tuple[Tensor, Tensor]]


def timm_model(name: str, seed: int = 0, networks: int = 1, **options: Any) -> nn.Module:
    """Builds an untrained network of timm, if it is not too large.

    Args:
        name: Its name, without arguments.
        seed: Of its weights, which are the same whatever other threads build.
        networks: How many of its kind are trained together.
        options: What ``timm.create_model`` takes.

    Raises:
        ValueError: There is none of this name, it or all of them together are too large, or timm cannot build it so.
    """
    name = name.strip().removeprefix("timm:")
    if not name.isidentifier():
        raise ValueError(f"the architecture must be a name of timm, such as resnet18; got {name!r}")
    spec = f"timm:{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"
    with torch.device("meta"):  # without memory
        _check_size(name, sum(parameter.numel() for parameter in load_model(spec).parameters()), networks)
    with _BUILDING:
        torch.manual_seed(seed)
        return load_model(spec)


def _check_size(name: str, count: int, networks: int) -> None:
    """Raises ``ValueError`` if a network has too many parameters, or all networks of a race have."""
    if count > MOST_PARAMETERS:
        raise ValueError(
            f"{name} has {count / 1e6:,.0f} million parameters; this demonstration takes up to "
            f"{MOST_PARAMETERS / 1e6:,.0f} million: choose a smaller one, such as resnet18"
        )
    if networks * count > MOST_TOGETHER:
        raise ValueError(
            f"{networks} networks of {name} have {networks * count / 1e6:,.0f} million parameters together; a race "
            f"takes up to {MOST_TOGETHER / 1e6:,.0f} million: choose fewer seeds or a smaller network, such as resnet18"
        )


def look_at(architecture: str, prior: str, scale: Scale = "auto", seed: int = 0) -> Look:
    """Builds a network and initialises it from a prior.

    Args:
        architecture: A name of timm.
        prior: A bundled prior or a set.
        scale: As for :func:`dwp_init.apply_`.
        seed: Of the network's own start and of the draw.

    Raises:
        ValueError: What :func:`timm_model` and :func:`dwp_init.apply_` raise; a prior that reaches no layer.
    """
    model = timm_model(architecture, seed)
    convolutions = {name: each for name, each in model.named_modules() if isinstance(each, nn.Conv2d)}
    before = {name: _some(each.weight) for name, each in convolutions.items()}
    report = dwp_init.apply_(model, prior, scale=scale, seed=seed)
    layers = [name for name in report.initialized if name in before]
    after = {name: _some(convolutions[name].weight) for name in layers}
    return Look(report, {name: (before[name], after[name]) for name in layers})


def kernels_html(look: Look | None, layer: str) -> str:
    """Shows kernels of a layer before and after, each at its own scale; empty if the look has none of it."""
    if look is None or layer not in look.kernels:
        return ""
    before, after = look.kernels[layer]
    captions = {"the model's own start": before, "drawn from the prior": after}
    return "".join(
        f"<figure><figcaption>{caption}</figcaption>{_picture(kernels, f'kernels of {layer}: {caption}')}</figure>"
        for caption, kernels in captions.items()
    )


def response_svg(drawn: Sequence[Drawn]) -> str:
    """Draws the response of each drawn layer, rms · gain, before and after; layers without a known one are left out."""
    found = [(_product(row.rms_before, row.gain_before), _product(row.rms_after, row.gain_after)) for row in drawn]
    pairs = [(before, after) for before, after in found if before and after]
    places = range(1, len(pairs) + 1)
    with web_ink():
        figure = Figure(figsize=(6, 2.4))
        axes = figure.subplots()
        axes.plot(places, [before for before, _ in pairs], "o", color=FAINTER, markersize=8, label="own start")
        axes.plot(places, [after for _, after in pairs], "o", color=ACCENT, markersize=4, label="prior")
        axes.set_yscale("log")
        axes.set_xlabel("drawn layers, from the first to the last")
        axes.set_ylabel("response, rms · gain")
        axes.legend(frameon=False)
        bare(axes)
        return svg_of(figure, "Response of each drawn layer, before and after")


def _product(rms: float | None, gain: float | None) -> float | None:
    return None if rms is None or gain is None else rms * gain


def _some(weight: Tensor) -> Tensor:
    """Copies some kernels of a weight: filters of colour images whole, of other layers one input channel at a time."""
    kernels = weight if weight.shape[1] == 3 else weight.flatten(0, 1).unsqueeze(1)
    return kernels[:KERNELS_SHOWN].detach().clone()


def _picture(kernels: Tensor, text: str) -> str:
    size = max(planes_of(kernels)[0].shape[1:])
    pixels = kernel_sheet(kernels, ACROSS, max(_SIDE // size, 1), colors=colors_of(kernels))
    data, (height, width, _) = base64.b64encode(png_bytes(pixels)).decode(), pixels.shape
    return f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(text)}">'
