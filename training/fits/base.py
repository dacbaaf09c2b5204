"""What all fits share: a fit is a stage that turns kernels into a prior of one family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import save

import dwp_init
from dwp_init import Gaussian, Prior, load_prior, save_prior
from dwp_init.storage import remove, write_bytes
from training.engine.records import read_done
from training.engine.stage import Context, Stage
from training.fits.authors import UNSTATED
from training.fits.score import FITTED, SCORES, SMOKE, score
from training.fits.statistics import sample_statistics
from training.fits.warn import warn_if_few, warn_if_worse_than_noise, white_noise_log_prob
from training.images.own import UNLICENSED
from training.kernels.kernelset import KernelSet

CHECKPOINT = "checkpoint.pt"
LARGEST_NUMBER = 1e15  # of recorded settings
_NOT_RECORDED = ("needs", "name", "evaluate_every")

FITS: "dict[str, type[Fit]]" = {}
AnyFit = TypeVar("AnyFit", bound="type[Fit]")


def register_fit(fit: AnyFit) -> AnyFit:
    """Enters a class into :data:`FITS` under its ``family``; a decorator.

    Raises:
        ValueError: Another class has that family.
    """
    taken = FITS.setdefault(fit.family, fit)
    if taken is not fit:
        raise ValueError(f"the family {fit.family!r} is fitted by {taken.__name__}; give {fit.__name__} another family")
    return fit


@dataclass(frozen=True)
class Fit(Stage):
    """Fits one prior to a kernel data set and saves it under ``prior/``.

    Args:
        needs: The stage with the kernels.
        name: Name of the prior.
        seed: Seed of the initialisation, the order of the kernels and the noise.

    Attributes:
        family: Name of the family, as in a prior's ``config.json``.
    """

    needs: tuple[str, ...] = ("kernels",)
    name: str = "my-prior"
    seed: int = 0
    family: ClassVar[str]

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        """Says how a prior of this family was fitted, for its card.

        Args:
            settings: The settings recorded with the prior. They can be any JSON, because priors come from anywhere.

        Returns:
            A phrase of plain text; empty where the settings are not those of this fit.
        """
        raise NotImplementedError

    def fit(self, kernels: KernelSet, folder: Path, device: torch.device) -> Prior:
        """Returns the prior fitted to ``kernels.train``, with choices made on ``kernels.validation``."""
        raise NotImplementedError

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        kernels = KernelSet.load(context.out / self.needs[0])
        warn_if_few(self.name, kernels.train)
        torch.manual_seed(self.seed)
        return self.keep(self.fit(kernels, folder, context.device).eval(), kernels, folder, context)

    def keep(
        self, prior: Prior, kernels: KernelSet, folder: Path, context: Context, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Scores a fitted prior on the test kernels and saves it with a record of what it was made from.

        Returns the stage's summary. ``more`` are further metrics to record.
        """
        effort = SMOKE if context.smoke else {}
        values, metrics = score(prior, kernels.test, **effort)
        write_bytes(folder / SCORES, save({"log_prob": values}))
        control = Gaussian(prior.kernel_shape).fit_(kernels.train)
        metrics |= {"gaussian_log_prob": score(control, kernels.test, **effort)[1]["log_prob"], **(more or {})}
        prior.cpu()
        metrics["white_noise_log_prob"] = white_noise_log_prob(kernels.train, kernels.test)
        warn_if_worse_than_noise(self.name, metrics["log_prob"], metrics["white_noise_log_prob"])
        metrics["samples"] = sample_statistics(prior, kernels.train, kernels.test, 1000 if context.smoke else 10_000)
        source = self._source(context)
        prior.details = {
            "name": self.name,
            "license": _license(source),
            "source": source,
            "fit": {key: value for key, value in vars(self).items() if key not in _NOT_RECORDED},
            "metrics": metrics,
            "created_with": {"dwp_init": dwp_init.__version__, "torch": torch.__version__},
        }
        save_prior(prior, folder / FITTED)
        remove(folder / CHECKPOINT)
        return {"family": self.family, "metrics": metrics}

    def _source(self, context: Context) -> dict[str, Any]:
        made = read_done(context.out / self.needs[0], "source")
        source: dict[str, Any] = made["source"]
        return source | {key: made[key] for key in ("kernels", "kept", "norm_threshold") if key in made}


def _license(source: Mapping[str, Any]) -> str:
    """Returns the licence of a prior.

    Ours, if the pipeline trained the networks on its own data sets; what the user says of kernels and images of their
    own; or together those of the checkpoints, if a manifest says all of them.
    """
    if "checkpoints" not in source:
        own = "file" in source and "layer" not in source  # kernels that are not of a stage
        return str(source.get("license", UNLICENSED if own else "MIT"))
    origins = source.get("origins", {})
    licenses = {origins.get(name, {}).get("license", "") for name in source["checkpoints"]}
    together = sorted(f"({each})" if " OR " in each and len(licenses) > 1 else each for each in licenses)
    return UNSTATED if "" in licenses else " AND ".join(together)


def fitted_prior(folder: Path) -> Prior:
    """Loads the prior that a finished fit left in its stage's folder."""
    return load_prior(folder / FITTED)


def has_form(settings: Mapping[str, Any], **kinds: type) -> bool:
    """Whether the settings recorded with a prior have these keys, with values of these types.

    Args:
        settings: Any JSON, because priors come from anywhere.
        kinds: By key ``int``, ``float`` (integers too) or ``list`` for one or more numbers.
    """
    return all(_is(settings.get(key), kind) for key, kind in kinds.items())


def either(values: Sequence[float], noun: str) -> str:
    """Lists the values that were tried, one or more, such as ``6, 8 or 10 components``."""
    *others, last = (f"{value:g}" if isinstance(value, float) else f"{value:,}" for value in values)
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"{listed} {noun}{'' if listed == '1' else 's'}"


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, (list, tuple)) and bool(value) and all(_is(number, float) for number in value)
    return type(value) in (int, kind) and abs(value) < LARGEST_NUMBER
