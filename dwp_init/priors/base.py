"""The base class of all priors over kernels, and the registry of their families."""

import inspect
import itertools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dwp_init.priors.checks import check_generator, checked_depth, checked_shape, whole_number
from dwp_init.priors.precision import full_precision, in_full_precision
from dwp_init.report import kernel_text
from dwp_init.split import split

KernelShape = tuple[int, ...]
_DENSITIES = ("log_prob", "log_prob_by_quadrature", "estimate", "elbo", "blind_elbo", "importance_bound")
_IN_FULL_PRECISION = ("sample", "sample_layer", "check", "fit_", *_DENSITIES)


class Estimate(NamedTuple):
    """Estimates of log p(w), ``(n,)``, in nats per kernel, and their Monte Carlo standard errors ``(n,)``."""

    log_prob: Tensor
    error: Tensor


class Prior(nn.Module, ABC):
    """Describes a distribution p(w) over the kernels of a convolution, in 1, 2 or 3 dimensions.

    A family of priors is a subclass with a :attr:`family` of its own, entered with :func:`register`. It implements
    :meth:`arguments`, :meth:`log_prob`, :meth:`describe` and ``_draw``, keeps all its tensors in parameters and
    persistent buffers, and overrides :meth:`estimate` if its :meth:`log_prob` is not exact. ``torch.autocast`` has no
    effect in :meth:`sample`, :meth:`sample_layer`, :meth:`log_prob`, :meth:`estimate`, :meth:`check`, ``fit_`` and the
    bounds of a VAE, however it defines them.

    Args:
        kernel_shape: ``(c, *size)`` of one kernel, such as ``(1, 7, 7)``. ``c = 1`` in the paper, where each kernel
            joins one input channel to one output channel (Eq. 5).

    Attributes:
        family: The name of the family in a prior's ``config.json``.
        exact: Whether :meth:`log_prob` is exact. If it is ``False``, log_prob is a lower bound.
        has_noise: Whether :meth:`sample` has a last, white step that ``noise=False`` leaves out.
        chunk: Kernels drawn at a time, which bounds the memory of :meth:`sample`, and of a VAE's :meth:`log_prob`.
        joint: Whether :meth:`sample_layer` draws the kernels of a layer together, for stems, and layers that a
            mapping names exactly. ``apply_`` then leaves them as they are drawn, also with ``orthogonal``.
        meant_for: The inputs of a layer for which the prior is meant, in words; empty if they do not matter.
        depths: The relative depths that the prior tells apart, see :meth:`at`; none in most families.
        details: What is known about this prior besides its parameters: name, source, metrics. JSON, saved with it.
    """

    family: ClassVar[str]
    exact: ClassVar[bool]
    has_noise: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    meant_for: ClassVar[str] = ""
    chunk: int = 4096
    depths: tuple[float, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not getattr(cls, "exact", True) and cls.estimate is Prior.estimate:
            raise TypeError(
                f"{cls.__name__} has exact = False, so it must override estimate(): the default takes log_prob() for "
                "the exact density"
            )
        in_full_precision(cls, _IN_FULL_PRECISION)

    def __init__(self, kernel_shape: KernelShape) -> None:
        super().__init__()
        self.kernel_shape = checked_shape(kernel_shape)
        self.details: dict[str, Any] = {}

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Returns the constructor's arguments after ``kernel_shape``, as JSON; with them a saved prior is rebuilt."""

    @abstractmethod
    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to log p(w) ``(n,)``, in nats per kernel."""

    @abstractmethod
    def describe(self) -> str:
        """Returns one or two sentences in English: what the family is, and its size.

        They stand on a published prior's card. :meth:`describe_size` gives the sentence on the size.
        """

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        """Draws at most ``chunk`` kernels, ``(n, d)`` with ``d = dim``."""

    @torch.no_grad()
    @full_precision()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: bool = True) -> Tensor:
        """Draws kernels on the prior's own device and in its own dtype, float32 unless it was converted.

        Args:
            n: How many.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.
            noise: ``False`` leaves out the last, white step where a family has one: a VAE then returns the mean of
                p(w|z), as the paper's authors did. Families without such a step ignore it.

        Returns:
            Kernels ``(n, c, *size)``.

        Raises:
            TypeError: ``n`` is not a whole number, or ``generator`` no ``torch.Generator``.
            ValueError: ``n`` is negative.
        """
        n = whole_number(n, "the number of kernels")
        check_generator(generator)
        if n < 0:
            raise ValueError(f"the number of kernels must be 0 or more; got {n}")
        kernels = torch.empty(n, self.dim, device=self.device, dtype=self.dtype)
        if n:
            self._fill(kernels, generator, noise)
        return kernels.view(n, *self.kernel_shape)

    def sample_layer(self, n: int, generator: torch.Generator | None = None, *, noise: bool = True) -> Tensor:
        """Draws the kernels of one layer: those of :meth:`sample`, which are independent (Eq. 5), in most families.

        Args:
            n: How many.
            generator: As in :meth:`sample`.
            noise: As in :meth:`sample`.
        """
        return self.sample(n, generator, noise=noise)

    def drew(self, filters: Tensor) -> bool:
        """Whether filters ``(n, c, *size)`` are those of :meth:`sample_layer`, up to one factor, in a joint family."""
        return False

    def _fill(self, kernels: Tensor, generator: torch.Generator | None, noise: bool) -> None:
        """Fills ``(n, d)`` with draws, ``chunk`` kernels at a time."""
        for part in split(kernels, self.chunk):
            part[:] = self._draw(len(part), generator, noise)

    def estimate(self, kernels: Tensor, samples: int = 256, generator: torch.Generator | None = None) -> Estimate:
        """Estimates log p(w) of kernels ``(n, c, *size)``.

        A family whose :attr:`exact` is ``True`` returns :meth:`log_prob` with an error of 0 and ignores the other
        arguments. Any other family returns a lower bound and its Monte Carlo error.

        Args:
            kernels: ``(n, c, *size)``.
            samples: Number of draws per kernel.
            generator: Source of randomness on the prior's device; PyTorch's global one by default.
        """
        exact = self.log_prob(kernels)
        return Estimate(exact, torch.zeros_like(exact))

    def at(self, depth: float) -> "Prior":
        """Returns the prior for a layer at a relative depth, from 0 (the first) to 1 (the last).

        Most families return themselves.

        Raises:
            ValueError: ``depth`` is not a number from 0 to 1.
        """
        checked_depth(depth)
        return self

    def shaped(self, kernel_shape: KernelShape, dilation: Sequence[int]) -> "Prior | None":
        """Returns the prior of kernels of another shape; ``None`` in most families, which have no other.

        Args:
            kernel_shape: ``(c, *size)``.
            dilation: Distance of neighbouring taps along each axis.
        """
        return None

    @property
    def kernels_text(self) -> str:
        """The kernels that the prior is for, such as ``7×7``, or ``3×7×7`` for three input channels."""
        return kernel_text(self.kernel_shape)

    def describe_size(self) -> str:
        """Returns a sentence on the size, such as ``"9 numbers; its tensors take 3.6e-05 MB."``."""
        count, tensors = self.parameter_count, self.state_dict().values()
        noun = "parameter" if any(True for _ in self.parameters()) else "number"
        megabytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
        return f"{count:,} {noun}{'s' * (count != 1)}; its tensors take {megabytes:.3g} MB."

    @property
    def dim(self) -> int:
        """Number of values in a kernel, ``c·k·k`` in 2-D."""
        return math.prod(self.kernel_shape)

    @property
    def device(self) -> torch.device:
        """The device of the prior's parameters."""
        return self._any_tensor().device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the prior's parameters."""
        return self._any_tensor().dtype

    @property
    def parameter_count(self) -> int:
        """Number of values trained by gradient or, in a family that is fitted otherwise, of all values kept."""
        return sum(tensor.numel() for tensor in list(self.parameters()) or self.buffers())

    def check(self) -> None:
        """Raises ``ValueError`` if the parameters are finite but do not describe a density."""

    def extra_repr(self) -> str:
        given = {"kernel_shape": self.kernel_shape, **self.arguments()}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())

    def _any_tensor(self) -> Tensor:
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))

    def _flatten(self, kernels: object) -> Tensor:
        """Flattens kernels ``(n, c, *size)`` to ``(n, d)``, in the prior's dtype; raises if their shape is another."""
        if not isinstance(kernels, Tensor):
            raise TypeError(f"kernels must be a tensor; got {type(kernels).__name__}")
        if tuple(kernels.shape[1:]) != self.kernel_shape:
            expected = ", ".join(map(str, self.kernel_shape))
            way_out = f"; make kernels of a layer's weight by .reshape(-1, {expected}), or see bayes.layer_priors"
            is_weight = kernels.shape[2:] == self.kernel_shape[1:] and not kernels.numel() % self.dim
            found = f"{tuple(kernels.shape)}{way_out if is_weight else ''}"
            raise ValueError(f"kernels must have shape (n, {expected}); got {found}")
        if kernels.is_complex():
            raise TypeError(f"kernels must be real; got {kernels.dtype}: take their real part or absolute values")
        return kernels.flatten(1).to(self.dtype)


