import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from dwp_init import Gaussian, KernelDensity, KernelVAE, load_prior, save_prior
from training.engine.records import print_table, read_done, write_table
from training.engine.run import run_stages
from training.engine.stage import Context, Stage
from training.experiments.density import Density, prior_bytes
from training.fits.evaluate import evaluate_priors, transposed
from training.fits.gaussian import FitGaussian
from training.fits.mixture import FitMixture
from training.fits.score import clustered_error, score
from training.fits.statistics import sample_statistics
from training.fits.vae import FitVAE
from training.kernels.kernelset import KernelSet
from training.starts.priors import bundled_digests


def kernels(n: int, size: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, size, size, generator=generator, dtype=torch.float64)


def test_log_prob_of_a_gaussian_is_exact(gaussian: Callable[..., Gaussian]) -> None:
    prior = gaussian(3)
    white = prior.whitening
    covariance = (white.basis * white.scale.square()) @ white.basis.T
    values = prior.sample(500, torch.Generator().manual_seed(0))
    exact = MultivariateNormal(white.loc.double(), covariance.double()).log_prob(values.flatten(1).double())
    scores, found = score(prior, values)
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=1e-3)
    assert found["log_prob"] == pytest.approx(exact.mean().item(), abs=2e-3)
    assert found["kernels"] == 500 and "elbo" not in found


@pytest.mark.parametrize(("n", "most", "picked"), [(10, 4, [0, 3, 6, 9]), (10, 10, range(10)), (9, 5, [0, 2, 4, 6, 8])])
def test_of_many_kernels_evenly_spaced_ones_are_scored(
    n: int, most: int, picked: list[int], gaussian: Callable[..., Gaussian]
) -> None:
    prior, values = gaussian(3), kernels(n).float()
    scores, found = score(prior, values, most=most)
    assert len(scores) == len(picked)
    assert found["kernels"] == len(picked)
    assert found["log_prob"] == pytest.approx(prior.log_prob(values[list(picked)]).mean().item(), abs=1e-3)


def test_log_prob_of_a_vae_is_repeatable_and_above_its_elbo() -> None:
    torch.manual_seed(0)
    prior, values = KernelVAE((1, 3, 3), latent_dim=2, hidden=8, dropout=0.5).train(), kernels(200).float()
    state = torch.get_rng_state()
    scores, found = score(prior, values, samples=100)
    assert torch.equal(state, torch.get_rng_state()) and not prior.training
    again = score(prior, values, samples=100)
    assert torch.equal(again[0], scores) and again[1] == found
    assert found["log_prob"] > found["elbo"] and found["latents_per_kernel"] == 100


def test_clustered_error_against_known_answers() -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    alone = torch.arange(4000)
    plain = values.std().item() / 4000**0.5
    assert clustered_error(values, alone) == pytest.approx(plain, rel=1e-4)
    assert clustered_error(values, torch.zeros(4000)) == pytest.approx(plain, rel=1e-4)
    repeated, network = values[:50].repeat_interleave(80), alone // 80
    assert clustered_error(repeated, network) == pytest.approx(values[:50].std().item() / 50**0.5, rel=1e-4)


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
    needs: tuple[str, ...],
    change: dict[str, dict[str, str]],
    message: str,
    fits: dict[str, Stage],
    tmp_path: Path,
) -> None:
    stages = {name: fits[name] for name in ("kernels", *needs)}
    stages |= {name: replace(fits[name], **fields) for name, fields in change.items()}
    with pytest.raises(ValueError, match=message):
        run_stages(stages | {"table": Density(("kernels", *needs))}, Context(out=tmp_path / "out"))


def test_priors_are_rows_of_what_they_are_like(
    gaussian: Callable[..., Gaussian], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fits.evaluate.sampling_seconds", lambda prior, noise: (prior.family, noise))
    priors = {"g": gaussian(3), "k": KernelDensity((1, 3, 3), 30).fit_(kernels(30).float())}
    rows = evaluate_priors(priors, kernels(100, seed=1).float(), kernels(50, seed=2).float())
    assert [row["prior"] for row in rows] == ["(the kernels)", "g", "k", "k, noise=False"]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert [row["kernels"] for row in rows] == ["", 50, 50, ""]
    assert [row["seconds_per_100000"] for row in rows] == ["", ("gaussian", True), ("kde", True), ("kde", False)]
    statistics = sample_statistics(priors["k"], kernels(100, seed=1).float(), kernels(50, seed=2).float())
    for row, label in zip((rows[0], *rows[2:]), ("real", "drawn", "mean"), strict=True):
        assert row["mmd2"] == statistics[label]["mmd2"]
        lags = statistics[label]["autocorrelation"]
        assert row["autocorrelation (0,1) (1,0) (1,1) (0,2) (2,0)"] == " ".join(map(str, lags.values()))
        assert row["norm_5_50_95"] == " ".join(map(str, statistics[label]["norm_5_50_95"]))


def test_priors_of_another_kernel_shape(gaussian: Callable[..., Gaussian]) -> None:
    sets = [kernels(50).float(), kernels(50).float()]
    with pytest.raises(ValueError, match=r"'b' is a prior over \(2, 3, 3\) kernels, the file holds \(1, 3, 3\)"):
        evaluate_priors({"a": gaussian(3), "b": gaussian(3, 2)}, *sets)


def test_bundled_priors_alone_have_digests(tmp_path: Path, gaussian: Callable[..., Gaussian]) -> None:
    found = bundled_digests("notmnist-7x7")
    assert list(found) == ["notmnist-7x7"] and set(found["notmnist-7x7"]) == {"config.json", "model.safetensors"}
    folder = str(save_prior(gaussian(3), tmp_path / "mine"))
    with pytest.raises(ValueError, match="mine' is a folder; this stage takes bundled priors: notmnist-"):
        bundled_digests("notmnist-7x7", folder)
    with pytest.raises(ValueError, match="no prior and no folder is called 'none'"):
        bundled_digests("none")


def test_a_transposed_table_has_a_row_per_figure() -> None:
    rows = [{"prior": "a", "x": 1, "y": 2}, {"prior": "b", "x": 3, "y": ""}]
    assert transposed(rows) == [{"prior": "x", "a": 1, "b": 3}, {"prior": "y", "a": 2, "b": ""}]


def test_a_printed_table_is_aligned(capsys: pytest.CaptureFixture) -> None:
    print_table([{"prior": "long name", "x": 1}, {"prior": "b", "x": -2.5}])
    assert capsys.readouterr().out == "  prior      x\n  long name  1\n  b          -2.5\n"


def test_a_table_reads_back(tmp_path: Path) -> None:
    rows = [{"init": "white noise, dwp's RMS", "step": 10}, {"init": 'a "b"\nc', "step": ""}]
    write_table(tmp_path / "new" / "table.csv", rows)
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{key: str(value) for key, value in row.items()} for row in rows]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.csv"]
