"""Layers of a model: which are convolutions, how their weight is made of kernels, and why some are not initialised.

To support another class of modules, add it to ``LAYER_CLASSES`` with a subclass of ``Layer`` that describes its weight.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from dwp_init.report import layer_text, size_text
from dwp_init.response import correlation
from dwp_init.weights import Place, Weight, place_of, weight_of

Kind = Literal["stem", "dense", "depthwise"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_OTHER_RANKS = (nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a model as ``apply_`` sees it, here with a weight of shape ``(out, in/groups, k, k)``.

    It is made once for each layer. If there is a ``reason``, the shape is empty unless the shape is the reason.

    Attributes:
        name: Name in the model; empty if the model is the layer itself.
        module: The module.
        weight: Its weight.
        shape: Shape of the weight; it may differ from what the module's attributes say, if the weight was replaced.
        kernel_size: Kernel size according to the module's attributes; empty unless the module is a convolution.
        depth: Position among the model's convolutions with kernels larger than 1×1: 0 is the first, 1 the last; also
            0 for all other layers.
        first: Whether it is the first of those.
        place: Memory of the weight; empty if there is a reason not to read it.
        asked: Whether the caller wants the layer drawn, if possible.
        reason: Why no prior can initialise the layer; ``None`` if one can.
    """

    name: str
    module: nn.Module
    weight: Weight
    shape: torch.Size = field(default_factory=torch.Size)
    kernel_size: tuple[int, ...] = ()
    depth: float = 0.0
    first: bool = False
    place: Place = ()
    asked: bool = True
    reason: str | None = None

    @property
    def label(self) -> str:
        """The layer's name in messages."""
        return layer_text(self.name)

    @property
    def description(self) -> str:
        """The module's class and the shape of its weight."""
        return f"{type(self.module).__name__} {size_text(self.shape)}"

    @property
    def is_convolution(self) -> bool:
        """Whether the module is a convolution of any rank."""
        return bool(self.kernel_size)

    @property
    def is_spatial(self) -> bool:
        """Whether the module is a convolution with kernels larger than 1×1."""
        return math.prod(self.kernel_size) > 1

    @property
    def size(self) -> torch.Size:
        """Size ``(k, k)`` of the kernels."""
        return self.shape[2:]

    @property
    def groups(self) -> int:
        """Number of groups of channels."""
        return cast(int, self.module.groups)

    @property
    def inputs(self) -> int:
        """Input channels of a group: the number of kernels that make up one output channel."""
        return self.shape[1]

    @property
    def is_depthwise(self) -> bool:
        """Whether each of several input channels is a group of its own."""
        return self.groups > 1 and self.inputs == 1

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of priors that the layer can take, the preferred one first."""
        if self.is_depthwise:
            return ("depthwise",)
        return ("stem", "dense") if self.first and self.groups == 1 else ("dense",)

    @property
    def fan_in(self) -> float:
        """Number of weights that reach one output value: ``in/groups · k · k``."""
        return self.inputs * math.prod(self.size)

    @property
    def he_rms(self) -> float:
        """Root mean square of the weight according to He et al. (2015), for a layer before a ReLU: √(2 / fan_in)."""
        return math.sqrt(2 / self.fan_in)

    @property
    def correlations(self) -> tuple[Tensor, ...]:
        """The correlations between the inputs of a kernel's taps, see :func:`dwp_init.response.correlation`."""
        return correlation(self.size, self._per_axis("dilation"))

    def _per_axis(self, name: str) -> tuple[int, ...]:
        """Returns an attribute of the module as one number for each axis, 1 where there is no such attribute."""
        found = cast(int | tuple[int, ...], getattr(self.module, name, 1))
        return (found,) * len(self.size) if isinstance(found, int) else tuple(found)

    def arrange(self, kernels: Tensor) -> Tensor:
        """Arranges kernels ``(n, c, k, k)``, each from c input channels to one output channel, as the weight."""
        return kernels.reshape(self.shape)


