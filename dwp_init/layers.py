"""Convolutions as `apply_` sees them: which can be initialised, their fan-in, and what lies behind their weight."""

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

Conv2d = nn.Conv2d | nn.ConvTranspose2d
KINDS = ("stem", "dense", "depthwise")
OTHER_RANKS = (nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d)


def is_convolution(module: nn.Module) -> bool:
    """Whether the module is a convolution of any rank, quantized ones included."""
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, *OTHER_RANKS)) or _is_quantized(module)


def reason_to_skip(module: nn.Module) -> str | None:
    """Says why no prior can initialise this module; ``None`` if one can."""
    kind = type(module).__name__
    if _is_quantized(module):
        return "quantized: initialise the model before quantizing it"
    if isinstance(module, OTHER_RANKS):
        return f"{kind}: priors are over 2-D kernels"
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        return "not a convolution"
    tensors = stored_tensors(module)
    if tensors is None:
        return "its weight is no parameter of its own, as under prune: call apply_ before the weight is replaced"
    if any(is_lazy(tensor) for tensor in tensors):
        return "lazy: run a forward pass first, so that its shape is known"
    if any(tensor.is_meta for tensor in tensors):
        return "on the meta device: give it memory first, with to_empty(device=...)"
    wrong = [tensor.dtype for tensor in tensors if not tensor.is_floating_point()]
    if wrong:
        return f"its weight has dtype {wrong[0]}: it must be a real floating-point type"
    for part in module.parametrizations.weight if parametrize.is_parametrized(module, "weight") else ():
        if not hasattr(part, "right_inverse"):
            return f"its parametrization {type(part).__name__} has no right_inverse: call apply_ before registering it"
    return None


def reason_against_shape(shape: torch.Size) -> str | None:
    """Says why no prior can initialise a weight of this shape; ``None`` if one can."""
    if len(shape) != 4 or 0 in shape:
        return f"its weight has shape {tuple(shape)}: it must have four dimensions, none of them empty"
    return None


def reason_against_inverse(module: Conv2d) -> str | None:
    """Says why the layer's weight cannot be set through its parametrizations; ``None`` if it can be, or has none."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    weight = read_weight(module)
    trial = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    trial *= he_rms(module, weight.shape)
    try:  # with another weight than the present one, which orthogonal would take
        check_shapes(stored_tensors(module), values_to_store(module, trial.to(weight)))
    except ValueError as error:
        return str(error)
    return None


def weight_shape(module: Conv2d) -> torch.Size:
    """Returns the shape of the layer's weight itself, whose attributes may say otherwise if it was replaced."""
    return read_weight(module).shape


def inputs_per_group(module: Conv2d, shape: torch.Size) -> int:
    """Returns how many input channels, hence kernels, make up one output channel of a weight of this shape."""
    return shape[0] // module.groups if isinstance(module, nn.ConvTranspose2d) else shape[1]


def is_depthwise(module: Conv2d, shape: torch.Size | None = None) -> bool:
    """Whether each of several input channels is a group of its own; ``shape`` is of the weight, where it is known."""
    return module.groups > 1 and inputs_per_group(module, weight_shape(module) if shape is None else shape) == 1


def kinds(module: Conv2d, shape: torch.Size, first: bool) -> tuple[str, ...]:
    """Returns what kinds of layer this is, of ``KINDS``, the closest first.

    Args:
        module: The layer.
        shape: Of its weight.
        first: Whether it is the model's first convolution with kernels larger than 1×1.
    """
    if is_depthwise(module, shape):
        return ("depthwise",)
    return ("stem", "dense") if first and module.groups == 1 else ("dense",)


def fan_in(module: Conv2d, shape: torch.Size | None = None) -> float:
    """Returns how many weights reach one output value: ``in/groups · k · k``, over the stride² if transposed."""
    shape = weight_shape(module) if shape is None else shape
    taps = inputs_per_group(module, shape) * math.prod(shape[2:])
    return taps / math.prod(module.stride) if isinstance(module, nn.ConvTranspose2d) else taps


