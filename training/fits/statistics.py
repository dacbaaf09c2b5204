"""How samples of a prior differ from held-out kernels: descriptions of a set, distances and tests of two sets."""

import json
import math
from typing import Any

import torch
from torch import Tensor

from dwp_init import Prior
from dwp_init.picture import planes_of
from training.images.split import thin
from training.kernels.kernelset import shuffled

_MOST = 2000
NORM_THINNED = 100_000
EXACT = "donot_use_mm_for_euclid_dist"  # by matrix products, the distance of equal kernels would not be 0
LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def sample_statistics(
    prior: Prior, train: Tensor, test: Tensor, n: int = 10_000, scale: float = 1.0
) -> dict[str, dict[str, Any]]:
    """Describes held-out kernels, draws from the prior, and draws without its noise.

    Args:
        prior: The prior; drawn with a fixed seed.
        train: The kernels ``(n, c, *size)`` that it was fitted to.
        test: The kernels held out for the test, of the same shape.
        n: Number of draws.
        scale: Factor of the draws.

    Returns:
        Rows ``real``, ``drawn`` and, for a prior with noise, ``mean``, all with the keys of :func:`describe` and
        :func:`compare`, to four significant digits; JSON. ``real`` describes the held-out kernels and compares them
        with the training kernels in place of samples, which is what a prior with exactly that law would reach.
    """
    real = compare(train, train, test)
    rows = {"real": describe(test) | real | {"fidelity": real["fidelity_real"]}}
    for label, noise in (("drawn", True), ("mean", False)):
        if noise or prior.has_noise:
            samples = scale * prior.sample(n, torch.Generator(prior.device).manual_seed(0), noise=noise)
            rows[label] = describe(samples) | compare(samples, train, test)
    rounded: dict[str, dict[str, Any]] = json.loads(
        json.dumps(rows), parse_float=lambda text: float(f"{float(text):.4g}")
    )
    return rounded


@torch.no_grad()
def describe(kernels: Tensor) -> dict[str, Any]:
    """Describes one set of kernels.

    Args:
        kernels: ``(n, c, *size)``, 2 or more and not all equal.

    Returns:
        - ``rms``: root mean square.
        - ``norm_5_50_95``: quantiles of the Euclidean norm, in %.
        - ``roughness``: mean squared difference of neighbours along the last two axes over twice the mean square: 1 for
          white noise, 0 for kernels that are flat along both; None where one of them has length 1, and in 1-D.
        - ``autocorrelation``: by lag ``"dy,dx"``, correlation of the values after subtracting each pixel's mean; None
          where a kernel is too small for the lag, or does not vary there.
        - ``variance_shares``: the largest eigenvalues of the covariance, at most 5, over its trace.
        - ``components_90_95_99``: number of eigenvalues that make up that percentage of the variance.
        - ``participation_ratio``: squared sum of the eigenvalues over their sum of squares: d for white noise.

    Raises:
        ValueError: The kernels have another shape, hold NaN or infinity, are fewer than 2 or all equal.
    """
    kernels = _checked(kernels, "kernels")
    shifted = kernels - kernels[:1]
    if not shifted.any():
        raise ValueError(f"all {len(kernels)} kernels are the same, so nothing varies; give 2 or more different ones")
    centred = shifted - shifted.mean(0)
    norms = kernels.flatten(1).norm(dim=1)
    quantiles = torch.quantile(thin(norms, NORM_THINNED), norms.new_tensor([0.05, 0.5, 0.95]))
    return {
        "rms": kernels.square().mean().sqrt().item(),
        "norm_5_50_95": quantiles.tolist(),
        "roughness": _roughness(kernels),
        "autocorrelation": {f"{dy},{dx}": _autocorrelation(centred, dy, dx) for dy, dx in LAGS},
        **_spectrum(centred.flatten(1)),
    }


def _roughness(kernels: Tensor) -> float | None:
    if min(kernels.shape[2:]) < 2:
        return None
    steps = (kernels.diff(dim=2).square().mean() + kernels.diff(dim=3).square().mean()) / 2
    return (steps / (2 * kernels.square().mean())).item()


def _autocorrelation(centred: Tensor, dy: int, dx: int) -> float | None:
    height, width = centred.shape[2:]
    if dy >= height or dx >= width:
        return None
    here, there = centred[:, :, : height - dy, : width - dx], centred[:, :, dy:, dx:]
    scale = here.norm() * there.norm()
    return ((here * there).sum() / scale).item() if scale > 0 else None


