"""Layers: how the weight of a convolution is made of kernels, and what its scale is."""

import math
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from dwp_init.modules import counts, per_axis, weight_count
from dwp_init.names import matches
from dwp_init.places import Place
from dwp_init.report import layer_text, shape_text
from dwp_init.response import ALIKE, ALIKE_IN_IMAGES, RHO, RHO_DEPTHWISE, Strength, correlation, strength
from dwp_init.weights import Weight

Kind = Literal["stem", "dense", "depthwise"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STEM_CHANNELS = 4
"""Largest number of input channels of a stem: grey, colour, colour with a fourth channel, latents of an autoencoder."""
_ROUNDED = 1e-5  # relative error with which a response is measured


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a model as ``apply_`` sees it, here with a weight of shape ``(out, in/groups, *size)``.

    It is made once for each layer. If there is a ``reason``, the shape is empty unless the shape is the reason.

    Attributes:
        name: Name in the model, without what wrappers add; empty if the model is the layer itself.
        module: The module.
        weight: Its weight.
        shape: Shape of the weight; it may differ from what the module's attributes say, if the weight was replaced.
        kernel_size: Kernel size according to the module's attributes; empty unless the module is a convolution.
        depth: Position among the model's convolutions with kernels larger than 1×1: 0 is the first, see
            :func:`dwp_init.convolutions.find_layers`, 1 the last; also 0 for all other layers.
        first: Whether it is the first of those, or reads images too.
        place: Memory of the weight; empty if there is a reason not to read it.
        asked: Whether the caller wants the layer drawn, if possible.
        reason: Why no prior can initialise the layer; ``None`` if one can.
        path: Name in the model, with what wrappers add.
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
    path: str = ""

    def matches(self, pattern: str) -> bool:
        """Whether one of the layer's names matches a pattern."""
        return matches(pattern, self.name, self.path or self.name)

    @property
    def label(self) -> str:
        """The layer's name in messages."""
        return layer_text(self.name)

    @property
    def description(self) -> str:
        """The module's class and the shape of its weight."""
        return f"{type(self.module).__name__} {shape_text(self.shape)}"

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
        """Size of the kernels, such as ``(k, k)``."""
        return self.shape[2:]

    @property
    def weights(self) -> int:
        """Number of weights; 0 if it is not known."""
        return self.shape.numel() if self.shape else weight_count(self.module)

    @property
    def groups(self) -> int:
        """Number of groups of channels."""
        return next(iter(counts(self.module, "groups")), 1)

    @property
    def blocks(self) -> int:
        """Number of parts whose output channels are made orthogonal apart: one for each group, here."""
        return self.groups

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
        """Number of weights that reach one output value: ``in/groups · k · k`` in 2-D."""
        return self.inputs * math.prod(self.size)

    @property
    def torch_fan_in(self) -> int:
        """The fan-in as ``torch.nn.init`` counts it, also in a transposed layer: by all dimensions but the first."""
        return self.shape[1:].numel()

    @property
    def he_rms(self) -> float:
        """Root mean square of the weight according to He et al. (2015), for a layer before a ReLU: √(2 / fan_in)."""
        return math.sqrt(2 / self.fan_in)

    def is_at_he(self, response: float) -> bool:
        """Whether a response is that of He et al., but for the rounding of the weight and of what measures it."""
        rounding = 4 * torch.finfo(self.weight.dtype).eps / math.sqrt(self.shape.numel())
        return abs(response / self.he_rms - 1) < max(_ROUNDED, rounding)

    @property
    def dilation(self) -> tuple[int, ...]:
        """Distance of neighbouring taps along each axis of the kernels."""
        return per_axis(self.module, "dilation", len(self.size))

    @property
    def correlations(self) -> tuple[Tensor, ...]:
        """The correlations between the inputs of a kernel's taps, see :func:`dwp_init.response.correlation`."""
        return correlation(self.size, self.dilation, rho=self.rho)

    @property
    def rho(self) -> float:
        """The assumed correlation of neighbouring values along each axis of the layer's input."""
        return RHO_DEPTHWISE if self.is_depthwise else RHO

    @property
    def alike(self) -> float:
        """The assumed correlation between the layer's input channels."""
        return ALIKE_IN_IMAGES if self.first and self.groups == 1 and self.inputs <= STEM_CHANNELS else ALIKE

    def measure(self, weight: Tensor) -> Strength:
        """Returns the strength of a weight for this layer."""
        return strength(self.filters(weight), self.correlations, self.alike)

    def filters(self, weight: Tensor) -> Tensor:
        """Arranges the weight as filters, ``(outputs, inputs, *size)``."""
        return weight.reshape(-1, self.inputs, *self.size)

    def reason_against_shape(self) -> str | None:
        """Says why the weight's shape is not that of a convolution; ``None`` if it is."""
        dimensions, shape = 2 + len(self.kernel_size), tuple(self.shape)
        if len(shape) != dimensions or 0 in shape:
            return f"its weight has shape {shape}: it must have {dimensions} dimensions, none of them empty"
        return f"its weight has shape {shape}, but {self.groups} groups" if shape[0] % self.groups else None

    def arrange(self, kernels: Tensor) -> Tensor:
        """Arranges kernels ``(n, c, *size)``, each from c input channels to one output channel, as the weight."""
        return kernels.reshape(self.shape)


class TransposedLayer(Layer):
    """A transposed convolution, with a weight of shape ``(in, out/groups, *size)``."""

    @property
    def inputs(self) -> int:
        return self.shape[0] // self.groups

    @property
    def fan_in(self) -> float:
        """Average number of weights that reach one output value: as in any other layer, over the product of strides."""
        return super().fan_in / math.prod(per_axis(self.module, "stride", len(self.size)))

    @property
    def correlations(self) -> tuple[Tensor, ...]:
        return correlation(self.size, self.dilation, per_axis(self.module, "stride", len(self.size)), self.rho)

    def filters(self, weight: Tensor) -> Tensor:
        by_group = weight.reshape(self.groups, self.inputs, -1, *self.size)
        return by_group.transpose(1, 2).flatten(0, 1)

    def arrange(self, kernels: Tensor) -> Tensor:
        by_group = kernels.reshape(self.groups, self.shape[1], self.inputs, *self.size)
        return by_group.transpose(1, 2).reshape(self.shape)


class ExpertsLayer(Layer):
    """Convolutions of several experts, mixed for each image: a weight of shape ``(experts, out · in/groups · k · k)``.

    Each expert is drawn like a convolution of its own.

    Reference: Yang et al., CondConv: Conditionally Parameterized Convolutions for Efficient Inference, NeurIPS 2019.
    """

    @property
    def expert_shape(self) -> torch.Size:
        """Shape ``(out, in/groups, *size)`` of the weight of one expert."""
        return torch.Size(cast(tuple[int, ...], self.module.weight_shape))

    @property
    def size(self) -> torch.Size:
        return self.expert_shape[2:]

    @property
    def blocks(self) -> int:
        return self.shape[0] * self.groups

    @property
    def inputs(self) -> int:
        return self.expert_shape[1]

    @property
    def torch_fan_in(self) -> int:
        return self.expert_shape[1:].numel()

    def reason_against_shape(self) -> str | None:
        expected = (cast(int, self.module.num_experts), self.expert_shape.numel())
        if self.shape == expected:
            return None
        return f"its weight has shape {tuple(self.shape)}, but its experts need {expected}"
