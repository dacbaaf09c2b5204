"""The fit of the kernel density."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from dwp_init import KernelDensity
from training.engine.options import check_counts
from training.fits.base import Fit, has_form, register_fit
from training.images.split import thin
from training.kernels.kernelset import KernelSet


@register_fit
@dataclass(frozen=True)
class FitDensity(Fit):
    """Keeps learned kernels and picks the bandwidth of their kernel density on the validation kernels.

    Args:
        most: Maximum number of kernels kept, evenly spaced.
    """

    most: int = 10_000
    family: ClassVar[str] = "kde"

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        if not has_form(settings, most=int):
            return ""
        return f"the bandwidth that is best on the validation kernels; at most {settings['most']:,} kernels kept"

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> KernelDensity:
        check_counts(most=self.most)
        kept = thin(kernels.train, self.most)
        return KernelDensity(kernels.kernel_shape, len(kept)).fit_(kept, kernels.validation)
