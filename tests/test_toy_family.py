"""A family of a user's own, once registered, does all that the families of `dwp_init` do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dwp_init import apply_, load_prior, register, save_prior
from dwp_init.cli import main
from dwp_init.priors import FAMILIES
from dwp_init.priors.base import KernelShape
from tests.toy_family import Spherical, SphericalBound


@pytest.fixture(params=[Spherical, SphericalBound])
def prior(request: pytest.FixtureRequest, toy_families: None) -> Spherical:
    kernels = torch.randn(300, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    fitted: Spherical = request.param((1, 3, 3)).fit_(0.2 * kernels)
    fitted.details = {"name": "toy-3x3"}
    return fitted


def test_it_is_saved_and_loaded(prior: Spherical, tmp_path: Path) -> None:
    loaded = load_prior(save_prior(prior, tmp_path / "toy"))
    assert type(loaded) is type(prior) and loaded.details == prior.details
    assert loaded.describe() == "A toy: a normal distribution without covariances. 1 number; its tensors take 4e-06 MB."
    first, second = (one.sample(9, torch.Generator().manual_seed(1)) for one in (prior, loaded))
    assert torch.equal(first, second)
    estimates = [one.estimate(first, 64, torch.Generator().manual_seed(2)) for one in (prior, loaded)]
    assert all(map(torch.equal, *estimates))


def test_its_check_is_asked(prior: Spherical, tmp_path: Path) -> None:
    prior.scale.zero_()
    with pytest.raises(ValueError, match=r"this prior is .*: scale must be above 0; it is 0"):
        save_prior(prior, tmp_path / "toy")


def test_it_initialises_a_model(prior: Spherical, tmp_path: Path) -> None:
    layer = nn.Conv2d(2, 500, 3)
    report = apply_(layer, save_prior(prior, tmp_path / "toy"), scale="prior", seed=0)
    assert report.initialized == [""] and "toy-3x3" in str(report)
    assert layer.weight.std().item() == pytest.approx(0.2, rel=0.05)


def test_the_command_line_shows_and_draws_it(
    prior: Spherical, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_prior(prior, "toy")
    assert main(["show", "toy"]) == 0
    shown = capsys.readouterr().out
    assert f"family: {prior.family}" in shown
    assert f"log_prob: {'exact' if prior.exact else 'a lower bound'}" in shown
    assert main(["draw", "toy", "-n", "4"]) == 0 and (tmp_path / "kernels.png").is_file()


def test_a_prior_of_a_class_that_is_defined_again(toy_families: None, tmp_path: Path) -> None:
    def define() -> type[Spherical]:
        class Own(Spherical):
            family = "own"

        return register(Own)

    folder = save_prior(define()((1, 3, 3)), tmp_path / "own")
    old, new = load_prior(folder), define()
    assert type(load_prior(folder)) is new
    with pytest.raises(TypeError, match="Own was defined again after this prior was made; make the prior again"):
        save_prior(old, folder)


class Counting(Spherical):
    """Keeps a number that is not a float."""

    family = "counting"

    def __init__(self, kernel_shape: KernelShape, count: int = 0) -> None:
        super().__init__(kernel_shape)
        self.register_buffer("count", torch.tensor(count), persistent=count >= 0)
        self.list_of_counts = [1, 2, 3][count]

    def arguments(self) -> dict[str, Any]:
        return {"count": 9} if self.count == 2 else {"count": -1} if self.count < 0 else {}


def test_whole_numbers_are_kept_too(toy_families: None, tmp_path: Path) -> None:
    loaded = load_prior(save_prior(register(Counting)((1, 3, 3), 1), tmp_path / "counts"))
    assert loaded.get_buffer("count") == 1 and loaded.dtype == torch.float32


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (-1, r"this prior/model\.safetensors does not hold count of Counting; make it a persistent buffer"),
        (2, r"this prior/config\.json does not describe a counting prior: list index out of range"),
    ],
)
def test_what_could_not_be_rebuilt_is_not_saved(toy_families: None, tmp_path: Path, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"load_prior could not rebuild this prior: {message}"):
        save_prior(register(Counting)((1, 3, 3), count), tmp_path / "counts")
    assert not (tmp_path / "counts").exists()


def test_without_its_registration_the_file_says_what_to_import(tmp_path: Path, toy_families: None) -> None:
    folder = save_prior(Spherical((1, 3, 3)), tmp_path / "toy")
    del FAMILIES["spherical"]
    with pytest.raises(
        ValueError, match=r"the family 'spherical', but .*; upgrade dwp_init, or import the module that"
    ):
        load_prior(folder)
