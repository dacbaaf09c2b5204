"""Filters that whiten the patches of images: what a stem needs, without any training."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from dwp_init.priors.base import KernelShape, Prior, register
from dwp_init.priors.checks import check_count, check_generator
from dwp_init.priors.gaussian import Gaussian
from dwp_init.priors.stationary import autocovariance, of_channels
from dwp_init.priors.whitening import identity, standard_normal_log_prob
from dwp_init.report import size_text
from dwp_init.tensors import exact

RIDGE = 5e-4
"""The least that is added to the eigenvalues of a covariance of patches, as a part of their mean."""
MOST_NOISE = 4.0
"""The most by which filters strengthen white inputs more than images of the same variance."""
DIRECTIONS = 16
"""The most different directions that a layer of few filters has before an opposite; a quarter of all at most."""
MOST_CHANNELS = 16
"""Largest number of input channels of a stem whose filters are made."""
LARGEST_PATCH = 4096
"""Largest number of values in a patch, because their covariance is decomposed."""
_APART = 1e-7  # between values that would be equal in the diagonal of a covariance, as a part of its mean eigenvalue
_ALIKE = 0.99  # cosine from which on filters are the same; rounding to bfloat16 leaves 0.9999
_HALVINGS = 60  # of the interval in which the ridge is looked for


@register
class PatchWhitening(Prior):
    """Describes the filters of a stem by N(0, Σ⁻¹ / d), where Σ is the covariance of the patches of images.

    Σ is stationary: it is made of the covariances C(Δ) between the channels of two pixels that are Δ apart, and a ridge
    ε is added on the diagonal; d = c·h·w in 2-D. Thus one fit gives filters of any size and dilation whose taps are
    less than ``span`` pixels apart, see :meth:`shaped`. For another number of channels than that of the images, every
    channel has their mean covariance with itself, and two different ones have their mean covariance with each other; a
    single channel is the mean of the images' channels.

    :meth:`sample` draws independent filters. :meth:`sample_layer` draws those of a layer together, so that their
    outputs are uncorrelated on such images: ± vᵢ / √λᵢ, where λᵢ and vᵢ are the eigenvalues and eigenvectors of Σ,
    from the largest on; filters beyond 2 d are random rotations of all of these, also in pairs. The pairs of a
    narrow layer would see too little of an image: among less than 2 k filters, where k is :data:`DIRECTIONS` or d / 4,
    the smaller of the two, the first k are different directions, with random signs, and the others their opposites. The
    order of filters is random.

    Without ε the differences between colours of small patches, in which images have next to no power, would have by
    far the largest filters, which answer noise. ε is the smallest number from :data:`RIDGE` times the mean eigenvalue
    on with which all filters together strengthen white inputs at most :data:`MOST_NOISE` times as much as images.

    Args:
        kernel_shape: ``(c, *size)``.
        channels: Number of channels of the images; ``c`` by default.
        span: Number of different distances along each axis, 0 included, between which covariances are kept; ``size`` by
            default.
        dilation: Distance of neighbouring taps along each axis; 1 by default.

    Reference: Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU, 2024, takes these filters for the stem, from
    the patches of the training images. The images here may be any.
    """

    family: ClassVar[str] = "patch-whitening"
    exact: ClassVar[bool] = True
    joint: ClassVar[bool] = True
    meant_for: ClassVar[str] = (
        "images of mean 0 whose neighbouring pixels are alike, such as photographs; white noise they strengthen up to "
        f"{MOST_NOISE:g} times as much"
    )
    covariance: Tensor

    def __init__(
        self,
        kernel_shape: KernelShape,
        channels: int | None = None,
        span: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
    ) -> None:
        super().__init__(kernel_shape)
        own, *size = self.kernel_shape
        self.channels = own if channels is None else channels
        check_count(channels=self.channels)
        self.span = _per_axis("span", size if span is None else span, len(size))
        self.dilation = _per_axis("dilation", [1] * len(size) if dilation is None else dilation, len(size))
        if not self._fits(self.kernel_shape, self.dilation):
            raise ValueError(
                f"kernel_shape must have at most {MOST_CHANNELS} channels and {LARGEST_PATCH} numbers, with taps less "
                f"than {self.span} apart; got {self.kernel_shape} with dilation {self.dilation}"
            )
        covariance = torch.zeros(self.channels, self.channels, *(2 * each - 1 for each in self.span))
        self._at_centre(covariance).copy_(identity(self.channels))
        self.register_buffer("covariance", covariance)
        self._known: tuple[Tensor, Tensor, Tensor] | None = None  # covariances, and what _eigen makes of them

    def arguments(self) -> dict[str, Any]:
        return {"channels": self.channels, "span": list(self.span), "dilation": list(self.dilation)}

    def describe(self) -> str:
        span = "×".join(map(str, self.span))
        return (
            f"Filters that whiten the patches of images, from the covariances of pixels less than {span} apart; for "
            f"stems of any kernel size and dilation within that, and up to {MOST_CHANNELS} channels. "
            f"{self.describe_size()}"
        )

    @property
    def kernels_text(self) -> str:
        return f"up to {size_text(self.span)}"

    def shaped(self, kernel_shape: KernelShape, dilation: Sequence[int]) -> "PatchWhitening | None":
        """Returns the filters of another shape.

        ``None`` if they have another number of axes, taps that are too far apart, or too many channels or numbers.
        """
        if len(kernel_shape) != len(self.kernel_shape) or not self._fits(kernel_shape, dilation):
            return None
        other = PatchWhitening(tuple(kernel_shape), self.channels, self.span, tuple(dilation))
        other.covariance, other.details = self.covariance, self.details
        return other.train(self.training)

    def check(self) -> None:
        """Raises ``ValueError`` if the covariances are not those of images."""
        variances = self._at_centre(self.covariance).diagonal()
        if not (variances > 0).all():
            raise ValueError(f"the variances of channels must be above 0; the smallest is {variances.min():.4g}")
        mirrored = self.covariance.transpose(0, 1).flip(*range(2, self.covariance.dim()))
        error = (self.covariance - mirrored).abs().max().item()
        if error > 1e-3 * variances.max().item():
            raise ValueError(f"covariances must be the same in both directions; they differ by up to {error:.3g}")

    @torch.no_grad()
    def fit_(self, images: Tensor) -> "PatchWhitening":
        """Fits the covariances to images ``(n, channels, *size)``, whose channels are brought to mean 0 and variance 1.

        Raises:
            ValueError: There are no images, they have other channels or are smaller than ``span``, or a channel is
                constant.
        """
        shape = tuple(images.shape)
        is_short = any(have < need for have, need in zip(shape[2:], self.span, strict=False))
        if len(shape) != 2 + len(self.span) or shape[1] != self.channels or is_short or not shape[0]:
            expected = "×".join(map(str, self.span))
            raise ValueError(f"images must be (n, {self.channels}, *size), {expected} or larger; got {shape}")
        axes = (0, *range(2, images.dim()))
        values = images.double()
        values = values - values.mean(axes, keepdim=True)
        variances = values.square().mean(axes, keepdim=True)
        if not (variances > 0).all():
            raise ValueError(f"each channel of the images must vary; the smallest variance is {variances.min():.4g}")
        self.covariance.copy_(autocovariance(values / variances.sqrt(), self.span))
        return self

    def log_prob(self, kernels: Tensor) -> Tensor:
        """Maps kernels ``(n, c, *size)`` to the exact log p(w) ``(n,)``, in nats per kernel."""
        flat = self._flatten(kernels)
        wide = exact(flat)
        basis, scale = (part.to(wide.device) for part in self._eigen())
        return (standard_normal_log_prob(wide @ (basis / scale)) - scale.log().sum()).to(flat)

    def gaussian(self) -> Gaussian:
        """Returns the same law, N(0, Σ⁻¹ / d), as a :class:`dwp_init.Gaussian` on the prior's device."""
        found = Gaussian(self.kernel_shape).to(self.device, self.dtype)
        basis, scale = self._eigen()
        found.whitening.basis.copy_(basis)
        found.whitening.scale.copy_(scale)
        return found

    def sample_layer(self, n: int, generator: torch.Generator | None = None, *, noise: bool = True) -> Tensor:
        """Draws the n filters ``(n, c, *size)`` of a layer, as the class describes."""
        check_generator(generator)
        basis, scale = self._eigen()
        filters = (basis * scale * self.dim**0.5).mT.to(self.device, self.dtype)
        if n < 2 * (few := self._directions):
            heads = torch.rand(few, 1, generator=generator, device=self.device) < 0.5
            first = torch.where(heads, filters[:few], -filters[:few])
            found = [first, -first]
        else:
            found = [_with_opposites(filters)]
            while 2 * self.dim * len(found) < n:
                rotation = torch.randn(self.dim, self.dim, generator=generator, device=self.device, dtype=self.dtype)
                found.append(_with_opposites(_orthogonal(rotation) @ filters))
        order = torch.randperm(n, generator=generator, device=self.device)
        return torch.cat(found)[:n][order].reshape(n, *self.kernel_shape)

    def drew(self, filters: Tensor) -> bool:
        """Whether filters ``(n, c, *size)`` are the n first ones of :meth:`sample_layer`, or all of them and others."""
        rows = nn.functional.normalize(filters.flatten(1).to("cpu", torch.float64))
        cosines = rows @ self._eigen()[0]
        found = torch.stack([(cosines > _ALIKE).any(0), (cosines < -_ALIKE).any(0)], 1)
        if (n := len(rows)) >= 2 * (few := self._directions):
            return bool(found.flatten()[:n].all())
        return bool(found[: min(n, few)].any(1).all()) and int(found[:few].sum()) == n

    def _draw(self, n: int, generator: torch.Generator | None, noise: bool) -> Tensor:
        basis, scale = self._eigen()
        white = torch.randn(n, self.dim, generator=generator, device=self.device, dtype=self.dtype)
        return white @ (basis * scale).mT.to(white)

    @property
    def _directions(self) -> int:
        return min(DIRECTIONS, self.dim // 4)

    def _at_centre(self, covariance: Tensor) -> Tensor:
        """Returns the covariances of channels of the same pixel, ``(channels, channels)``."""
        for limit in self.span:
            covariance = covariance.select(2, limit - 1)
        return covariance

    def _fits(self, kernel_shape: Sequence[int], dilation: Sequence[int]) -> bool:
        channels, *size = kernel_shape
        reaches = [(k - 1) * by for k, by in zip(size, dilation, strict=True)]
        far = any(reach >= limit for reach, limit in zip(reaches, self.span, strict=True))
        return not far and channels <= MOST_CHANNELS and torch.Size(kernel_shape).numel() <= LARGEST_PATCH

    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Returns the eigenvectors of Σ as columns, those of the largest eigenvalues first, and 1 / √(d λᵢ).

        They are kept for the covariances that they were made from, because each density needs them.

        Eigenvalues that are equal, as of two differences between four channels, are set apart by next to nothing:
        otherwise it would depend on the library which rotation of their eigenvectors is returned.
        """
        covariance = self.covariance.detach().to("cpu", torch.float64)
        if self._known is None or not torch.equal(self._known[0], covariance):
            self._known = covariance.clone(), *self._decomposed(covariance)
        return self._known[1:]

    def _decomposed(self, covariance: Tensor) -> tuple[Tensor, Tensor]:
        patches = self._patches(covariance)
        apart = patches.diagonal().mean() * _APART * torch.arange(self.dim, device="cpu")
        values, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(patches + apart.diag()))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        large = vectors.abs() > 0.5 * vectors.abs().amax(0)  # the largest may occur twice, with both signs
        first = vectors.gather(0, large.int().argmax(0, keepdim=True))
        return vectors * first.sign(), (self.dim * (values + _ridge(values))).rsqrt()  # libraries differ in these signs

    def _patches(self, covariance: Tensor) -> Tensor:
        """Returns the covariance of patches, ``(d, d)``, in float64 on the CPU, without the ridge."""
        channels, *size = self.kernel_shape
        found = of_channels(covariance, channels)
        for k, by, limit in zip(size, self.dilation, self.span, strict=True):  # an axis of lags becomes two of taps
            places = torch.arange(k, device="cpu") * by
            found = found.movedim(2, -1)[..., places - places[:, None] + limit - 1]
        rank = len(size)
        order = [0, *range(2, 2 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2)]
        return found.permute(order).reshape(self.dim, self.dim)


def _ridge(values: Tensor) -> Tensor:
    """Returns ε for eigenvalues λ ``(d,)``, such that Σ mean(λ) / (λᵢ + ε) ≤ ``MOST_NOISE``² Σ λᵢ / (λᵢ + ε)."""
    mean = values.mean()
    low, high = RIDGE, 1 / RIDGE
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        inverse = (values + middle * mean).reciprocal()
        is_loud = mean * inverse.sum() > MOST_NOISE**2 * (values * inverse).sum()
        low, high = (middle, high) if is_loud else (low, middle)
    return high * mean


def _per_axis(name: str, given: object, rank: int) -> tuple[int, ...]:
    """Returns a number for each axis; raises ``ValueError`` unless they are whole and above 0."""
    values = cast(Sequence[object], given) if isinstance(given, (tuple, list)) else ()
    if len(values) != rank:
        raise ValueError(f"{name} must have a number for each of the {rank} axes of a kernel; got {given!r}")
    for value in values:
        check_count(**{name: value})
    return tuple(cast(Sequence[int], values))


def _with_opposites(filters: Tensor) -> Tensor:
    return torch.stack([filters, -filters], 1).flatten(0, 1)


def _orthogonal(square: Tensor) -> Tensor:
    q, r = cast(tuple[Tensor, Tensor], torch.linalg.qr(square.to("cpu", torch.float64)))
    return (q * r.diagonal().sign()).to(square)
