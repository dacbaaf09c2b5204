"""The fit of Gaussian scale mixtures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from tqdm import tqdm

from dwp_init import GaussianMixture, Prior
from training.engine.options import check_counts
from training.engine.records import record_metrics, write_metrics
from training.engine.workers import Progress
from training.fits.base import Fit, either, has_form, register_fit
from training.fits.score import score
from training.images.split import thin
from training.kernels.kernelset import KernelSet

STRENGTHS = (0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7)  # of the components of a scale mixture


@register_fit
@dataclass(frozen=True)
class FitMixture(Fit):
    """Fits Gaussian scale mixtures and keeps the one with the highest log p of the validation kernels.

    Args:
        components: Numbers of components to try; those above the number of kernels are left out.
        shrinkages: Strengths of the pull to the covariance of all kernels to try, in kernels.
        scales: Strengths of each component; 1 alone is the usual mixture.
        restarts: Number of fits from different starts whose densities are averaged. The average is a mixture again,
            with ``restarts`` times as many components.
        most: Maximum number of fitting kernels used, evenly spaced.
    """

    components: tuple[int, ...] = (6, 8, 10)
    shrinkages: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
    scales: tuple[float, ...] = STRENGTHS
    restarts: int = 8
    most: int = 20_000
    family: ClassVar[str] = "mixture"

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        if not has_form(settings, components=list, shrinkages=list, restarts=int, most=int):
            return ""
        return (
            f"expectation-maximisation with {either(settings['components'], 'component')} and a shrinkage of "
            f"{either(settings['shrinkages'], 'kernel')}{cls._origin(settings)}, the best on the validation kernels; "
            f"at most {settings['most']:,} kernels"
        )

    @classmethod
    def _origin(cls, settings: Mapping[str, Any]) -> str:
        """Says what each mixture of the grid is fitted to and averaged from, where that is not the usual."""
        return ""

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        write_metrics(folder, [])  # an interrupted fit starts again
        return self.best(kernels, folder)

    def best(self, kernels: KernelSet, folder: Path, **labels: int) -> GaussianMixture:
        """Fits every mixture of the grid and returns the one that is best on the validation kernels.

        Args:
            kernels: The kernels.
            folder: The stage's folder, where each fit is recorded in ``metrics.jsonl``.
            labels: Further keys of these records.

        Raises:
            ValueError: There are fewer kernels than components, or no fit has a finite log p.
        """
        check_counts(restarts=self.restarts, most=self.most)
        kernels = replace(kernels, train=thin(kernels.train, self.most))
        most = len(kernels.train)
        grid = [(count, pull) for count in self.components if count <= most for pull in self.shrinkages]
        if not grid:
            raise ValueError(
                f"{min(self.components)} components need as many kernels to fit; there are {most}: "
                f"lower components={self.components}"
            )
        best, best_value = None, -math.inf
        with tqdm(total=len(grid) * self.restarts, desc=self.name, unit="fit") as bar:
            for components, shrinkage in grid:
                mixture = self._average(kernels, components, shrinkage, bar.update)
                value = score(mixture, kernels.validation)[1]["log_prob"]
                record_metrics(folder, **labels, components=components, shrinkage=shrinkage, validation_log_prob=value)
                if value > best_value:
                    best, best_value = mixture, value
        if best is None:
            raise ValueError(
                f"no mixture of {self.name!r} gives the validation kernels a finite log p; their norms reach "
                f"{kernels.validation.flatten(1).norm(dim=1).max():.4g}: remove outliers"
            )
        return best

    def _average(self, kernels: KernelSet, components: int, shrinkage: float, progress: Progress) -> GaussianMixture:
        parts = []
        for restart in range(self.restarts):
            generator = torch.Generator().manual_seed(self.seed * 1009 + restart)
            part = GaussianMixture(kernels.kernel_shape, components, self.scales)
            parts.append(part.fit_(kernels.train, shrinkage, generator=generator))
            progress(1)
        return GaussianMixture.average(parts)