def _spectrum(centred: Tensor) -> dict[str, Any]:
    values = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0).flip(0)
    shares = values / values.sum()
    total = shares.cumsum(0)
    return {
        "variance_shares": shares[:5].tolist(),
        "components_90_95_99": [int((total < share - 1e-9).sum()) + 1 for share in (0.9, 0.95, 0.99)],
        "participation_ratio": (1 / shares.square().sum()).item(),
    }


@torch.no_grad()
def compare(samples: Tensor, train: Tensor, held_out: Tensor, most: int = _MOST) -> dict[str, Any]:
    """Compares samples with held-out kernels, and with the kernels that their prior was fitted to.

    Distances are Euclidean. Nearest-neighbour distances depend on the number of kernels to choose from, so as many
    samples as training kernels are used. The two tests use as many samples as held-out kernels. Their standard errors
    hold for independent kernels; kernels of one network are not quite independent.

    Args:
        samples: ``(n, c, *size)``, 2 or more.
        train: Kernels that the prior was fitted to, of the same shape, 2 or more.
        held_out: Kernels of the same law that the prior has not seen, of the same shape, 2 or more.
        most: Maximum number of kernels used of each set, at random; the Fréchet distance uses all.

    Returns:
        - ``frechet``: squared 2-Wasserstein distance of the Gaussians fitted to samples and held-out kernels.
        - ``fidelity``: mean distance of samples to their nearest training kernel.
        - ``coverage``: mean distance of held-out kernels to their nearest sample.
        - ``diversity``: mean distance of samples to their nearest other sample.
        - ``fidelity_real``: mean distance of held-out kernels to their nearest training kernel, the reference for
          fidelity and coverage.
        - ``fidelity_noise`` and ``fidelity_interpolated``: mean distance to their nearest training kernel of white
          noise, and of midpoints of pairs of training kernels; both with the root mean square of these.
        - ``diversity_real``: mean distance of training kernels to their nearest other one, the reference for diversity.
        - ``recall_real`` and ``recall_samples``, ``accuracy``, ``accuracy_deviation`` and ``asymmetry``: the
          leave-one-out 1-NN two-sample test (Lopez-Paz & Oquab 2017). The first three are the shares of held-out
          kernels, of samples and of both whose nearest neighbour is in their own set, 1/2 for the same law; the last
          two are in standard errors, how far the accuracy is above chance, and recall_real above recall_samples. Too
          wide samples raise only recall_real.
        - ``mmd2``: unbiased squared maximum mean discrepancy, with a Gaussian kernel as wide as the median distance.
        - ``compared`` and ``tested``: number of samples in the nearest-neighbour distances, and in the two tests.

    Raises:
        ValueError: A set is not of shape ``(n, c, *size)``, differs in shape from the others, holds NaN or infinity or
            fewer than 2 kernels, or most kernels are equal.
    """
    if most < 2:
        raise ValueError(f"most, the number of kernels compared, must be 2 or more; got {most}")
    samples, train, held_out = _rows(samples=samples, train=train, held_out=held_out)
    compared, tested = (min(most, len(samples), len(part)) for part in (train, held_out))
    drawn, known, unseen = _choose(samples, compared), _choose(train, compared), _choose(held_out, most)
    pooled = torch.cat([_choose(held_out, tested), _choose(samples, tested)])
    distances = torch.cdist(pooled, pooled, compute_mode=EXACT)
    return {
        "frechet": _frechet(samples, held_out),
        "fidelity": _nearest(drawn, known),
        "coverage": _nearest(unseen, drawn),
        "diversity": _nearest(drawn, drawn, rank=2),
        "fidelity_real": _nearest(unseen, known),
        "fidelity_noise": _nearest(_noise_like(known), known),
        "fidelity_interpolated": _nearest(_midpoints(known), known),
        "diversity_real": _nearest(known, known, rank=2),
        **_neighbour_test(distances),
        "mmd2": _squared_mmd(distances),
        "compared": compared,
        "tested": tested,
    }


