import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dwp_init import KernelVAE, load_prior
from training import evaluate
from training.__main__ import main
from training.fit import Fit, fitted_prior
from training.kernels import KernelSet
from training.stages import Context, read_done, read_metrics

QUICK = Fit(name="quick", latent_dim=2, hidden=8, epochs=4, batch_size=32, evaluate_every=1)
SCALE, DIRECTION = 0.1, torch.full((9,), 1 / 3)


def mixture(n: int, seed: int) -> Tensor:
    """Kernels 3×3 from ½ N(d, 0.1² I) + ½ N(-d, 0.1² I), |d| = 1."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    return (side * DIRECTION + SCALE * torch.randn(n, 9, generator=generator)).view(n, 1, 3, 3)


def mixture_log_prob(kernels: Tensor) -> Tensor:
    parts = [
        torch.distributions.Normal(sign * DIRECTION, SCALE).log_prob(kernels.flatten(1)).sum(1) for sign in (1, -1)
    ]
    return torch.stack(parts).logsumexp(0) - math.log(2)


def write_kernels(out: Path, kernels: KernelSet) -> None:
    (out / "kernels").mkdir(parents=True)
    kernels.save(out / "kernels")
    done = {"source": {"dataset": "mixture"}, "kernels": kernels.counts(), "kept": 1.0}
    (out / "kernels" / "done.json").write_text(json.dumps(done))


def run(out: Path, stage: Fit, train: int = 200) -> Path:
    if not (out / "kernels").exists():
        parts = [mixture(n, seed) for seed, n in enumerate((train, 60, 60))]
        write_kernels(out, KernelSet(*parts, torch.zeros(60)))
    folder = out / "fit"
    folder.mkdir(exist_ok=True)
    summary = stage.run(folder, Context(out=out))
    assert summary["metrics"] == fitted_prior(folder).details["metrics"]
    return folder


def prior_bytes(folder: Path) -> bytes:
    return (folder / "prior" / "model.safetensors").read_bytes()


def test_gaussian_has_the_moments_of_the_fitting_kernels(tmp_path: Path) -> None:
    folder = run(tmp_path, replace(QUICK, family="gaussian"))
    white, flat = fitted_prior(folder).whitening, mixture(200, 0).flatten(1)
    torch.testing.assert_close(white.loc, flat.mean(0))
    torch.testing.assert_close((white.basis * white.scale.square()) @ white.basis.T, torch.cov(flat.T, correction=0))
    metrics = fitted_prior(folder).details["metrics"]
    assert metrics["log_prob"] == metrics["gaussian_log_prob"]


def test_vae_learns_a_mixture_that_no_gaussian_can(tmp_path: Path) -> None:
    """The Gaussian loses ½ log(1 + |d|²/σ²) - log 2 = 1.61 nats; the estimate of log p never passes the truth."""
    test = mixture(400, 2)
    write_kernels(tmp_path, KernelSet(mixture(2000, 0), mixture(200, 1), test, torch.zeros(400)))
    stage = Fit(latent_dim=2, hidden=32, epochs=40, lr=3e-3, whiten=False, evaluate_every=10)
    prior = fitted_prior(run(tmp_path, stage))
    metrics = prior.details["metrics"]
    truth = mixture_log_prob(test)
    assert metrics["gaussian_log_prob"] == pytest.approx(truth.mean().item() - 1.61, abs=0.15)
    assert metrics["log_prob"] > metrics["gaussian_log_prob"] + 0.8
    over = prior.log_prob(test, 1000, torch.Generator().manual_seed(0)) - truth
    assert over.mean() < 3 * over.std() / len(over) ** 0.5
    assert over.mean().item() == pytest.approx(metrics["log_prob"] - truth.mean().item(), abs=0.01)
    assert metrics["elbo"] < metrics["log_prob"]


def test_provenance_goes_with_the_prior(tmp_path: Path) -> None:
    details = fitted_prior(run(tmp_path, QUICK)).details
    assert details["name"] == "quick" and details["license"] == "MIT"
    assert details["source"] == {
        "dataset": "mixture",
        "kernels": {"train": 200, "validation": 60, "test": 60},
        "kept": 1.0,
    }
    assert details["fit"] == {"importance_samples": 1, "epochs": 4, "batch_size": 32, "lr": 1e-3, "seed": 0}


def test_a_fit_depends_on_its_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = prior_bytes(run(tmp_path / "a", QUICK))
    torch.manual_seed(2)
    assert prior_bytes(run(tmp_path / "b", QUICK)) == first
    assert prior_bytes(run(tmp_path / "c", replace(QUICK, seed=1))) != first


@pytest.mark.parametrize(("evaluate_every", "call"), [(1, 1), (1, 2), (1, 4), (1, 5), (3, 1), (3, 2), (3, 3)])
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(
    evaluate_every: int, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at a look at the validation kernels or, at last, the test kernels."""
    stage, calls = replace(QUICK, dropout=0.5, evaluate_every=evaluate_every), []

    def interrupted(*arguments: Any, **options: Any) -> tuple[Tensor, dict[str, float]]:
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return evaluate.score(*arguments, **options)

    expected = prior_bytes(run(tmp_path / "whole", stage))
    with monkeypatch.context() as patch:
        patch.setattr("training.fit.score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "part", stage)
    folder = run(tmp_path / "part", stage)
    assert prior_bytes(folder) == expected
    assert [row["epoch"] for row in read_metrics(folder)] == ([1, 2, 3, 4] if evaluate_every == 1 else [3, 4])


def looks(values: list[float], seen: list[dict[str, Tensor]]) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """Puts made-up values in place of log p of the validation kernels."""

    def look(prior: KernelVAE, kernels: Tensor, samples: int = 1000, **options: int) -> tuple[Tensor, dict[str, float]]:
        if samples == 1000:
            return evaluate.score(prior, kernels, samples=10)
        seen.append(copy.deepcopy(prior.state_dict()))
        return torch.empty(0), {"log_prob": values[len(seen) - 1]}

    return look


@pytest.mark.parametrize("values", [[1, 5, 3, 4], [float("nan"), -7, -8, -9], [1, 2, 3, 4], [3, 1, 3, 2]])
def test_the_best_state_on_validation_kernels_is_kept(
    values: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr("training.fit.score", looks(values, seen))
    found = fitted_prior(run(tmp_path, QUICK)).state_dict()
    best = max(range(4), key=lambda epoch: (-math.inf if math.isnan(values[epoch]) else values[epoch], -epoch))
    same = [all(torch.equal(found[name], state[name]) for name in found) for state in seen]
    assert same == [epoch == best for epoch in range(4)]


def test_a_fit_that_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fit.score", looks([float("nan")] * 4, []))
    with pytest.raises(ValueError, match=r"the fit of 'quick' diverged: .*; lower lr=0\.001"):
        run(tmp_path, QUICK)


def test_learning_rate_decays_by_step_towards_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    class Recorded(torch.optim.AdamW):
        def step(self) -> None:
            found.extend(group["lr"] for group in self.param_groups)
            super().step()

    monkeypatch.setattr("torch.optim.AdamW", Recorded)
    run(tmp_path, replace(QUICK, epochs=2, batch_size=60, lr=0.6))
    assert found == [pytest.approx(rate) for rate in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "flow"}, "family is one of vae, gaussian; got 'flow'"),
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"evaluate_every": 0}, "evaluate_every must be 1 or more; got 0"),
        ({"importance_samples": 0}, "importance_samples must be 1 or more; got 0"),
    ],
)
def test_settings_that_cannot_be_fitted(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, replace(QUICK, **settings))


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "mine.npy", mixture(100, 0)[:, 0].numpy())
    return tmp_path / "mine.npy"


