"""The parts of latent-variable priors against closed forms."""

import math

import pytest
import torch

from dwp_init.priors.latent import Normal, Path, average, importance_weights
from dwp_init.priors.whitening import standard_normal_log_prob
from tests.priors.families import normal, seeded


def test_normal_against_torch():
    loc, scale, x = normal(3, 5, 4)
    found, truth = Normal(loc, scale.exp()), torch.distributions.Normal(loc, scale.exp())
    torch.testing.assert_close(found.log_prob(x), truth.log_prob(x).sum(-1))
    standard = torch.distributions.Normal(torch.zeros(4).double(), 1.0)
    torch.testing.assert_close(found.kl_standard(), torch.distributions.kl_divergence(truth, standard).sum(-1))


def test_a_widened_normal():
    z, plain = normal(5, 4), Normal(normal(5, 4, seed=1), normal(5, 4, seed=2).exp())
    truth = torch.distributions.Normal(plain.loc, 3 * plain.scale)
    torch.testing.assert_close(plain.widened(3.0).log_prob(z), truth.log_prob(z).sum(-1))


def bent_step(mix):
    return lambda z: Normal((z @ mix).sin() + z, 0.2 + (z @ mix).square())


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_path_has_the_density_of_its_steps(factor, backward):
    first, mixes = Normal(normal(6, 2), normal(6, 2, seed=1).exp()), normal(3, 2, 2, seed=2)
    path = Path(first, [bent_step(mix) for mix in mixes], backward)
    wide = path.widened(factor) if factor != 1 else path
    noise = normal(6, 8, seed=3)
    z = wide.transform(noise)
    latents = list(z.split(2, -1))[:: -1 if backward else 1]
    laws = [first, *(bent_step(mix)(before) for mix, before in zip(mixes, latents, strict=False))]
    steps = [torch.distributions.Normal(law.loc, factor * law.scale) for law in laws]
    expected = sum(law.log_prob(latent).sum(-1) for law, latent in zip(steps, latents, strict=True))
    torch.testing.assert_close(wide.log_prob(z), expected)
    jacobian = torch.autograd.functional.jacobian(lambda x: wide.transform(x).sum(0), noise).permute(1, 0, 2)
    through = standard_normal_log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(wide.log_prob(z), through)


def test_a_path_of_several_samples_has_the_law_of_its_last_latent():
    step = lambda z: Normal(0.5 * z + 1, torch.full_like(z, 0.8))  # noqa: E731
    path = Path(Normal(torch.zeros(3, 1), torch.ones(3, 1)), [step, step], backward=True)
    last = path.transform(torch.randn(100_000, 3, 3, generator=seeded()))[..., 0]
    torch.testing.assert_close(last.mean(0), torch.full((3,), 1.5), rtol=0, atol=0.014)
    expected = (1 / 4 + 0.64) / 4 + 0.64
    torch.testing.assert_close(last.var(0), torch.full((3,), expected), rtol=0.02, atol=0)


def test_average_and_its_error():
    found = average(torch.tensor([[1.0, 5.0], [3.0, 5.0]]).double().log())
    torch.testing.assert_close(found.log_prob, torch.tensor([2.0, 5.0]).double().log())
    torch.testing.assert_close(found.error, torch.tensor([0.5, 0.0]).double())
    one = average(torch.tensor([[-1e4, 2.0]]))
    assert one.log_prob.tolist() == [-1e4, 2.0] and one.error.tolist() == [math.inf] * 2
    assert average(torch.full((8, 2), -1e5)).log_prob.tolist() == pytest.approx([-1e5] * 2)


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_importance_weights_are_those_of_a_stratified_mixture(samples):
    narrow, wide = (Normal(normal(5, 2, seed=i), torch.full((5, 2), s).double()) for i, s in enumerate((0.5, 2.0)))
    noise, target = normal(samples, 5, 2, seed=3), Normal(torch.full((5, 2), 0.3).double(), torch.ones(5, 2).double())
    found = importance_weights([narrow, wide], lambda z: target.log_prob(z) + 1.5, noise)
    z = torch.cat([narrow.transform(noise[::2]), wide.transform(noise[1::2])])
    share = len(noise[::2]) / samples
    density = share * narrow.log_prob(z).exp() + (1 - share) * wide.log_prob(z).exp()
    torch.testing.assert_close(found, target.log_prob(z) + 1.5 - density.log())


def test_importance_weights_have_the_integral_as_their_mean():
    proposals = [Normal(torch.zeros(4, 2).double(), torch.full((4, 2), s).double()) for s in (0.7, 1.5)]
    target = Normal(torch.full((4, 2), 0.5).double(), torch.ones(4, 2).double())
    weights = importance_weights(proposals, lambda z: target.log_prob(z) - 3, normal(40_000, 4, 2))
    found = average(weights)
    assert ((found.log_prob + 3).abs() / found.error).max() < 4 and found.error.max() < 0.01
