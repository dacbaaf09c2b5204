"""Autoregressive densities."""

import math

import pytest
import torch

from dwp_init.priors import Autoregressive, Gaussian
from tests.priors.families import MIDDLE, bent, normal, perturbed, seeded


def test_each_factor_sees_the_weights_before_it_alone(monkeypatch):
    torch.manual_seed(0)
    prior = MIDDLE["autoregressive"](normal(80, 1, 3, 2)).eval()
    kernels, factors = prior.sample(5, seeded()), []
    whole = prior._factor
    monkeypatch.setattr(prior, "_factor", lambda *given: factors.append(whole(*given)) or factors[-1])
    innovations = [prior.whitening(kernels.flatten(1))]
    prior.log_prob(kernels)
    for i in range(6):
        changed = kernels.clone()
        changed.flatten(1)[:, i] += 0.3
        innovations.append(prior.whitening(changed.flatten(1)))
        prior.log_prob(changed)
        assert torch.equal(innovations[-1][:, :i], innovations[0][:, :i])
        assert (innovations[-1][:, i] != innovations[0][:, i]).all()
        for before, after in zip(factors[0], factors[-1], strict=True):
            assert torch.equal(before[:, : i + 1], after[:, : i + 1])
            assert (before[:, i + 1 :] != after[:, i + 1 :]).all()


def test_without_its_networks_it_is_the_gaussian():
    kernels, fresh = normal(200, 6) @ normal(6, 6, seed=1), normal(50, 6, seed=2)
    prior = Autoregressive((1, 3, 2), hidden=8, mixtures=1).double()
    prior.whitening.fit_(kernels)
    assert not prior.head.any()
    prior.head_bias.data[:, 2] = math.log(math.expm1(0.95))  # a scale of 1
    gaussian = Gaussian((1, 3, 2)).double().fit_(kernels.view(-1, 1, 3, 2))
    fresh = fresh.view(-1, 1, 3, 2)
    torch.testing.assert_close(prior.log_prob(fresh), gaussian.log_prob(fresh), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({name: value}, f"{name} must be a whole number from 1 to 1048576; got {value!r}")
          for name in ("hidden", "mixtures") for value in (0, 2.0, True, "4")),
        *(({"dropout": value}, f"dropout must be a number from 0 to below 1; got {value!r}")
          for value in (-0.1, 1, "x")),
    ],
)  # fmt: skip
def test_autoregressive_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Autoregressive((1, 3, 3), **arguments)


def test_dropout_of_an_autoregressive_density_is_for_fitting():
    torch.manual_seed(0)
    prior = perturbed(Autoregressive((1, 3, 2), hidden=8, dropout=0.5).double(), normal(80, 6), 0.3)
    kernels = normal(9, 1, 3, 2)
    assert not torch.equal(prior.train().log_prob(kernels), prior.log_prob(kernels))
    assert torch.equal(prior.eval().log_prob(kernels), prior.log_prob(kernels))


def test_many_kernels_are_as_good_as_few():
    """log p is found in parts, which bound the memory."""
    prior = perturbed(Autoregressive((1, 1, 2), hidden=4, mixtures=1), bent(60).float(), 0.5)
    prior.hidden = 2**22  # as if it were so wide that 2 kernels make a part
    kernels = bent(5).float()
    torch.testing.assert_close(prior.log_prob(kernels), torch.cat([prior.log_prob(kernel[None]) for kernel in kernels]))
