"""Weights: the tensors behind a module's ``weight``, how to read it, and what to store so that it changes."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm


class Weight:
    """The weight of a module, here one that is a plain parameter.

    Args:
        module: The module with the attribute ``weight``.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def stored(self) -> list[Tensor]:
        """The tensors from which the weight is made; the last one has the weight's device and dtype."""
        return [self.module.get_parameter("weight")]

    @property
    def device(self) -> torch.device:
        """Device of the weight."""
        return self.stored[-1].device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weight."""
        return self.stored[-1].dtype

    def reason_to_skip(self) -> str | None:
        """Says why the weight cannot be drawn; ``None`` if it can, as far as is known without reading it."""
        tensors = self.stored
        if any(is_lazy(tensor) for tensor in tensors):
            return "lazy: run a forward pass first, so that its shape is known"
        if any(tensor.is_meta for tensor in tensors):
            return "on the meta device: give it memory first, with to_empty(device=...)"
        wrong = [tensor.dtype for tensor in tensors if not tensor.is_floating_point()]
        if wrong:
            return f"its weight has dtype {wrong[0]}: it must be a real floating-point type"
        return None

    def reason_to_refuse(self, shape: torch.Size, rms: float) -> str | None:
        """Says why the weight cannot take a draw of this shape and root mean square; ``None`` if it can."""
        return None

    def read(self) -> Tensor:
        """Returns the weight as the forward pass would use it, detached. The module does not change."""
        return self.module.get_parameter("weight").detach()

    def values_for(self, value: Tensor) -> list[Tensor]:
        """Returns new values for :attr:`stored` that make the weight equal to ``value``.

        Raises:
            ValueError: A parametrization has no inverse for this value, or changes its own tensors to represent it.
        """
        return [value]

    def refresh(self) -> None:
        """Recomputes what the module caches of the weight, after :attr:`stored` was written."""


class ParametrizedWeight(Weight):
    """A weight under ``torch.nn.utils.parametrize``, such as the current ``weight_norm`` and ``spectral_norm``."""

    @property
    def _chain(self) -> parametrize.ParametrizationList:
        return cast(parametrize.ParametrizationList, self.module.get_submodule("parametrizations.weight"))

    @property
    def stored(self) -> list[Tensor]:
        chain = self._chain
        names = ["original"] if chain.is_tensor else [f"original{index}" for index in range(chain.ntensors)]
        return [cast(Tensor, getattr(chain, name)) for name in names]

    def reason_to_skip(self) -> str | None:
        if reason := super().reason_to_skip():
            return reason
        for part in self._chain:
            if not hasattr(part, "right_inverse"):
                return f"its parametrization {_kind(part)} has no right_inverse: call apply_ before registering it"
        return None

    def reason_to_refuse(self, shape: torch.Size, rms: float) -> str | None:
        trial = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
        try:  # not with the present weight, which orthogonal would accept
            self.values_for((trial * rms).to(self.device, self.dtype))
        except ValueError as error:
            return str(error)
        return None

    def read(self) -> Tensor:
        with torch.no_grad(), self._forked_rng(), self._evaluation_mode():
            return cast(Tensor, self._chain()).detach()

    def values_for(self, value: Tensor) -> list[Tensor]:
        inverse: Tensor | Sequence[Tensor] = value
        for part in reversed(list(self._chain)):
            trial = copy.deepcopy(part)  # because right_inverse may write to its module, as orthogonal's does
            try:
                with torch.no_grad(), self._forked_rng():
                    inverse = cast(_Invertible, trial).right_inverse(inverse)
            except Exception as error:
                raise ValueError(
                    f"its parametrization {_kind(part)} refuses a new weight ({error}); call apply_ before registering "
                    "it, or leave the layer out with layers="
                ) from error
            if not _same_state(trial, part):
                raise ValueError(
                    f"its parametrization {_kind(part)} keeps part of the weight in its own tensors, which apply_ does "
                    "not write; call apply_ before registering it, or leave the layer out with layers="
                )
        values = [inverse] if isinstance(inverse, Tensor) else list(inverse)
        found, needed = ([tuple(tensor.shape) for tensor in tensors] for tensors in (values, self.stored))
        if found != needed:  # copy_ would broadcast
            raise ValueError(f"its right_inverse returns shapes {found}, but the stored tensors have {needed}; fix it")
        return values

    @contextmanager
    def _forked_rng(self) -> Generator[None, None, None]:
        """Keeps the randomness of a parametrization from advancing the global random state."""
        with torch.random.fork_rng([tensor.device for tensor in self.stored if tensor.is_cuda]):
            yield

    @contextmanager
    def _evaluation_mode(self) -> Generator[None, None, None]:
        """Keeps parametrizations such as spectral_norm from updating their buffers while the weight is read."""
        modes = {module: module.training for part in self._chain for module in part.modules()}
        try:
            for module in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


class NormedWeight(Weight):
    """A weight under the old ``torch.nn.utils.weight_norm``, which recomputes it in a hook before each forward pass."""

    def __init__(self, module: nn.Module, hook: WeightNorm) -> None:
        super().__init__(module)
        self._hook = hook

    @property
    def stored(self) -> list[Tensor]:
        return [self.module.get_parameter("weight_g"), self.module.get_parameter("weight_v")]

    def read(self) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, self._hook.compute_weight(self.module)).detach()

    def values_for(self, value: Tensor) -> list[Tensor]:
        return [torch.norm_except_dim(value, 2, self._hook.dim), value]

    def refresh(self) -> None:
        with torch.no_grad():
            self.module.weight = self._hook.compute_weight(self.module)


class UnknownWeight(Weight):
    """A weight that something else computes, such as ``prune`` or the old ``spectral_norm``; it cannot be written."""

    @property
    def stored(self) -> list[Tensor]:
        return []

    def reason_to_skip(self) -> str | None:
        return "its weight is not a parameter, as under prune: call apply_ before the weight is replaced"


def weight_of(module: nn.Module) -> Weight:
    """Returns the weight of a module, of the class that knows how it is made."""
    if parametrize.is_parametrized(module, "weight"):
        return ParametrizedWeight(module)
    own = {name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)}
    if "weight" in own:
        return Weight(module)
    hooks = cast(dict[int, object], module._forward_pre_hooks).values()  # pyright: ignore[reportPrivateUsage]
    norms = [hook for hook in hooks if isinstance(hook, WeightNorm) and hook.name == "weight"]
    return NormedWeight(module, norms[0]) if norms and {"weight_g", "weight_v"} <= own else UnknownWeight(module)


class Span(NamedTuple):
    """The memory of a tensor.

    Attributes:
        device: Its device.
        start: Address of the first byte.
        stop: Address behind the last byte.
        shape: Shape of the tensor.
        steps: Bytes between neighbouring elements in each dimension.
    """

    device: torch.device
    start: int
    stop: int
    shape: torch.Size
    steps: tuple[int, ...]

    def overlaps(self, other: "Span") -> bool:
        """Whether the two have an element in common."""
        if self == other:
            return True
        if self.device != other.device or self.stop <= other.start or other.stop <= self.start:
            return False
        return bool(torch.isin(self._addresses(), other._addresses()).any())

    def _addresses(self) -> Tensor:
        """Returns the address of each element: views with gaps between their elements may interlock."""
        found = torch.tensor([self.start], device="cpu")
        for size, step in zip(self.shape, self.steps, strict=True):
            found = (found[:, None] + torch.arange(size, device="cpu") * step).flatten()
        return found


Place = tuple[Span, ...]


def place_of(weight: Weight) -> Place:
    """Returns the memory of a weight: equal for two weights that share all of it."""
    return tuple(map(_span, weight.stored))


def overlap(left: Place, right: Place) -> bool:
    """Whether two weights have memory in common."""
    return any(ours.overlaps(theirs) for ours, theirs in product(left, right))


def _span(tensor: Tensor) -> Span:
    start, item = tensor.data_ptr(), tensor.element_size()
    steps = tuple(stride * item for stride in tensor.stride())
    last = sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=True))
    return Span(tensor.device, start, start + last + item, tensor.shape, steps)


class _Invertible(Protocol):
    def right_inverse(self, value: Tensor | Sequence[Tensor], /) -> Tensor | Sequence[Tensor]: ...


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def _same_state(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = ([*module.parameters(), *module.buffers()] for module in (left, right))
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
