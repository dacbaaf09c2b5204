"""How a prior's samples differ from held-out kernels: one set's description, two sets' distances, two-sample tests."""

import math
from typing import Any

import torch
from torch import Tensor

from dwp_init import Prior

MOST = 2000
CHUNK = 512
NORM_THINNED = 100_000
EXACT = "donot_use_mm_for_euclid_dist"  # by matrix products, the distance of equal kernels would not be 0
LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def sample_statistics(prior: Prior, train: Tensor, test: Tensor, n: int = 10_000) -> dict[str, dict[str, Any]]:
    """Describes held-out kernels, draws from the prior, and draws without its noise, side by side.

    Args:
        prior: The prior; drawn with a fixed seed.
        train: The kernels ``(n, c, k, k)`` that it was fitted to.
        test: Those held out for the test.
        n: Draws.

    Returns:
        Rows ``real``, ``drawn`` and, for a prior with noise, ``mean``, all with the keys of :func:`describe` and
        :func:`compare`, to four significant digits; JSON. ``real`` describes the held-out kernels, and compares them
        with the training kernels in the samples' place: what a prior would reach that draws new kernels of that law.
    """
    real = compare(train, train, test)
    rows = {"real": describe(test) | real | {"fidelity": real["fidelity_real"]}}
    for label, noise in (("drawn", True), ("mean", False)):
        if noise or prior.has_noise:
            samples = prior.sample(n, torch.Generator(prior.device).manual_seed(0), noise=noise)
            rows[label] = describe(samples) | compare(samples, train, test)
    return _rounded(rows)


