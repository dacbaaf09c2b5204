import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dwp_init import Prior
from tests.training.fits.common import QUICK, QUICKS, mixture, model_bytes, run, write_kernels
from training.engine.records import read_metrics, save_checkpoint
from training.fits import score as evaluate
from training.fits.autoregressive import FitAutoregressive
from training.fits.base import FITS, fitted_prior
from training.fits.chain import FitChain
from training.fits.flow import FitFlow
from training.fits.gradient import FitByGradient
from training.fits.vae import FitVAE
from training.kernels.kernelset import KernelSet

GRADIENT = [family for family, stage in FITS.items() if issubclass(stage, FitByGradient)]
LATENTS = {"latent_dim": 3, "hidden": 5, "dropout": 0.1, "min_scale": 0.2, "whiten": False, "network": "dense"}


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (FitFlow, {"network": "nsf", "transforms": 2, "hidden": 5, "coupling": True}),
        (FitAutoregressive, {"hidden": 5, "mixtures": 3, "dropout": 0.1}),
        (FitVAE, LATENTS),
        (FitChain, LATENTS | {"transitions": 2}),
        (FitVAE, {"network": "paper", "latent_dim": 3, "min_scale": 0.2, "whiten": True}),
    ],
)
def test_settings_reach_the_prior(stage: type[FitByGradient], settings: dict[str, Any]) -> None:
    prior = stage(**settings).build((1, 7, 7))
    assert prior.arguments() == settings and prior.family == stage.family


@pytest.mark.parametrize("family", ["flow", "autoregressive"])
def test_jitter_is_white_noise_of_its_size_on_whitened_kernels(family: str) -> None:
    train = mixture(50, 0).repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    stage = QUICKS[family]
    assert isinstance(stage, FitByGradient)
    prior: Any = stage.build((1, 3, 3))
    prior.whitening.fit_(train.flatten(1))
    jittered = replace(stage, jitter=0.3).jittered(prior, train)
    noise = prior.whitening(jittered.flatten(1)) - prior.whitening(train.flatten(1))
    torch.testing.assert_close(torch.cov(noise.T), 0.3**2 * torch.eye(9), rtol=0, atol=4 * 0.3**2 * (2 / 20_000) ** 0.5)
    assert noise.mean(0).abs().max() < 4 * 0.3 / 20_000**0.5
    assert replace(stage, jitter=0.0).jittered(prior, train) is train


@pytest.mark.parametrize("family", GRADIENT)
def test_kernels_are_whitened_before_the_fit(family: str, tmp_path: Path) -> None:
    """Kernels of root mean square 0.05: a prior in raw units would start far away."""
    train = KernelSet(*(0.05 * mixture(n, seed) for seed, n in enumerate((200, 60, 60))), torch.zeros(60))
    write_kernels(tmp_path, train)
    whitening = fitted_prior(run(tmp_path, QUICKS[family])).get_submodule("whitening")
    white = whitening(train.train.flatten(1))
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(9), rtol=0, atol=1e-3)


def test_jitter_reaches_what_is_fitted(tmp_path: Path) -> None:
    plain = model_bytes(run(tmp_path / "plain", replace(QUICKS["flow"], jitter=0.0)))
    assert model_bytes(run(tmp_path / "jittered", QUICKS["flow"])) != plain


KILLS = [(1, 1), (1, 2), (1, 4), (1, 5), (3, 1), (3, 2), (3, 3)]  # epochs between looks, and the look at which it ends


@pytest.mark.parametrize(
    ("family", "evaluate_every", "call"),
    [(family, *kill) for family in GRADIENT for kill in (KILLS if family == "vae" else KILLS[1::2])],
)
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(
    family: str, evaluate_every: int, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at a look at the validation kernels or, at last, the test kernels."""
    stage, calls = replace(QUICKS[family], evaluate_every=evaluate_every), []
    if family in ("vae", "chain"):
        stage = replace(stage, dropout=0.5, jitter=0.1)

    def interrupted(*arguments: Any, **options: Any) -> tuple[Tensor, dict[str, float]]:
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return evaluate.score(*arguments, **options)

    expected = model_bytes(run(tmp_path / "whole", stage))
    with monkeypatch.context() as patch:
        patch.setattr("training.fits.gradient.score", interrupted)
        patch.setattr("training.fits.base.score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "part", stage)
    folder = run(tmp_path / "part", stage)
    assert model_bytes(folder) == expected
    assert [row["epoch"] for row in read_metrics(folder)] == ([1, 2, 3, 4] if evaluate_every == 1 else [3, 4])


@pytest.mark.parametrize("damage", [b"", b'["00000000", {"epoch": 1}]\n', None])
def test_a_row_is_written_once_and_a_damaged_one_again(
    damage: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the second row and its checkpoint; then perhaps the rows are damaged (None: left as they are)."""
    expected, saved = run(tmp_path / "whole", QUICK), []

    def killed(path: Path, state: dict[str, Any]) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(save_checkpoint(path, state))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("training.fits.gradient.save_checkpoint", killed)
        run(tmp_path / "part", QUICK)
    assert len(read_metrics(tmp_path / "part" / "fit")) == 2
    if damage is not None:
        (tmp_path / "part" / "fit" / "metrics.jsonl").write_bytes(damage)
    found = run(tmp_path / "part", QUICK)
    assert (found / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()


def test_a_checkpoint_of_an_older_version_has_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_rows(path: Path, state: dict[str, Any]) -> None:
        save_checkpoint(path, {key: value for key, value in state.items() if key != "rows"})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("training.fits.gradient.save_checkpoint", without_rows)
        run(tmp_path, QUICK)
    assert [row["epoch"] for row in read_metrics(run(tmp_path, QUICK))] == [1, 2, 3, 4]


def looks(values: list[float], seen: list[dict[str, Tensor]]) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """Puts made-up values in place of log p of the validation kernels."""

    def look(prior: Prior, kernels: Tensor, samples: int = 1000, **options: int) -> tuple[Tensor, dict[str, float]]:
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
    monkeypatch.setattr("training.fits.gradient.score", looks(values, seen))
    found = fitted_prior(run(tmp_path, QUICK)).state_dict()
    best = max(range(4), key=lambda epoch: (-math.inf if math.isnan(values[epoch]) else values[epoch], -epoch))
    same = [all(torch.equal(found[name], state[name]) for name in found) for state in seen]
    assert same == [epoch == best for epoch in range(4)]


def test_a_fit_that_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fits.gradient.score", looks([float("nan")] * 4, []))
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
