"""The held-out log p of several fits to the same kernels, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from dwp_init.folder import CONFIG, MODEL
from training.engine.records import print_table, read_config, read_done, write_table
from training.engine.stage import Context, Stage
from training.figures.kernels import plot_families
from training.fits.base import fitted_prior
from training.fits.score import FITTED, MOST, SCORES, SMOKE, clustered_error
from training.images.split import thin
from training.kernels.kernelset import KernelSet

_PRINTED = ("log_prob", "standard_error", "kind", "over_gaussian", "over_mixture", "recall_real", "recall_samples")


@dataclass(frozen=True)
class Density(Stage):
    """Compares the held-out log p of several fits, paired by kernel, and draws from them.

    Records ``<name>.csv`` and ``<name>.png``. Standard errors are over networks, because kernels of one network are not
    independent.

    Args:
        needs: The kernels, then the fits to them, with a Gaussian and a mixture among them.
        name: Base name of the CSV and PNG files.
    """

    name: str = "density"

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        kernels = KernelSet.load(context.out / self.needs[0])
        fits = {read_config(context.out / need)["settings"]["name"]: context.out / need for need in self.needs[1:]}
        scores = {name: load_file(fit / SCORES)["log_prob"] for name, fit in fits.items()}
        network = thin(kernels.test_network, SMOKE["most"] if context.smoke else MOST)
        controls = self._controls(fits, scores)
        table = [
            _row(name, fits[name], values, controls, network) | {"of": len(kernels.test)}
            for name, values in scores.items()
        ]
        write_table(folder / "record" / f"{self.name}.csv", table)
        priors = {name: fitted_prior(fit) for name, fit in fits.items()}
        plot_families(kernels.test, priors, folder / "record" / f"{self.name}.png", count=36, columns=5)
        print_table([{key: row[key] for key in ("prior", *_PRINTED)} for row in table])
        return {"density": table}

    def _controls(self, fits: dict[str, Path], scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns log p of the test kernels under the first Gaussian and the first mixture."""
        found: dict[str, Tensor] = {}
        for name, fit in fits.items():
            found.setdefault(read_done(fit)["family"], scores[name])
        if not {"gaussian", "mixture"} <= found.keys() or len(fits) < len(self.needs) - 1:
            raise ValueError(
                f"needs must name a Gaussian, a mixture and other fits of different names; of {len(self.needs) - 1} "
                f"fits the names are {', '.join(fits) or 'none'}, the families {', '.join(found) or 'none'}"
            )
        return {control: found[control] for control in ("gaussian", "mixture")}


def _row(name: str, fit: Path, values: Tensor, controls: dict[str, Tensor], network: Tensor) -> dict[str, Any]:
    done, size = read_done(fit), prior_bytes(fit / FITTED)
    row = {"prior": name, "family": done["family"], "log_prob": round(values.mean().item(), 3)}
    row["standard_error"] = round(clustered_error(values, network), 3)
    row |= {key: done["metrics"].get(key, "") for key in ("kind", "monte_carlo_error", "elbo")}
    for control, reference in controls.items():
        over = values - reference
        row[f"over_{control}"] = round(over.mean().item(), 3)
        row[f"over_{control}_error"] = round(clustered_error(over, network), 3)
    drawn = done["metrics"]["samples"]["drawn"]
    row |= {key: drawn[key] for key in ("frechet", "fidelity", "coverage", "recall_real", "recall_samples")}
    return row | {"megabytes": round(size / 1e6, 3), "kernels": len(values)}


def prior_bytes(folder: Path) -> int:
    """Returns the size of a prior's two files, in bytes."""
    return sum((folder / name).stat().st_size for name in (CONFIG, MODEL))