@torch.no_grad()
def describe(kernels: Tensor) -> dict[str, Any]:
    """Describes one set of kernels.

    Args:
        kernels: ``(n, c, k, k)``, 2 or more and not all the same.

    Returns:
        - ``rms``: root mean square.
        - ``norm_5_50_95``: quantiles of the Euclidean norm, in %.
        - ``roughness``: mean squared difference of neighbours over twice the mean square: 1 for white noise, 0 for
          flat kernels; None where a kernel is one pixel.
        - ``autocorrelation``: by lag ``"dy,dx"``, correlation of the values less each pixel's mean; None where a kernel
          is too small for the lag, or does not vary there.
        - ``variance_shares``: the largest eigenvalues of the covariance, 5 at most, over its trace.
        - ``components_90_95_99``: how many eigenvalues make up that percentage of the variance.
        - ``participation_ratio``: squared sum of the eigenvalues over their sum of squares: d for white noise.

    Raises:
        ValueError: The kernels have another shape, hold NaN or infinity, are fewer than 2 or all the same.
    """
    kernels = _checked(kernels, "kernels")
    shifted = kernels - kernels[:1]
    if not shifted.any():
        raise ValueError(f"all {len(kernels)} kernels are the same, so nothing varies; give 2 or more different ones")
    centred = shifted - shifted.mean(0)
    norms = kernels.flatten(1).norm(dim=1)
    quantiles = torch.quantile(norms[:: -(-len(norms) // NORM_THINNED)], norms.new_tensor([0.05, 0.5, 0.95]))
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
def compare(samples: Tensor, train: Tensor, held_out: Tensor, most: int = MOST, seed: int = 0) -> dict[str, Any]:
    """Compares samples with held-out kernels, and with the kernels that their prior was fitted to.

    Distances are Euclidean. Nearest-neighbour figures depend on how many kernels there are to choose from, so as many
    samples as training kernels are used. In the two tests there are as many samples as held-out kernels. Their
    standard errors hold for independent kernels; those of one network are not quite.

    Args:
        samples: ``(n, c, k, k)``, 2 or more.
        train: Kernels that the prior was fitted to, likewise.
        held_out: Kernels of the same law that it has not seen, likewise.
        most: How many of each set are used at the most, except for the Fréchet distance, which uses all.
        seed: Of the choice among more.

    Returns:
        - ``frechet``: :func:`frechet_distance` of samples and held-out kernels.
        - ``fidelity``: mean distance of samples to their nearest training kernel.
        - ``coverage``: mean distance of held-out kernels to their nearest sample.
        - ``diversity``: mean distance of samples to their nearest other sample.
        - ``fidelity_real``: of held-out to training kernels, the measure for fidelity and coverage.
        - ``diversity_real``: of training kernels to others, the measure for diversity.
        - ``recall_real`` and ``recall_samples``, ``accuracy``, ``accuracy_deviation`` and ``asymmetry``: the
          leave-one-out 1-NN two-sample test (Lopez-Paz & Oquab 2017): the share of held-out kernels, of samples and
          of all whose nearest neighbour is of their own set, 1/2 for the same law; in standard errors, how far the
          accuracy is above chance, and recall_real above recall_samples. Samples too wide raise only the latter.
        - ``mmd2``: unbiased squared maximum mean discrepancy, Gaussian kernel as wide as the median distance.
        - ``compared`` and ``tested``: samples in the neighbour figures, and in the two tests.

    Raises:
        ValueError: The sets have other or different shapes, hold NaN or infinity, are fewer than 2 or all one kernel.
    """
    if most < 2:
        raise ValueError(f"most, the number of kernels compared, must be 2 or more; got {most}")
    samples, train, held_out = _rows(samples=samples, train=train, held_out=held_out)
    compared, tested = (min(most, len(samples), len(part)) for part in (train, held_out))
    among = [_choose(samples, compared, seed), _choose(train, compared, seed), _choose(held_out, most, seed)]
    pooled = torch.cat([_choose(held_out, tested, seed), _choose(samples, tested, seed)])
    distances = torch.cdist(pooled, pooled, compute_mode=EXACT)
    return {
        "frechet": _frechet(samples, held_out),
        **_neighbours(*among),
        **_neighbour_test(distances),
        "mmd2": _squared_mmd(distances),
        "compared": compared,
        "tested": tested,
    }


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared 2-Wasserstein distance of the Gaussians fitted to two sets of kernels.

    Args:
        a: ``(n, c, k, k)``, 2 or more.
        b: ``(m, c, k, k)``, likewise.

    Raises:
        ValueError: The sets have other or different shapes, hold NaN or infinity or fewer than 2 kernels.
    """
    return _frechet(*_rows(a=a, b=b))


def _frechet(a: Tensor, b: Tensor) -> float:
    dim = a.shape[1]
    cov_a, cov_b = torch.cov(a.T).view(dim, dim), torch.cov(b.T).view(dim, dim)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(distance.item(), 0.0)


def _neighbours(samples: Tensor, train: Tensor, held_out: Tensor) -> dict[str, float]:
    return {
        "fidelity": _nearest(samples, train),
        "coverage": _nearest(held_out, samples),
        "diversity": _nearest(samples, samples, rank=2),
        "fidelity_real": _nearest(held_out, train),
        "diversity_real": _nearest(train, train, rank=2),
    }


def _nearest(a: Tensor, b: Tensor, rank: int = 1) -> float:
    """Mean distance of a's rows to their nearest of b; rank 2 where b is a, for each row is its own nearest."""
    parts = [torch.cdist(part, b, compute_mode=EXACT).kthvalue(rank, dim=1).values for part in a.split(CHUNK)]
    return torch.cat(parts).mean().item()


def _neighbour_test(distances: Tensor) -> dict[str, float]:
    """The 1-NN test on the distances ``(2m, 2m)`` of m real kernels and m samples; equally near ones share the vote.

    The standard errors are those under random labels, given who is whose neighbour. Two votes are correlated where
    two kernels are each other's nearest, so the accuracy's is larger than that of 2m independent guesses; chance is
    (m - 1) / (2m - 1), for a kernel is not its own neighbour. The recalls' difference depends on labels only through
    how many votes each kernel receives.
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


def _choose(rows: Tensor, most: int, seed: int) -> Tensor:
    """At most that many rows, at random."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]


def _rows(**sets: Tensor) -> list[Tensor]:
    """Sets of kernels of one shape, by name, as rows ``(n, d)``."""
    checked = {name: _checked(kernels, name) for name, kernels in sets.items()}
    shapes = {name: tuple(kernels.shape[1:]) for name, kernels in checked.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{', '.join(sets)} must hold kernels of one shape; got {found}")
    return [kernels.flatten(1) for kernels in checked.values()]


def _checked(kernels: Tensor, name: str) -> Tensor:
    """Kernels in double precision on the CPU."""
    if kernels.dim() != 4 or 0 in kernels.shape[1:]:
        raise ValueError(f"{name} must have shape (n, c, k, k); got {tuple(kernels.shape)}")
    if len(kernels) < 2:
        raise ValueError(f"{name} holds {len(kernels)} kernels; a covariance and neighbours need 2 or more")
    wrong = (~kernels.isfinite()).flatten(1).any(1).sum().item()
    if wrong:
        raise ValueError(f"{wrong} of {len(kernels)} kernels of {name} hold NaN or infinity; leave them out")
    return kernels.detach().cpu().double()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
