"""Weights: the tensors behind a module's ``weight``, how to read it, and what to store so that it changes."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dwp_init.randomness import OwnRandomness
from dwp_init.shards import is_sharded, own_part, part_like, whole
from dwp_init.spectral import singular_vectors
from dwp_init.tensors import reason_against


class Weight:
    """The weight of a module, here one that is a plain parameter.

    Args:
        module: The module with the attribute ``weight``.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors from which the weight is made; the last one has the weight's device and dtype."""
        return [cast(Tensor, self.module.weight)]

    @property
    def stored(self) -> list[Tensor]:
        """What this process holds of :attr:`tensors`, and may write; less than all of it after ``fully_shard``."""
        return [own_part(tensor) for tensor in self.tensors]

    @property
    def device(self) -> torch.device:
        """Device of the weight."""
        return self.tensors[-1].device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weight."""
        return self.tensors[-1].dtype

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight."""
        return self.tensors[-1].shape

    def reason_to_skip(self) -> str | None:
        """Says why the weight cannot be drawn; ``None`` if it can, as far as is known without reading it."""
        return next(filter(None, map(reason_against, self.tensors)), None)

    def reason_to_refuse(self, shape: torch.Size, rms: float) -> str | None:
        """Says why the weight cannot take a draw of this shape and root mean square; ``None`` if it can."""
        return None

    def read(self, factor: float = 1) -> Tensor:
        """Returns the weight as the forward pass would use it, detached. The module does not change.

        Args:
            factor: What the parameters behind the weight are multiplied by before, in copies.
        """
        return _times(factor, cast(Tensor, self.module.weight))

    def values_for(self, value: Tensor) -> list[Tensor]:
        """Returns new values for :attr:`stored` that make the weight equal to ``value``.

        Raises:
            ValueError: A parametrization has no inverse for this value, or changes its own tensors to represent it.
        """
        return list(map(part_like, self._whole_values(value), self.tensors))

    def _whole_values(self, value: Tensor) -> list[Tensor]:
        """Returns new values for :attr:`tensors`, each whole."""
        return [value]

    @torch.no_grad()
    def write(self, values: Sequence[Tensor]) -> None:
        """Writes what :meth:`values_for` returned."""
        for tensor, value in zip(self.stored, values, strict=True):
            tensor.copy_(value)
        self.refresh()
        torch.clear_autocast_cache()  # from which a forward pass would take the old weight

    def refresh(self) -> None:
        """Recomputes what the module caches of the weight, after :attr:`stored` was written."""


class ParametrizedWeight(Weight):
    """A weight under ``torch.nn.utils.parametrize``, such as the current ``weight_norm`` and ``spectral_norm``.

    Under ``spectral_norm`` the estimates of singular vectors are written too, so that the norm is right at once.
    """

    @property
    def _chain(self) -> parametrize.ParametrizationList:
        return cast(parametrize.ParametrizationList, self.module.get_submodule("parametrizations.weight"))

    @property
    def _originals(self) -> list[Tensor]:
        chain = self._chain
        names = ["original"] if chain.is_tensor else [f"original{index}" for index in range(chain.ntensors)]
        return [cast(Tensor, getattr(chain, name)) for name in names]

    @property
    def tensors(self) -> list[Tensor]:
        vectors = [part.get_buffer(name) for part in self._chain if _is_spectral(part) for name in ("_u", "_v")]
        return [*vectors, *self._originals]

    @property
    def shape(self) -> torch.Size:
        return self.read().shape

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

    def read(self, factor: float = 1) -> Tensor:
        with torch.no_grad(), OwnRandomness(), self._evaluation_mode():
            first, *others = self._chain
            value = first(*(_times(factor, tensor) for tensor in self._originals))
            for part in others:
                value = part(value)
            return cast(Tensor, value).detach()

    def _whole_values(self, value: Tensor) -> list[Tensor]:
        inverse: Tensor | Sequence[Tensor] = value
        vectors: list[Tensor] = []
        for part in reversed(list(self._chain)):
            trial = copy.deepcopy(part)  # because right_inverse may write to its module, as orthogonal's does
            try:
                with torch.no_grad(), OwnRandomness():
                    inverse = cast(_Invertible, trial).right_inverse(inverse)
            except (MemoryError, torch.OutOfMemoryError):  # no word on whether it takes a new weight
                raise
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
            if _is_spectral(part) and isinstance(inverse, Tensor):
                vectors = [*singular_vectors(inverse, cast(int, part.dim)), *vectors]
        values = [inverse] if isinstance(inverse, Tensor) else list(inverse)
        found, needed = ([tuple(tensor.shape) for tensor in tensors] for tensors in (values, self._originals))
        if found != needed:  # copy_ would broadcast
            raise ValueError(f"its right_inverse returns shapes {found}, but the stored tensors have {needed}; fix it")
        return [*vectors, *values]

    def refresh(self) -> None:
        cast(dict[object, Tensor], getattr(parametrize, "_cache", {})).pop((id(self.module), "weight"), None)

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


