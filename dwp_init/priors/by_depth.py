"""Mixtures for each depth of a network: kernels near the images differ from those near the classes."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.checks import checked_depth, is_number
from dwp_init.priors.mixture import GaussianMixture


@register
class MixtureByDepth(Prior):
    """Describes kernels by one Gaussian mixture for each of several relative depths, all depths equally likely.

    :meth:`at` gives the mixture of one depth, and ``apply_`` uses it for each layer. Trained depthwise kernels change
    systematically from layer to layer (Trockman et al. 2023).

    Args:
        kernel_shape: ``(c, *size)``.
        depths: From 0, the first convolution with kernels larger than 1×1, to 1, the last; ascending.
        components: Number of components of each depth's mixture.
        scales: The strengths s of every component, as in :class:`GaussianMixture`.
    """

    family: ClassVar[str] = "mixture-by-depth"
    exact: ClassVar[bool] = True

    def __init__(
        self,
        kernel_shape: KernelShape,
        depths: Sequence[float] = (0.0, 1.0),
        components: Sequence[int] = (8, 8),
        scales: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__(kernel_shape)
        if not isinstance(depths, (tuple, list)) or not isinstance(components, (tuple, list)):
            raise ValueError(f"depths and components must be lists; got {depths!r} and {components!r}")
        if not 0 < len(depths) == len(components):
            raise ValueError(f"each depth needs its number of components; got depths={depths}, components={components}")
        if not all(is_number(depth) and 0 <= depth <= 1 for depth in depths):
            raise ValueError(f"depths must be numbers from 0 to 1; got {depths!r}")
        if any(one >= other for one, other in pairwise(depths)):
            raise ValueError(f"depths must ascend; got {depths!r}")
        self.depths = tuple(map(float, depths))
        mixtures = [GaussianMixture(self.kernel_shape, count, scales) for count in components]
        self.mixtures = nn.ModuleList(mixtures)
        self.chunk = mixtures[0].chunk

    @classmethod
    def stack(cls, depths: Sequence[float], mixtures: Sequence[GaussianMixture]) -> "MixtureByDepth":
        """Puts fitted mixtures together, one for each depth.

        Raises:
            ValueError: There are no mixtures, their number differs from that of the depths, or they differ in kernel
                shape or scales.
        """
        kinds = {(mixture.kernel_shape, mixture.scales) for mixture in mixtures}
        if len(kinds) != 1:
            raise ValueError(f"the mixtures must have one kernel shape and the same scales; got {sorted(kinds)}")
        (shape, scales), *_ = kinds
        stacked = cls(shape, tuple(depths), tuple(mixture.components for mixture in mixtures), scales)
        stacked.to(mixtures[0].device, mixtures[0].dtype)
        for mine, given in zip(stacked.mixtures, mixtures, strict=True):
            mine.load_state_dict(given.state_dict())
        return stacked

    def arguments(self) -> dict[str, Any]:
        mixtures = self._mixtures()
        components = [mixture.components for mixture in mixtures]
        return {"depths": list(self.depths), "components": components, "scales": list(mixtures[0].scales)}

    def describe(self) -> str:
        components = sum(mixture.components for mixture in self._mixtures())
        depths = ", ".join(f"{depth:.2g}" for depth in self.depths)
        return (
            f"Gaussian scale mixtures by relative depth ({depths}), {components} components in all; each layer takes "
            f"that of the depth nearest to its own. {self.describe_size()}"
        )

    def check(self) -> None:
        """Raises ``ValueError`` if one of the mixtures does not describe a density."""
        for depth, mixture in zip(self.depths, self._mixtures(), strict=True):
            try:
                mixture.check()
            except ValueError as error:
                raise ValueError(f"the mixture of depth {depth:g}: {error}") from error

    def at(self, depth: float) -> GaussianMixture:
        """Returns the mixture of the nearest depth; if two are equally near, that of the smaller depth.

        Raises:
            ValueError: ``depth`` is not a number from 0 to 1.
        """
        depth = checked_depth(depth)
        nearest = min(range(len(self.depths)), key=lambda i: abs(self.depths[i] - depth))
        return self._mixtures()[nearest]

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` of unknown depth to the exact log p(w) ``(n,)``, in nats per kernel."""
        each = torch.stack([mixture.log_prob(kernels) for mixture in self._mixtures()])
        return each.logsumexp(0) - math.log(len(self.mixtures))

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        picked = torch.randint(len(self.mixtures), (n,), generator=generator, device=self.device)
        kernels = torch.empty(n, self.dim, device=self.device, dtype=self.dtype)
        for i, mixture in enumerate(self._mixtures()):
            mine = (picked == i).nonzero()[:, 0]
            kernels[mine] = mixture.sample(len(mine), generator).flatten(1)
        return kernels

    def _mixtures(self) -> list[GaussianMixture]:
        return [cast(GaussianMixture, mixture) for mixture in self.mixtures]