def _frechet(a: Tensor, b: Tensor) -> float:
    dim = a.shape[1]
    cov_a, cov_b = torch.cov(a.T).view(dim, dim), torch.cov(b.T).view(dim, dim)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def _nearest(a: Tensor, b: Tensor, rank: int = 1) -> float:
    """Mean distance of rows of ``a`` to the nearest of ``b``; rank 2 if both are one set, where each row is at 0."""
    return torch.cdist(a, b, compute_mode=EXACT).kthvalue(rank, dim=1).values.mean().item()


def _noise_like(rows: Tensor) -> Tensor:
    """Returns white noise of the same shape and root mean square."""
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0), dtype=rows.dtype)
    return noise * rows.square().mean().sqrt()


def _midpoints(rows: Tensor) -> Tensor:
    """Returns the midpoint of each row and the one half the set away, scaled to the root mean square of all rows."""
    middles = (rows + rows.roll(len(rows) // 2, 0)) / 2
    norm = middles.norm()
    return middles * (rows.norm() / norm) if norm > 0 else middles


def _neighbour_test(distances: Tensor) -> dict[str, float]:
    """The 1-NN test on the distances ``(2m, 2m)`` of m real kernels and m samples; equally near ones share the vote.

    The standard errors are those under random labels, with the neighbours given. Two votes are correlated if two
    kernels are each other's nearest, so the standard error of the accuracy is larger than that of 2m independent
    guesses. Chance is (m - 1) / (2m - 1), because a kernel is not its own neighbour. The difference of the recalls
    depends on the labels only through the number of votes that each kernel receives.
    """
    m = len(distances) // 2
    others = distances.clone().fill_diagonal_(math.inf)
    votes = (others == others.amin(1, keepdim=True)).to(distances.dtype)
    votes /= votes.sum(1, keepdim=True)
    real, samples = votes[:m, :m].sum().item() / m, votes[m:, m:].sum().item() / m
    accuracy, chance = (real + samples) / 2, (m - 1) / (2 * m - 1)
    error = (votes.square().sum() + (votes * votes.T).sum()).sqrt().item() / (4 * m)
    gap_error = ((votes.sum(0) - 1).square().sum().item() / (2 * m * (2 * m - 1))) ** 0.5
    return {
        "recall_real": real,
        "recall_samples": samples,
        "accuracy": accuracy,
        "accuracy_deviation": (accuracy - chance) / error,
        "asymmetry": (real - samples) / gap_error if gap_error > 0 else 0.0,
    }


def _squared_mmd(distances: Tensor) -> float:
    """Unbiased MMD² from the distances ``(2m, 2m)`` of m real kernels and m samples."""
    m = len(distances) // 2
    width = distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].median()
    if width == 0:
        raise ValueError(f"most of the {m} samples and {m} held-out kernels are the same: their median distance is 0")
    similar = torch.exp(-(distances / width).square() / 2)
    within = similar[:m, :m].sum() + similar[m:, m:].sum() - 2 * m
    return (within / (m * (m - 1)) - 2 * similar[:m, m:].mean()).item()


def _choose(rows: Tensor, most: int) -> Tensor:
    """Returns at most ``most`` of the rows, at random."""
    return rows if len(rows) <= most else rows[shuffled(len(rows), seed=0)[:most]]


def _rows(**sets: Tensor) -> list[Tensor]:
    """Returns sets of kernels of one shape, given by name, as rows ``(n, d)``."""
    checked = {name: _checked(kernels, name) for name, kernels in sets.items()}
    shapes = {name: tuple(kernels.shape[1:]) for name, kernels in checked.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{', '.join(sets)} must hold kernels of one shape; got {found}")
    return [kernels.flatten(1) for kernels in checked.values()]


def _checked(kernels: Tensor, name: str) -> Tensor:
    """Returns kernels in double precision on the CPU; rows as planes of one row, slices as further channels."""
    if kernels.dim() not in (3, 4, 5) or 0 in kernels.shape[1:]:
        raise ValueError(f"{name} must have shape (n, c, *size); got {tuple(kernels.shape)}")
    if len(kernels) < 2:
        raise ValueError(f"{name} holds {len(kernels)} kernels; a covariance and neighbours need 2 or more")
    wrong = (~kernels.isfinite()).flatten(1).any(1).sum().item()
    if wrong:
        raise ValueError(f"{wrong} of {len(kernels)} kernels of {name} hold NaN or infinity; leave them out")
    return planes_of(kernels.detach().cpu().double())