class HookedWeight(Weight):
    """A weight that a hook of the old ``weight_norm`` or ``spectral_norm`` recomputes before each forward pass."""

    names: tuple[str, ...]

    def __init__(self, module: nn.Module, hook: WeightNorm | SpectralNorm) -> None:
        super().__init__(module)
        self._hook = hook

    @property
    def tensors(self) -> list[Tensor]:
        return [cast(Tensor, getattr(self.module, name)) for name in self.names]

    def read(self, factor: float = 1) -> Tensor:
        values = [_times(factor if isinstance(each, nn.Parameter) else 1, each) for each in self.tensors]
        parts = SimpleNamespace(**dict(zip(self.names, values, strict=True)))
        with torch.no_grad():
            return self._compute(cast(nn.Module, parts)).detach()

    def _compute(self, parts: nn.Module) -> Tensor:
        """Computes the weight from an object whose attributes are the tensors."""
        raise NotImplementedError

    def refresh(self) -> None:
        if not any(map(is_sharded, self.tensors)):  # the hook reads parts that are gathered for a forward pass
            self.module.weight = self.read()


class NormedWeight(HookedWeight):
    """A weight under the old ``torch.nn.utils.weight_norm``."""

    names = ("weight_g", "weight_v")

    def _compute(self, parts: nn.Module) -> Tensor:
        return cast(Tensor, cast(WeightNorm, self._hook).compute_weight(parts))

    def _whole_values(self, value: Tensor) -> list[Tensor]:
        return [torch.norm_except_dim(value, 2, self._hook.dim), value]


class SpectralWeight(HookedWeight):
    """A weight under the old ``torch.nn.utils.spectral_norm``."""

    names = ("weight_u", "weight_v", "weight_orig")

    def _compute(self, parts: nn.Module) -> Tensor:
        return cast(SpectralNorm, self._hook).compute_weight(parts, do_power_iteration=False)

    def _whole_values(self, value: Tensor) -> list[Tensor]:
        return [*singular_vectors(value, self._hook.dim), value]


class UnknownWeight(Weight):
    """A weight that something else computes, such as ``prune``; it cannot be written."""

    @property
    def tensors(self) -> list[Tensor]:
        return []

    def reason_to_skip(self) -> str | None:
        return "its weight is not a parameter, as under prune: call apply_ before the weight is replaced"


_HOOKS: dict[type, type[HookedWeight]] = {WeightNorm: NormedWeight, SpectralNorm: SpectralWeight}


def weight_of(module: nn.Module) -> Weight:
    """Returns the weight of a module, of the class that knows how it is made."""
    if parametrize.is_parametrized(module, "weight"):
        return ParametrizedWeight(module)
    own = {name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)}
    if "weight" in own:
        return Weight(module)
    own |= {name for name, _ in module.named_buffers(recurse=False, remove_duplicate=False)}
    hooks = cast(dict[int, object], module._forward_pre_hooks).values()  # pyright: ignore[reportPrivateUsage]
    for hook in hooks:
        kind = _HOOKS.get(type(hook))
        if kind and getattr(hook, "name", None) == "weight" and own.issuperset(kind.names):
            return kind(module, cast(WeightNorm, hook))
    return UnknownWeight(module)


class _Invertible(Protocol):
    def right_inverse(self, value: Tensor | Sequence[Tensor], /) -> Tensor | Sequence[Tensor]: ...


def _kind(value: object) -> str:
    return type(value).__name__


def _is_spectral(part: nn.Module) -> bool:
    """Whether a parametrization is that of ``spectral_norm`` over a weight of more than one dimension."""
    return _kind(part) == "_SpectralNorm" and hasattr(part, "_u")


def _times(factor: float, tensor: Tensor) -> Tensor:
    value = whole(tensor)
    return value if factor == 1 else (factor * value.float()).to(value.dtype)  # torch multiplies nothing in eight bits


def _same_state(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = ([*module.parameters(), *module.buffers()] for module in (left, right))
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def _equal(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are equal; NaNs are, as in buffers that ``to_empty`` has not filled."""
    return torch.equal(left, right) or (
        left.shape == right.shape and bool(((left == right) | (left.isnan() & right.isnan())).all())
    )