FAMILIES: dict[str, type[Prior]] = {}
_Family = TypeVar("_Family", bound=type[Prior])


def _is_family(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Prior)


def register(family: _Family) -> _Family:
    """Enters a class under its own ``family`` name, so that its priors can be saved and loaded; a decorator.

    A class of the same qualified name replaces the one before, as when a notebook cell is run again.

    Args:
        family: A concrete subclass of :class:`Prior` that defines ``family`` (letters, digits, ``-`` and ``_``) and
            whose constructor takes ``kernel_shape`` and what :meth:`Prior.arguments` returns.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: ``family`` is not a class derived from :class:`Prior`, or it lacks a method.
        ValueError: The class has no valid ``family`` of its own, or another class has that name.

    Examples:
        >>> @dwp_init.register
        ... class WhiteNoise(dwp_init.Prior):
        ...     family, exact = "white-noise", True
        ...
        ...     def arguments(self):
        ...         return {}
        ...
        ...     def describe(self):
        ...         return "White noise."
        ...
        ...     def log_prob(self, kernels):
        ...         return torch.distributions.Normal(0.0, 1.0).log_prob(self._flatten(kernels)).sum(1)
        ...
        ...     def _draw(self, n, generator, noise):
        ...         return torch.randn(n, self.dim, generator=generator)
        >>> WhiteNoise((1, 5, 5)).sample(2).shape
        torch.Size([2, 1, 5, 5])
    """
    if not _is_family(family):
        raise TypeError(f"register takes a class derived from dwp_init.Prior; got {family!r}")
    if inspect.isabstract(family):
        lacking = ", ".join(sorted(family.__abstractmethods__))
        raise TypeError(f"{family.__name__} cannot be registered: it lacks {lacking}; define them")
    name, kind = vars(family).get("family"), family.__name__
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(
            f"{kind} needs a family name of its own, of letters, digits, - and _; got {name!r}: write family = "
            f"'{kind.lower()}' in the class"
        )
    taken = FAMILIES.get(name, family)
    if (taken.__module__, taken.__qualname__) != (family.__module__, family.__qualname__):
        raise ValueError(f"the family {name!r} is {taken.__module__}.{taken.__qualname__}; give {kind} another name")
    if not isinstance(getattr(family, "exact", None), bool):
        raise TypeError(f"{kind} must say whether its log_prob() is exact: write exact = True or exact = False")
    FAMILIES[name] = family
    return family