def he_rms(module: Conv2d, shape: torch.Size | None = None) -> float:
    """Returns the root mean square that He et al. (2015) give a layer before a ReLU: √(2 / fan_in).

    Args:
        module: The layer.
        shape: Of its weight, where that is known already.
    """
    return math.sqrt(2 / fan_in(module, shape))


def arrange(module: Conv2d, kernels: Tensor, shape: torch.Size) -> Tensor:
    """Arranges kernels ``(n, c, k, k)``, each from c input channels to one output channel, as the layer's weight."""
    if not isinstance(module, nn.ConvTranspose2d):
        return kernels.reshape(shape)
    by_group = kernels.reshape(module.groups, shape[1], inputs_per_group(module, shape), *shape[2:])
    return by_group.transpose(1, 2).reshape(shape)


def orthogonal_channels(kernels: Tensor, groups: int, inputs: int) -> Tensor:
    """Returns kernels with the output channels of each group orthogonal, as near to the given ones as can be.

    From each row of a group's ``(out, in · k · k)`` matrix its mean is subtracted, for independent kernels with means
    make all channels behind a ReLU alike; then U Vᵀ is taken of what is U S Vᵀ, the nearest matrix with orthonormal
    rows. Rows without means have none if there are as many as columns or more: then nothing follows. Of a matrix of
    lower rank U Vᵀ has only its own directions. With one input channel per group the channels are not made orthogonal:
    rows without their means are only scaled to one norm.

    Args:
        kernels: ``(n, c, k, k)``, each from c input channels to one output channel, all of an output channel together
            and all of a group together.
        groups: How many groups there are.
        inputs: Input channels of a group.
    """
    taps = inputs * kernels.shape[2:].numel()
    device = "cpu" if kernels.device.type == "mps" else kernels.device  # which has no float64
    rows = kernels.reshape(groups, -1, taps).to(device, torch.float64)
    rows = rows - rows.mean(2, keepdim=True)
    if inputs == 1:
        changed = nn.functional.normalize(rows, dim=2)
    else:
        changed = _nearest_orthonormal(rows) if rows.shape[1] < taps else rows
    return changed.reshape(kernels.shape).to(kernels)


def _nearest_orthonormal(rows: Tensor) -> Tensor:
    """Returns U Vᵀ of wide matrices ``(b, rows, columns)`` that are U S Vᵀ, by their Gram matrices."""
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    noise = (rows.shape[2] * torch.finfo(torch.float32).eps) ** 2 * values[..., -1:]  # of float32 draws
    inverse_root = (vectors * values.rsqrt().where(values > noise, 0.0)[..., None, :]) @ vectors.mT
    return inverse_root @ rows


def stored_tensors(module: nn.Module) -> list[Tensor] | None:
    """Returns the tensors from which the layer's weight is made; ``None`` if that is unknown."""
    if parametrize.is_parametrized(module, "weight"):
        chain = module.parametrizations.weight
        return [chain.original] if chain.is_tensor else [getattr(chain, f"original{i}") for i in range(chain.ntensors)]
    if isinstance(module._parameters.get("weight"), nn.Parameter):
        return [module.weight]
    return [module.weight_g, module.weight_v] if _weight_norm_hook(module) else None


class Span(NamedTuple):
    """Where a tensor lies in memory."""

    device: torch.device
    start: int
    stop: int
    shape: torch.Size
    steps: tuple[int, ...]

    def overlaps(self, other: "Span") -> bool:
        """Whether the two have an element in common."""
        if self.device != other.device or self.stop <= other.start or other.stop <= self.start:
            return False
        return bool(torch.isin(self._addresses(), other._addresses()).any())

    def _addresses(self) -> Tensor:
        """Returns where each element starts; views with a step between their elements may interlock."""
        found = torch.tensor([self.start], device="cpu")
        for size, step in zip(self.shape, self.steps, strict=True):
            found = (found[:, None] + torch.arange(size, device="cpu") * step).flatten()
        return found


