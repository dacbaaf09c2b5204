"""The fit of filters that whiten patches: to images, not to kernels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import dwp_init
from dwp_init import PatchWhitening, save_prior
from training.engine.options import check_counts
from training.engine.stage import Context, Stage
from training.fits.score import FITTED
from training.images.own import data_of


@dataclass(frozen=True)
class FitPatches(Stage):
    """Fits the covariances between the pixels of training images and saves the prior of their stems under ``prior/``.

    Args:
        name: Name of the prior.
        data: The images.
        span: Number of different distances along each axis, 0 included, between which covariances are kept.
        kernel_size: Size of the kernels that the prior has unless a layer asks for others.
    """

    name: str = "my-stem"
    data: str = "tinyimagenet32-a"
    span: int = 16
    kernel_size: int = 7

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(span=self.span, kernel_size=self.kernel_size)
        images = context.images(self.data, "train")
        values, _ = images.to(context.device)
        count, channels, *size = values.shape
        if min(size) < self.span:
            raise ValueError(
                f"{self.data} has images of {size[0]}×{size[1]}; span must be at most that, got {self.span}"
            )
        shape = (channels, self.kernel_size, self.kernel_size)
        prior = PatchWhitening(shape, channels, (self.span, self.span)).fit_(values).cpu().eval()
        prior.details = {
            "name": self.name,
            "license": data_of(self.data).get("license", "MIT"),
            "source": {**data_of(self.data), "fitted_images": count, "synthetic": context.smoke, "kind": "stem"},
            "fit": {"span": self.span},
            "created_with": {"dwp_init": dwp_init.__version__, "torch": torch.__version__},
        }
        save_prior(prior, folder / FITTED)
        return {"family": prior.family, "images": count}
