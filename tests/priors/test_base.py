"""The registry of families and what the base class demands of each."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import dwp_init
from dwp_init.priors import FAMILIES, Gaussian, Prior, register
from tests.toy_family import Spherical, SphericalBound


@pytest.fixture(autouse=True)
def _clean(toy_families: None) -> None:
    """Takes back what a test registers."""


def test_register_enters_a_class_under_its_family_and_returns_it() -> None:
    class Own(Spherical):
        family = "own_1"

    assert register(Own) is Own and FAMILIES["own_1"] is Own
    assert dwp_init.register is register


def test_a_class_that_is_defined_again_replaces_the_one_before() -> None:
    def define() -> type[Prior]:
        class Own(Spherical):
            family = "own"

        return register(Own)

    first, again = define(), define()
    assert first is not again and FAMILIES["own"] is again


class Unnamed(Spherical):
    pass


class Misnamed(Spherical):
    family = "my family"


class Taken(Spherical):
    family = "gaussian"


class Silent(Prior):
    family = "silent"
    exact = True

    def log_prob(self, kernels: Tensor) -> Tensor:
        return kernels.flatten(1).sum(1)


class Undecided(Gaussian):
    family = "undecided"
    exact = None  # type: ignore[assignment]

    def estimate(self, *arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (Gaussian((1, 3, 3)), TypeError, "register takes a class derived from dwp_init.Prior; got Gaussian("),
        (torch.nn.Linear, TypeError, "register takes a class derived from dwp_init.Prior; got <class"),
        (Silent, TypeError, "Silent cannot be registered: it lacks _draw, arguments, describe; define them"),
        (Unnamed, ValueError, "Unnamed needs a family name of its own, of letters, digits, - and _; got None: write"),
        (Misnamed, ValueError, "of letters, digits, - and _; got 'my family': write family = 'misnamed' in the class"),
        (Taken, ValueError, "the family 'gaussian' is dwp_init.priors.gaussian.Gaussian; give Taken another name"),
        (Undecided, TypeError, "Undecided must say whether its log_prob() is exact: write exact = True or exact = F"),
    ],
)
def test_register_errors(given: Any, error: type[Exception], message: str) -> None:
    before = dict(FAMILIES)
    with pytest.raises(error, match=re.escape(message)):
        register(given)
    assert before == FAMILIES


def test_a_bound_must_estimate() -> None:
    with pytest.raises(TypeError, match=r"Bound has exact = False, so it must override estimate\(\)"):

        class Bound(Spherical):
            exact = False


def test_a_family_must_describe_itself() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Silent((1, 3, 3))  # type: ignore[abstract]


def test_an_exact_estimate_is_the_density_without_error() -> None:
    prior = Spherical((1, 2, 2))
    kernels = prior.sample(5)
    estimate = prior.estimate(kernels, samples=1)
    assert torch.equal(estimate.log_prob, prior.log_prob(kernels)) and torch.equal(estimate.error, torch.zeros(5))
    assert not SphericalBound((1, 2, 2)).estimate(kernels).error.eq(0).any()


def test_sizes_count_parameters_or_numbers() -> None:
    assert Spherical((1, 3, 3)).describe_size() == "1 number; its tensors take 4e-06 MB."
    assert dwp_init.KernelVAE((1, 3, 3), hidden=4).describe_size() == "618 parameters; its tensors take 0.00287 MB."
