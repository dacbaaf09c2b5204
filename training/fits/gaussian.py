"""The fit of the full-covariance Gaussian."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from dwp_init import Gaussian
from training.fits.base import Fit, register_fit
from training.kernels.kernelset import KernelSet


@register_fit
@dataclass(frozen=True)
class FitGaussian(Fit):
    """Fits the full-covariance Gaussian by maximum likelihood."""

    family: ClassVar[str] = "gaussian"

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        return "maximum likelihood"

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Gaussian:
        return Gaussian(kernels.kernel_shape).fit_(kernels.train)
