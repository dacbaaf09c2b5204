"""Mixtures of Gaussians, fitted by expectation-maximisation."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.checks import check_count, check_positive, is_int
from dwp_init.priors.components import FEW, Components
from dwp_init.priors.whitening import LOG_2PI, Whitening, check_tril, identity
from dwp_init.split import split

MIN_SCALE = 1e-4


@register
class GaussianMixture(Prior):
    """Describes kernels by a mixture of Gaussians, Σₖₛ πₖₛ N(locₖ, s² Σₖ), with full covariances Σₖ.

    With several ``scales`` each component is a Gaussian scale mixture (Andrews & Mallows 1974): its kernels share a
    shape but not a strength, as trained kernels do. With the one scale 1 this is the usual Gaussian mixture.

    Args:
        kernel_shape: ``(c, *size)``.
        components: Number of pairs of mean and covariance.
        scales: The strengths s of every component.

    References:
        Andrews & Mallows, Scale Mixtures of Normal Distributions, Journal of the Royal Statistical Society B, 1974;
        Ormoneit & Tresp, Improved Gaussian Mixture Density Estimates Using Bayesian Penalty Terms and Network
        Averaging, Advances in Neural Information Processing Systems 8, 1996.
    """

    family: ClassVar[str] = "mixture"
    exact: ClassVar[bool] = True
    weight: Tensor
    loc: Tensor
    scale_tril: Tensor

    def __init__(self, kernel_shape: KernelShape, components: int = 8, scales: Sequence[float] = (1.0,)) -> None:
        super().__init__(kernel_shape)
        check_count(components=components)
        if not isinstance(scales, (tuple, list)) or not scales:
            raise ValueError(f"scales must be one or more positive numbers; got {scales!r}")
        for scale in scales:
            check_positive(scales=scale)
            if scale < MIN_SCALE:
                raise ValueError(f"scales must be {MIN_SCALE} or more; got {scale!r}")
        self.components, self.scales = components, tuple(map(float, scales))
        self.whitening = Whitening(self.dim)
        self.register_buffer("weight", torch.full((components, len(scales)), 1 / (components * len(scales))))
        self.register_buffer("loc", torch.zeros(components, self.dim))
        self.register_buffer("scale_tril", identity(self.dim, components))
        self.chunk = max(2**19 // self.dim, 1)  # what stays in a processor's cache

    def arguments(self) -> dict[str, Any]:
        return {"components": self.components, "scales": list(self.scales)}

    def describe(self) -> str:
        text = f"A mixture of {self.components:,} Gaussian{' scale mixtures' if len(self.scales) > 1 else 's'}"
        text += " with full covariances"
        fit = self.details.get("fit")  # any JSON: the details of a downloaded prior are not trusted
        fits = cast(dict[str, Any], fit).get("restarts") if isinstance(fit, dict) else None
        if is_int(fits) and fits > 1 and self.components % fits == 0:
            text += f": the average of {fits} fits of {self.components // fits} components"
        if len(self.scales) > 1:
            strengths = ", ".join(f"{scale:g}" for scale in self.scales)
            text += f", each component at {len(self.scales)} strengths ({strengths})"
        return f"{text}. {self.describe_size()}"

    def check(self) -> None:
        """Raises ``ValueError`` if the weights are not a distribution or a covariance has no inverse."""
        total = self.weight.sum().item()
        if (self.weight < 0).any() or not abs(total - 1) < 1e-3:
            raise ValueError(
                f"weight must be 0 or more and sum to 1; its minimum is {self.weight.min():.4g}, its sum {total:.4g}"
            )
        check_tril(scale_tril=self.scale_tril)

    @torch.no_grad()
    def fit_(
        self,
        kernels: Tensor,
        shrinkage: float = 30.0,
        steps: int = 200,
        tolerance: float = 1e-3,
        generator: torch.Generator | None = None,
    ) -> "GaussianMixture":
        """Fits by expectation-maximisation from a k-means start, in float64 on whitened kernels.

        The fit is a maximum a posteriori one: besides ``shrinkage``, a tenth of a kernel is added to every weight.

        Args:
            kernels: ``(n, c, *size)``.
            shrinkage: How many kernels the covariance of all kernels counts for in that of each component, a
                conjugate prior. It makes a fit to few kernels possible.
            steps: Maximum number of steps.
            tolerance: Stops when a step gains less log-likelihood, in nats per kernel.
            generator: Source of randomness of the start, on the CPU; PyTorch's global one by default.

        Raises:
            ValueError: There are fewer kernels than components, a covariance has no inverse, or
                :meth:`Whitening.fit_` raises it.
        """
        flat = self._flatten(kernels)
        if len(flat) < self.components:
            raise ValueError(f"{self.components} components need at least as many kernels; got {len(flat)}")
        check_positive(shrinkage=shrinkage)
        check_count(steps=steps)
        self.whitening.fit_(flat)
        white = self.whitening(flat).double()
        share = _k_means(white, self.components, generator)[:, :, None].expand(-1, -1, len(self.scales))
        last = -math.inf
        weight, loc, tril = self._maximize(white, share / len(self.scales), shrinkage)
        for _ in range(steps - 1):
            joint = _joint(white, weight, loc, tril, self.scales)
            total = joint.flatten(1).logsumexp(1)
            before, last = last, total.mean().item()
            if last - before < tolerance:
                break
            weight, loc, tril = self._maximize(white, (joint - total[:, None, None]).exp(), shrinkage)
        self.weight.copy_(weight)
        self.loc.copy_(loc)
        self.scale_tril.copy_(tril)
        return self

    @classmethod
    def average(cls, parts: Sequence["GaussianMixture"]) -> "GaussianMixture":
        """Averages the densities of mixtures fitted to the same kernels, which is a mixture of all their components.

        The average over several starts removes what a single fit has learned by chance (Ormoneit & Tresp 1996).

        Raises:
            ValueError: There are no mixtures, or they differ in kernel shape, scales or whitening.
        """
        if not parts:
            raise ValueError("an average needs at least one mixture; got none")
        first = parts[0]
        for part in parts:
            if (part.kernel_shape, part.scales) != (first.kernel_shape, first.scales):
                raise ValueError(
                    f"an average needs mixtures of one kernel shape and scales; got {first.kernel_shape} with "
                    f"{first.scales} and {part.kernel_shape} with {part.scales}"
                )
            if not all(map(torch.equal, part.whitening.buffers(), first.whitening.buffers())):
                raise ValueError("an average needs mixtures fitted to the same kernels; their whitenings differ")
        average = cls(first.kernel_shape, sum(part.components for part in parts), first.scales)
        average.to(first.device, first.dtype)
        average.whitening.load_state_dict(first.whitening.state_dict())
        average.weight = torch.cat([part.weight for part in parts]) / len(parts)
        average.loc = torch.cat([part.loc for part in parts])
        average.scale_tril = torch.cat([part.scale_tril for part in parts])
        return average

    def _maximize(self, white: Tensor, share: Tensor, shrinkage: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns weights, means and Cholesky factors for responsibilities ``(n, components, scales)``."""
        count = share.sum((0, 2))
        precision = (share / white.new_tensor(self.scales).square()).sum(2)
        loc = (precision.T @ white) / precision.sum(0).clamp_min(1e-12)[:, None]
        eye = torch.eye(white.shape[1], dtype=white.dtype, device=white.device)
        trils: list[Tensor] = []
        for k in range(self.components):
            centred = white - loc[k]
            scatter = (centred * precision[:, k, None]).T @ centred
            tril, failed = torch.linalg.cholesky_ex((scatter + shrinkage * eye) / (count[k] + shrinkage))
            if failed:
                raise ValueError(f"the covariance of component {k} has no inverse; raise shrinkage={shrinkage}")
            trils.append(tril)
        weight = share.sum(0) + 0.1
        return weight / weight.sum(), loc, torch.stack(trils)

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to the exact log p(w) ``(n,)``, in nats per kernel."""
        white = self.whitening(self._flatten(kernels))
        parts = [
            _joint(part, self.weight, self.loc, self.scale_tril, self.scales).flatten(1).logsumexp(1)
            for part in split(white, max(2**23 // self.weight.numel(), 1))
        ]
        return torch.cat(parts) - self.whitening.log_det()

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        kernels = self.loc.new_empty(n, self.dim)
        self._fill(kernels, generator, noise)
        return kernels

    def _fill(self, kernels: Tensor, generator: torch.Generator | None, noise: bool) -> None:
        """Draws the number of kernels of each component, then these kernels component by component, and shuffles."""
        factor = self.whitening.basis * self.whitening.scale @ self.scale_tril
        components = Components(self.weight, self.scales, self.whitening.inverse(self.loc), factor, len(kernels) > FEW)
        white, ordered = kernels.new_empty(2, min(len(kernels), self.chunk), self.dim)
        for part in split(kernels, self.chunk):
            n = len(part)
            components.draw(white[:n].normal_(generator=generator), generator, out=ordered[:n])
            order = torch.randperm(n, generator=generator, device=kernels.device)
            torch.index_select(ordered[:n], 0, order, out=part)


def _joint(white: Tensor, weight: Tensor, loc: Tensor, tril: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Maps whitened kernels ``(n, d)`` to log πₖₛ N(u; locₖ, s² Σₖ), ``(n, components, scales)``."""
    scale, dim = white.new_tensor(scales), white.shape[1]
    eye = torch.eye(dim, dtype=tril.dtype, device=tril.device)
    inverse = cast(Tensor, torch.linalg.solve_triangular(tril, eye, upper=False))
    parts = torch.split(white, max(2**22 // loc.numel(), 1))  # bounds the memory of (components, n, d)
    distance = torch.cat([((part - loc[:, None]) @ inverse.mT).square().sum(2).T for part in parts])
    constant = -0.5 * dim * LOG_2PI - tril.diagonal(dim1=1, dim2=2).log().sum(1)[:, None] - dim * scale.log()
    return weight.log() + constant - 0.5 * distance[:, :, None] / scale.square()


def _k_means(white: Tensor, components: int, generator: torch.Generator | None, steps: int = 20) -> Tensor:
    """Returns one-hot memberships ``(n, components)`` of k-means on the kernels' directions."""
    points = F.normalize(white)
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centres = points[order[:components]]

    def nearest() -> Tensor:
        return F.one_hot(torch.cdist(points, centres).argmin(1), components).to(points)

    member = nearest()
    for _ in range(steps - 1):
        sizes = member.sum(0)[:, None]
        centres = torch.where(sizes > 0, member.T @ points / sizes.clamp_min(1), centres)
        member = nearest()
    return member
