"""The Gaussian against closed forms."""

import torch
from torch.distributions import MultivariateNormal

from dwp_init.priors import Gaussian
from tests.priors.families import correlated, seeded


def test_gaussian_is_the_maximum_likelihood_one():
    kernels = correlated(300, 9).double()
    prior = Gaussian((1, 3, 3)).double().fit_(kernels.view(-1, 1, 3, 3))
    truth = MultivariateNormal(kernels.mean(0), torch.cov(kernels.T, correction=0))
    x = kernels[:50] + 0.1
    torch.testing.assert_close(prior.log_prob(x.view(-1, 1, 3, 3)), truth.log_prob(x), rtol=1e-9, atol=1e-9)
    single = prior.float().log_prob(x.view(-1, 1, 3, 3))
    torch.testing.assert_close(single.double(), truth.log_prob(x), rtol=1e-4, atol=1e-3)


def test_gaussian_samples_have_its_mean_and_covariance():
    kernels = correlated(300, 4)
    prior = Gaussian((1, 2, 2)).fit_(kernels.view(-1, 1, 2, 2))
    drawn = prior.sample(200_000, seeded()).flatten(1)
    covariance = torch.cov(kernels.T, correction=0)
    torch.testing.assert_close(drawn.mean(0), kernels.mean(0), rtol=0, atol=0.01 * covariance.diagonal().max().sqrt())
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0, atol=0.01 * covariance.diagonal().max())