def fit(path: Path, out: Path, *words: str) -> int:
    return main(["fit", "--kernels", str(path), "--out", str(out), "--smoke", "--device", "cpu", *words])


@pytest.mark.parametrize("family", ["vae", "gaussian"])
def test_command_line_fits_kernels_of_ones_own(
    family: str, kernel_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["fit.hidden=8"] if family == "vae" else []
    assert fit(kernel_file, tmp_path / "out", "--family", family, *words) == 0
    prior = load_prior(tmp_path / "out" / "fit" / "prior")
    assert prior.family == family and prior.kernel_shape == (1, 3, 3) and prior.details["name"] == "out"
    assert prior.details["source"]["file"] == "mine.npy"
    metrics = read_done(tmp_path / "out" / "fit")["metrics"]
    shown = capsys.readouterr().out
    assert (
        f"log p of held-out kernels: {metrics['log_prob']} nats, of a Gaussian {metrics['gaussian_log_prob']}" in shown
    )
    assert f"prior={str(tmp_path / 'out' / 'fit' / 'prior')!r}" in shown
    assert fit(kernel_file, tmp_path / "out", "--family", family, *words) == 0
    assert "fit: finished earlier, reused" in capsys.readouterr().out


def test_ten_kernels_of_two_channels_are_enough(tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", mixture(20, 0).view(10, 2, 3, 3).numpy())
    assert fit(tmp_path / "few.npy", tmp_path / "out", "--name", "few") == 0
    prior = load_prior(tmp_path / "out" / "fit" / "prior")
    assert prior.kernel_shape == (2, 3, 3) and prior.details["name"] == "few"
    assert prior.details["metrics"]["kernels"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit.depth=3"], "stage 'fit' has no field 'depth'; its fields are name, family, network, latent_dim"),
        (["fit.network=flow"], "network"),
        (["fit.hidden=0"], "hidden"),
        (["fit.epochs=0"], "epochs must be 1 or more; got 0"),
        (["kernels.held_out=0.7"], "held_out, for validation and again for the test, lies in (0, 0.5); got 0.7"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
    ],
)
def test_command_line_errors_can_be_mended(
    words: list[str], message: str, kernel_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert fit(kernel_file, tmp_path / "out", *words) == 1
    shown = capsys.readouterr().err
    assert message in next(line for line in shown.splitlines() if line.startswith("error: "))
    assert "Traceback" not in shown
    assert fit(kernel_file, tmp_path / "out") == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no kernel file"),
        (np.full((20, 3, 3), np.nan), "20 of 20 kernels of"),
        (np.zeros((20, 3, 3)), "the 16 kernels are all the same"),
        (np.zeros((20, 3)), "has shape (20, 3)"),
    ],
)
def test_command_line_errors_of_the_file(
    values: np.ndarray | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if values is not None:
        np.save(tmp_path / "mine.npy", values)
    assert fit(tmp_path / "mine.npy", tmp_path / "out") == 1
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1].startswith("error: ") and message in shown and "Traceback" not in shown


def test_other_kernels_under_the_same_folder_are_refused(
    kernel_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert fit(kernel_file, tmp_path / "out") == 0
    np.save(kernel_file, mixture(100, 1)[:, 0].numpy())
    assert fit(kernel_file, tmp_path / "out") == 1
    assert "settings.sha256 is" in capsys.readouterr().err