def place(module: Conv2d) -> tuple[Span, ...]:
    """Returns where the layer's weight lies in memory: the same for layers that share all of it."""
    return tuple(map(_span, stored_tensors(module)))


def _span(tensor: Tensor) -> Span:
    start, item = tensor.data_ptr(), tensor.element_size()
    steps = tuple(stride * item for stride in tensor.stride())
    last = sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=True))
    return Span(tensor.device, start, start + last + item, tensor.shape, steps)


def overlap(left: tuple[Span, ...], right: tuple[Span, ...]) -> bool:
    """Whether two layers' weights have memory in common."""
    return any(ours.overlaps(theirs) for ours, theirs in product(left, right))


def read_weight(module: Conv2d) -> Tensor:
    """Returns the layer's weight as its forward pass would use it, detached; leaves the layer as it is."""
    with torch.no_grad(), _frozen_parametrizations(module), _forked_rng(module):
        hook = _weight_norm_hook(module)
        return (hook.compute_weight(module) if hook else module.weight).detach()


def values_to_store(module: Conv2d, weight: Tensor) -> list[Tensor]:
    """Returns new values for :func:`stored_tensors` that make the layer's weight the given one.

    Raises:
        ValueError: A parametrization has no inverse for this weight, or changes its own state on the way.
    """
    if hook := _weight_norm_hook(module):
        return [torch.norm_except_dim(weight, 2, hook.dim), weight]
    if not parametrize.is_parametrized(module, "weight"):
        return [weight]
    values: Tensor | tuple[Tensor, ...] = weight
    for parametrization in reversed(module.parametrizations.weight):
        kind = type(parametrization).__name__
        trial = copy.deepcopy(parametrization)  # orthogonal, for one, writes into itself here
        try:
            with torch.no_grad(), _forked_rng(module):
                values = trial.right_inverse(values)
        except Exception as error:
            raise ValueError(
                f"its parametrization {kind} refuses a new weight ({error}); call apply_ before registering it, or "
                "leave the layer out with layers="
            ) from error
        if not _same_state(trial, parametrization):
            raise ValueError(
                f"its parametrization {kind} keeps part of the weight in its own tensors, which apply_ leaves alone; "
                "call apply_ before registering it, or leave the layer out with layers="
            )
    return [values] if isinstance(values, Tensor) else list(values)


def check_shapes(stored: list[Tensor], values: list[Tensor]) -> None:
    """Raises ``ValueError`` unless the values have the shapes of the stored tensors, as broadcasting would hide."""
    found, needed = ([tuple(tensor.shape) for tensor in tensors] for tensors in (values, stored))
    if found != needed:
        raise ValueError(f"its right_inverse returns shapes {found}, but the stored tensors have {needed}; mend it")


def refresh(module: nn.Module) -> None:
    """Recomputes the plain ``weight`` that an old-style ``weight_norm`` keeps beside its parameters."""
    if hook := _weight_norm_hook(module):
        with torch.no_grad():
            module.weight = hook.compute_weight(module)


def _weight_norm_hook(module: nn.Module) -> WeightNorm | None:
    hooks = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm))
    return next((hook for hook in hooks if hook.name == "weight"), None)


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.startswith("torch.") and ".quantized." in kind.__module__ and "Conv" in kind.__name__


def _same_state(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = ([*module.parameters(), *module.buffers()] for module in (left, right))
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def _forked_rng(module: nn.Module) -> AbstractContextManager[None]:
    """Keeps a parametrization's own randomness from moving the global random state on."""
    if not parametrize.is_parametrized(module, "weight"):
        return nullcontext()
    return torch.random.fork_rng([tensor.device for tensor in stored_tensors(module) if tensor.is_cuda])


@contextmanager
def _frozen_parametrizations(module: nn.Module) -> Iterator[None]:
    """Keeps parametrizations such as spectral_norm from updating their buffers while the weight is read."""
    chain = module.parametrizations.weight if parametrize.is_parametrized(module, "weight") else ()
    parts = [part for parametrization in chain for part in parametrization.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
