"""The convolutions of a model: how they are found and in which order, and why some are not initialised.

To support another class of modules, add it to ``LAYER_CLASSES`` with a subclass of ``Layer`` that describes its weight.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from dwp_init.layers import STEM_CHANNELS, ExpertsLayer, Layer, TransposedLayer
from dwp_init.modules import Geometry, Layout, counts, geometry_of, has_parameters
from dwp_init.names import Named, modules_by_path, named_modules
from dwp_init.places import place_of, place_of_parameters
from dwp_init.weights import weight_of

LAYER_CLASSES: dict[type[nn.Module], type[Layer]] = {
    nn.Conv1d: Layer,
    nn.Conv2d: Layer,
    nn.Conv3d: Layer,
    nn.ConvTranspose1d: TransposedLayer,
    nn.ConvTranspose2d: TransposedLayer,
    nn.ConvTranspose3d: TransposedLayer,
}
_NO_CONVOLUTION = "not a convolution"
_LAYOUTS: dict[Layout, type[Layer]] = {"plain": Layer, "transposed": TransposedLayer, "experts": ExpertsLayer}


def find_layers(model: nn.Module, asked: Callable[[Named], bool]) -> list[Layer]:
    """Returns all layers of a model with weights of their own, in the order of its modules.

    The depth of a layer is its position in that order, from the stem on: the first convolution with kernels larger than
    1×1, one group, and at most 4 input channels that are fewer than its outputs. Layers registered before it, such as a
    head, come last. If there is no stem, the depth is the position in the order of modules. Other layers of that kind
    with as many input channels read images too, as in a second encoder, unless they are behind another convolution in
    an ``nn.Sequential``, or behind one that returns as many channels, as in the decoder of latents. Their depth is 0.

    Args:
        model: The model.
        asked: Predicate of names and module: whether a convolution should be drawn. The weights of other convolutions
            are not read.
    """
    modules = list(_modules_with_weights(model))
    spatial = [named for named, geometry in modules if geometry and math.prod(geometry.kernel_size) > 1]
    start = next((place for place, named in enumerate(spatial) if _may_be_stem(named.module)), 0)
    depths = {named: place for place, named in enumerate(spatial[start:] + spatial[:start])}
    depths |= dict.fromkeys(_further_stems(model, spatial[start:], [named for named, each in modules if each]), 0)
    return [
        _layer_of(
            named.module,
            named.name,
            named.path,
            depth=depths.get(named, 0) / max(len(spatial) - 1, 1),
            first=depths.get(named) == 0,
            asked=geometry is None or asked(named),
            geometry=geometry,
        )
        for named, geometry in modules
    ]


def layer_of(
    module: nn.Module, name: str = "", path: str = "", *, depth: float = 0.0, first: bool = False, asked: bool = True
) -> Layer:
    """Describes one layer; see :class:`Layer` for the arguments."""
    return _layer_of(module, name, path, depth, first, asked, _geometry(module))


def _layer_of(
    module: nn.Module, name: str, path: str, depth: float, first: bool, asked: bool, geometry: Geometry | None
) -> Layer:
    kind, geometry = _kind(module, geometry), geometry or Geometry((), reason=_NO_CONVOLUTION)
    weight = weight_of(module)
    reason = geometry.reason or weight.reason_to_skip()
    place = () if reason else place_of(weight)
    if reason == _NO_CONVOLUTION:
        place = place_of_parameters(module)
    shape = torch.Size()
    if asked and reason is None:
        try:
            shape = weight.shape
        except (MemoryError, torch.OutOfMemoryError):  # no word on whether it can be computed
            raise
        except (NotImplementedError, RuntimeError, TypeError) as error:  # those of torch, as in half precision
            reason = (
                f"its weight cannot be computed ({type(error).__name__}: {error}), in a forward pass neither: mend its "
                "parametrizations, or call apply_ before registering them"
            )
    if not asked:
        reason = "not among the layers asked for"
    layer = kind(name, module, weight, shape, geometry.kernel_size, depth, first, place, asked, reason, path)
    return layer if reason else replace(layer, reason=layer.reason_against_shape())


def named_convolutions(model: nn.Module) -> list[Named]:
    """Returns all convolutions of a model with their names, in the order of its modules."""
    return [named for named in named_modules(model) if is_convolution(named.module)]


def is_convolution(module: nn.Module) -> bool:
    """Whether the module is a convolution of any rank and class, even if it cannot be initialised."""
    return _geometry(module) is not None


def he_rms(module: nn.Module) -> float:
    """Returns :attr:`Layer.he_rms` of a convolution; raises ``ValueError`` if there is a reason to skip it."""
    return _convolution(module).he_rms


def is_depthwise(module: nn.Module) -> bool:
    """Returns :attr:`Layer.is_depthwise` of a convolution; raises ``ValueError`` if there is a reason to skip it."""
    return _convolution(module).is_depthwise


def _convolution(module: nn.Module) -> Layer:
    layer = layer_of(module)
    if layer.reason is not None:
        raise ValueError(f"{type(module).__name__} cannot be initialised: {layer.reason}")
    return layer


def _modules_with_weights(model: nn.Module) -> Iterator[tuple[Named, Geometry | None]]:
    """Yields all convolutions, and all other modules with parameters that are not inside a parametrization."""
    for named in named_modules(model):
        geometry = _geometry(named.module)
        inside = "parametrizations" in named.name.split(".")
        if geometry or (has_parameters(named.module) and not inside):
            yield named, geometry


def _geometry(module: nn.Module) -> Geometry | None:
    """Says how a module convolves; ``None`` if it is not a convolution."""
    quantized = "quantized: initialise the model before quantizing it" if _is_quantized(module) else None
    if quantized or isinstance(module, tuple(LAYER_CLASSES)):
        return Geometry(cast(tuple[int, ...], module.kernel_size), reason=quantized)
    return geometry_of(module)


def _kind(module: nn.Module, geometry: Geometry | None) -> type[Layer]:
    """Returns the class that describes the layer."""
    known = next((kind for modules, kind in LAYER_CLASSES.items() if isinstance(module, modules)), None)
    return known or _LAYOUTS[geometry.layout if geometry else "plain"]


def _may_be_stem(module: nn.Module) -> bool:
    """Whether the module may be the layer that reads the images."""
    inputs, outputs, groups = counts(module, "in_channels", "out_channels", "groups") or (0, 0, 0)
    return groups == 1 and inputs <= STEM_CHANNELS and inputs < outputs


def _further_stems(model: nn.Module, spatial: list[Named], convolutions: list[Named]) -> list[Named]:
    """Returns the layers that read images as the stem does; none if there is no stem.

    A layer behind a convolution that returns as many channels, or twice as many, may read what that made of an image,
    such as latents.

    Args:
        model: The model.
        spatial: Convolutions with kernels larger than 1×1, from the stem on.
        convolutions: All convolutions, in the order of modules.
    """
    if not spatial or not _may_be_stem(spatial[0].module):
        return []
    leaders: dict[str, str] = {}  # the first convolution in each nn.Sequential
    modules = modules_by_path(model)
    for named in convolutions:
        for outer in _sequences_around(modules, named.path):
            leaders.setdefault(outer, named.path)
    inputs = counts(spatial[0].module, "in_channels")
    moments = tuple(2 * count for count in inputs)  # means and variances of latents
    made = [
        place
        for place, each in enumerate(convolutions)
        if (found := counts(each.module, "out_channels")) == inputs
        or (found == moments and counts(each.module, "in_channels") != inputs)
    ]
    before = set(convolutions[: made[0] + 1] if made else convolutions)
    return [
        named
        for named in spatial[1:]
        if named in before
        and _may_be_stem(named.module)
        and counts(named.module, "in_channels") == inputs
        and all(leaders[outer] == named.path for outer in _sequences_around(modules, named.path))
    ]


def _sequences_around(modules: Mapping[str, nn.Module], path: str) -> list[str]:
    """Returns the paths of the modules around another that are an ``nn.Sequential``."""
    parts = path.split(".")
    outer = [".".join(parts[:depth]) for depth in range(len(parts))] if path else []
    return [each for each in outer if isinstance(modules[each], nn.Sequential)]


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.startswith("torch.") and ".quantized." in kind.__module__ and "Conv" in kind.__name__