class TransposedLayer(Layer):
    """A transposed convolution, with a weight of shape ``(in, out/groups, k, k)``."""

    @property
    def inputs(self) -> int:
        return self.shape[0] // self.groups

    @property
    def fan_in(self) -> float:
        """Average number of weights that reach one output value: ``in/groups · k · k`` over the product of strides."""
        return super().fan_in / math.prod(cast(tuple[int, ...], self.module.stride))

    @property
    def correlations(self) -> tuple[Tensor, ...]:
        return correlation(self.size, self._per_axis("dilation"), self._per_axis("stride"))

    def arrange(self, kernels: Tensor) -> Tensor:
        by_group = kernels.reshape(self.groups, self.shape[1], self.inputs, *self.size)
        return by_group.transpose(1, 2).reshape(self.shape)


LAYER_CLASSES: dict[type[nn.Module], type[Layer]] = {nn.Conv2d: Layer, nn.ConvTranspose2d: TransposedLayer}


def find_layers(model: nn.Module, asked: Callable[[str, nn.Module], bool]) -> list[Layer]:
    """Returns all layers of a model with weights of their own, in the order of its modules.

    Args:
        model: The model.
        asked: Predicate of name and module: whether a convolution should be drawn. The weights of other convolutions
            are not read.
    """
    modules = list(_modules_with_weights(model))
    spatial = [name for name, module in modules if math.prod(_kernel_size(module)) > 1]
    positions = {name: index for index, name in enumerate(spatial)}
    return [
        layer_of(
            module,
            name,
            depth=positions.get(name, 0) / max(len(spatial) - 1, 1),
            first=positions.get(name) == 0,
            asked=not is_convolution(module) or asked(name, module),
        )
        for name, module in modules
    ]


def layer_of(
    module: nn.Module, name: str = "", *, depth: float = 0.0, first: bool = False, asked: bool = True
) -> Layer:
    """Describes one layer; see :class:`Layer` for the arguments."""
    kind = next((kind for modules, kind in LAYER_CLASSES.items() if isinstance(module, modules)), Layer)
    weight, kernel_size = weight_of(module), _kernel_size(module)
    reason = _reason_against_class(module) or weight.reason_to_skip()
    place = () if reason else place_of(weight)
    shape = weight.read().shape if asked and reason is None else torch.Size()
    if not asked:
        reason = "not among the layers asked for"
    elif reason is None and (len(shape) != 2 + len(kernel_size) or 0 in shape):
        dimensions = 2 + len(kernel_size)
        reason = f"its weight has shape {tuple(shape)}: it must have {dimensions} dimensions, none of them empty"
    return kind(name, module, weight, shape, kernel_size, depth, first, place, asked, reason)


def convolution_names(model: nn.Module) -> list[str]:
    """Returns the names of all convolutions of a model, in the order of its modules."""
    return [name for name, module in _named_modules(model) if is_convolution(module)]


def is_convolution(module: nn.Module) -> bool:
    """Whether the module is a convolution of any rank, quantized ones included."""
    return isinstance(module, (*LAYER_CLASSES, *_OTHER_RANKS)) or _is_quantized(module)


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


def _modules_with_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields all convolutions, and all other modules with parameters that are not inside a parametrization."""
    for name, module in _named_modules(model):
        inside = "parametrizations" in name.split(".")
        own = next(module.parameters(recurse=False), None) is not None or hasattr(module, "parametrizations")
        if is_convolution(module) or (own and not inside):
            yield name, module


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return cast(Iterator[tuple[str, nn.Module]], model.named_modules())  # torch does not annotate it


def _kernel_size(module: nn.Module) -> tuple[int, ...]:
    return cast(tuple[int, ...], module.kernel_size) if is_convolution(module) else ()


def _reason_against_class(module: nn.Module) -> str | None:
    """Says why no module of this class can be initialised; ``None`` if one can."""
    if _is_quantized(module):
        return "quantized: initialise the model before quantizing it"
    if isinstance(module, tuple(LAYER_CLASSES)):
        return None
    kind = type(module).__name__
    return f"{kind}: priors are over 2-D kernels" if isinstance(module, _OTHER_RANKS) else "not a convolution"


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.startswith("torch.") and ".quantized." in kind.__module__ and "Conv" in kind.__name__
