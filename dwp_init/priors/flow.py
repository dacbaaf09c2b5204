"""Normalizing flows, built with the library zuko."""

import importlib
from contextlib import nullcontext
from types import ModuleType
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from dwp_init.options import check_flag, check_one_of
from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.bounds import reserve
from dwp_init.priors.checks import check_count
from dwp_init.priors.whitening import Whitening, standard_normal_log_prob
from dwp_init.randomness import OwnRandomness

FlowNetwork = Literal["maf", "nsf"]
MAX_WEIGHTS = 2**27


@register
class Flow(Prior):
    """Describes kernels by an invertible map of whitened kernels to N(0, I), a flow of the library ``zuko``.

    Needs the library ``zuko``: ``pip install zuko``.

    Args:
        kernel_shape: ``(c, *size)``.
        network: ``maf``, affine autoregressive transforms (Papamakarios et al. 2017), or ``nsf``, rational-quadratic
            splines (Durkan et al. 2019).
        transforms: Number of transforms in a row; each reverses the order of the numbers.
        hidden: Width of the two hidden layers in each transform.
        coupling: Whether a transform changes one half of the numbers given the other half, so that draws take 2
            passes, instead of each number given those before it, so that draws take one for each number.

    Raises:
        ImportError: ``zuko`` is not installed.

    References:
        Papamakarios et al., Masked Autoregressive Flow for Density Estimation, NeurIPS 2017; Durkan et al., Neural
        Spline Flows, NeurIPS 2019; Rozet et al., Zuko: Normalizing Flows in PyTorch, 2022.
    """

    family: ClassVar[str] = "flow"
    exact: ClassVar[bool] = True

    def __init__(
        self,
        kernel_shape: KernelShape,
        network: FlowNetwork = "maf",
        transforms: int = 3,
        hidden: int = 64,
        coupling: bool = False,
    ) -> None:
        super().__init__(kernel_shape)
        check_count(transforms=transforms, hidden=hidden)
        check_one_of("network", network, get_args(FlowNetwork))
        check_flag("coupling", coupling)
        if self.dim < 2:
            raise ValueError(f"a flow needs kernels of 2 numbers or more; got kernel_shape {kernel_shape}")
        _check_size(self.dim, transforms, hidden)
        self.network, self.transforms, self.hidden, self.coupling = network, transforms, hidden, coupling
        self.whitening = Whitening(self.dim)
        flow = {"maf": _zuko().flows.MAF, "nsf": _zuko().flows.NSF}[network]
        passes = 2 if coupling else None
        reserve(transforms * hidden * (self.dim + hidden))  # masks, which are made on the processor
        meta = torch.empty(0).is_meta
        # zuko reads its masks while it builds them, which is not possible on the meta device; the numbers that it draws
        # there are not used, so they must not move the global random state
        with torch.device("cpu"), OwnRandomness() if meta else nullcontext():
            self.flow = flow(self.dim, transforms=transforms, hidden_features=(hidden, hidden), passes=passes).transform

    def arguments(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "transforms": self.transforms,
            "hidden": self.hidden,
            "coupling": self.coupling,
        }

    def describe(self) -> str:
        kind = f"{self.transforms} {'coupling' if self.coupling else 'autoregressive'} transforms"
        return (
            f"A normalizing flow ({self.network}) of {kind}, {self.hidden} wide, on whitened kernels. "
            f"{self.describe_size()}"
        )

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to the exact log p(w) ``(n,)``, in nats per kernel."""
        white: Tensor = self.whitening(self._flatten(kernels))
        if not len(white):
            return white.new_zeros(0)
        base: Tensor
        log_det: Tensor
        base, log_det = self.flow().call_and_ladj(white)
        return standard_normal_log_prob(base) + log_det - self.whitening.log_det()

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        base = torch.randn(n, self.dim, generator=generator, device=self.device, dtype=self.dtype)
        return self.whitening.inverse(self.flow().inv(base))


def _check_size(dim: int, transforms: int, hidden: int) -> None:
    """Raises ``ValueError`` for flows too large to build; zuko needs their memory even if only a file is read."""
    if transforms > 100:
        raise ValueError(f"transforms must be a whole number from 1 to 100; got {transforms}")
    weights = transforms * (hidden + dim) * (hidden + 24 * dim)  # a spline has 23 numbers
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"a flow of transforms={transforms} and hidden={hidden} over kernels of {dim} numbers has up to {weights} "
            f"weights; at most {MAX_WEIGHTS} are built: lower hidden or transforms"
        )


def _zuko() -> ModuleType:
    try:
        return importlib.import_module("zuko")
    except ImportError as error:
        raise ImportError(
            f"a flow prior needs the library zuko ({error}); install it with: pip install zuko"
        ) from error
