"""Fast draws from the components of a mixture of Gaussians."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dwp_init.tensors import as_list

FEW = 2**12  # kernels
_NARROW = 16  # numbers that a processor multiplies at a time


class Components:
    """Draws kernels ``loc[k] + s · factor[k] z`` of components k at strengths s, in the order of the components.

    Args:
        weight: Their probabilities ``(k, s)``.
        scales: The strengths s.
        loc: Means ``(k, d)``.
        factor: Factors of the covariances, ``(k, d, d)``.
        many: Whether many kernels will be drawn.
    """

    def __init__(self, weight: Tensor, scales: Sequence[float], loc: Tensor, factor: Tensor, many: bool) -> None:
        self.counts, self.strengths = Multinomial(weight.flatten()), weight.new_tensor(scales).repeat(len(loc))
        self.dim, self.per_component = loc.shape[1], len(scales)
        matrix = factor.mT
        self.one = list(zip(loc, matrix, strict=True))
        self.two = self.one
        if many and self.dim < _NARROW:  # products of rows in pairs are three times as fast
            zero = torch.zeros_like(matrix)
            both = torch.cat([torch.cat([matrix, zero], 2), torch.cat([zero, matrix], 2)], 1)
            self.two = list(zip(loc.repeat(1, 2), both, strict=True))

    def draw(self, white: Tensor, generator: torch.Generator | None, out: Tensor) -> None:
        """Writes kernels to ``out`` that are made of white noise, both ``(n, d)``; the noise is overwritten."""
        counts = self.counts.draw(len(white), generator)
        white *= self.strengths.repeat_interleave(counts.to(white.device), output_size=len(white))[:, None]
        sizes = as_list(counts.view(-1, self.per_component).sum(1))
        parts = zip(white.split(sizes), out.split(sizes), strict=True)
        for one, two, (noise, kernels) in zip(self.one, self.two, parts, strict=True):
            odd = len(noise) % 2 if two is not one else 0
            if odd:
                torch.addmm(one[0], noise[-1:], one[1], out=kernels[-1:])
            even = (rows[: len(rows) - odd].view(-1, len(two[0])) for rows in (noise, kernels))
            torch.addmm(two[0], next(even), two[1], out=next(even))


class Multinomial:
    """Draws how many of n kernels come from each component.

    One draw for each kernel takes almost as long as the kernel itself. Of many kernels a binomial number falls to the
    first half of the components, of those a binomial number to the first half of that half, and so on.

    Args:
        weight: The probabilities of the components, ``(k,)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.shares: list[Tensor] = []  # of the first half in each part, from all components down to pairs

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Returns the numbers, ``(k,)`` on the CPU."""
        count, device = len(self.weight), self.weight.device
        if n < FEW:
            uniform = torch.rand(n, generator=generator, device=device, dtype=self.weight.dtype)
            picked = torch.searchsorted(self.weight.cumsum(0), uniform, right=True).clamp_max_(count - 1)
            return picked.bincount(minlength=count).cpu()
        seed = cast(int, torch.randint(2**62, (), generator=generator, device=device).item())
        source = torch.Generator("cpu").manual_seed(seed)  # because not every device draws binomial numbers
        counts = torch.full((1,), n, dtype=torch.float64, device="cpu")
        self.shares = self.shares or self._halves()
        for share in self.shares:
            first = torch.binomial(counts, share, source)
            counts = torch.stack([first, counts - first], 1).flatten()
        return counts[:count].long()

    def _halves(self) -> list[Tensor]:
        count = len(self.weight)
        level = F.pad(self.weight.to("cpu", torch.float64), (0, (1 << (count - 1).bit_length()) - count))
        shares: list[Tensor] = []
        while len(level) > 1:
            whole = level.view(-1, 2).sum(1)
            shares.append((level[::2] / whole).nan_to_num(0.0))
            level = whole
        return shares[::-1]
