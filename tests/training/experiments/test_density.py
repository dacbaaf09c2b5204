import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dwp_init import load_prior
from training.engine.records import read_done
from training.engine.run import run_stages
from training.engine.stage import Context, Stage
from training.experiments.density import Density, prior_bytes
from training.fits.gaussian import FitGaussian
from training.fits.mixture import FitMixture
from training.fits.score import clustered_error, score
from training.fits.vae import FitVAE
from training.kernels.kernelset import KernelSet


def kernels(n: int, size: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, size, size, generator=generator, dtype=torch.float64)


@pytest.fixture
def fits(tmp_path: Path) -> dict[str, Stage]:
    """Kernels of three test networks, of 4, 10 and 6 kernels, and three fits to them."""
    sets = [kernels(n, seed=seed).float() for seed, n in enumerate((60, 20, 20))]
    network = torch.tensor([7] * 4 + [8] * 10 + [9] * 6)
    (tmp_path / "made").mkdir()
    KernelSet(*sets, network).save(tmp_path / "made")
    return {
        "kernels": Copied(path=str(tmp_path / "made" / "kernels.safetensors")),
        "mixture": FitMixture(name="a mixture", components=(2,), shrinkages=(10.0,), restarts=1),
        "gaussian": FitGaussian(name="a Gaussian"),
        "vae": FitVAE(name="a VAE", latent_dim=2, hidden=8, epochs=1),
        "second": FitMixture(name="another", components=(1,), shrinkages=(10.0,), restarts=1),
    }


@dataclass(frozen=True)
class Copied(Stage):
    """A kernels stage from a file."""

    path: str = ""

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        KernelSet.load(Path(self.path).parent).save(folder)
        return {"source": {}}


def test_density_pairs_the_fits_by_kernel(fits: dict[str, Stage], tmp_path: Path) -> None:
    order = ("vae", "mixture", "gaussian", "second")
    stages = fits | {"table": Density(("kernels", *order), name="made_up")}
    folders = run_stages(stages, Context(out=tmp_path / "out"))
    found = KernelSet.load(folders["kernels"])
    values = {name: score(load_prior(folders[name] / "prior"), found.test)[0] for name in order}
    table = dict(zip(order, read_done(folders["table"])["density"], strict=True))
    assert [row["prior"] for row in table.values()] == ["a VAE", "a mixture", "a Gaussian", "another"]
    for name, row in table.items():
        prior = load_prior(folders[name] / "prior")
        assert row["family"] == prior.family and row["kernels"] == row["of"] == 20
        assert row["log_prob"] == pytest.approx(values[name].mean().item(), abs=1e-3)
        assert row["standard_error"] == pytest.approx(clustered_error(values[name], found.test_network), abs=1e-3)
        for control in ("gaussian", "mixture"):  # the first mixture
            over = values[name] - values[control]
            assert row[f"over_{control}"] == pytest.approx(over.mean().item(), abs=1e-3)
            error = clustered_error(over, found.test_network)
            assert row[f"over_{control}_error"] == pytest.approx(error, abs=1e-3)
        drawn = prior.details["metrics"]["samples"]["drawn"]
        assert (row["frechet"], row["coverage"]) == (drawn["frechet"], drawn["coverage"])
        assert row["megabytes"] == pytest.approx(prior_bytes(folders[name] / "prior") / 1e6, abs=1e-3)
    assert table["second"]["over_mixture"] != 0 and table["mixture"]["over_mixture_error"] == 0
    assert table["gaussian"]["elbo"] == "" and table["vae"]["elbo"] < table["vae"]["log_prob"]
    record = folders["table"] / "record"
    with (record / "made_up.csv").open(newline="") as file:
        assert [row["prior"] for row in csv.DictReader(file)] == [row["prior"] for row in table.values()]
    assert (record / "made_up.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("needs", "change", "message"),
    [
        (
            ("gaussian", "vae"),
            {},
            "a Gaussian, a mixture and .*; of 2 fits .* a Gaussian, a VAE, the families gaussian, ",
        ),
        (("mixture", "second"), {}, "the families mixture$"),
        ((), {}, "of 0 fits the names are none, the families none"),
        (
            ("gaussian", "mixture", "second"),
            {"second": {"name": "a mixture"}},
            "of different names; of 3 fits the names are a Gaussian, a mixture, the",
        ),
    ],
)
def test_density_needs_its_controls_and_names(
    needs: tuple[str, ...], change: dict[str, dict[str, str]], message: str, fits: dict[str, Stage], tmp_path: Path
) -> None:
    stages = {name: fits[name] for name in ("kernels", *needs)}
    stages |= {name: replace(fits[name], **fields) for name, fields in change.items()}
    with pytest.raises(ValueError, match=message):
        run_stages(stages | {"table": Density(("kernels", *needs))}, Context(out=tmp_path / "out"))
