import copy
import math

import pytest
import torch
from torch import nn

from dwp_init import KernelVAE, bayes
from dwp_init.bayes import gap
from dwp_init.priors.latent import Normal


def objective(off: float = 0.0) -> bayes.Objective:
    """A network of one layer whose prior has one latent, with an encoder that is off."""
    torch.manual_seed(0)
    prior = KernelVAE((1, 3, 3), latent_dim=1, hidden=8)
    with torch.no_grad():
        prior.encoder.heads.bias[0] += off
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten())
    bayes.bayesianize_(network, scale=0.1)
    return bayes.Objective(network, bayes.kl_from(prior))


@pytest.mark.parametrize("off", [0.0, 1.0, 3.0])
def test_the_gap_against_quadrature(off: float) -> None:
    """The tight bound is log p(w), wherever the reverse model is; the gap is what the latter loses."""
    model = objective(off)
    (found,) = bayes.bound_gaps(model, 4000, generator=torch.Generator().manual_seed(0))
    (prior,) = (term.prior for term in model.terms)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(6, generator=generator)
    q = Normal(*(part.detach().view(-1, 1, 3, 3)[order] for part in model.network[0].q))
    drawn = q.draw(generator)
    own = torch.distributions.Normal(0.0, 0.1).entropy() * 9
    torch.testing.assert_close(found.tight, own + prior.log_prob_by_quadrature(drawn), atol=0.05, rtol=0)
    assert found.total == len(found.gap) == 6 and (found.error < 0.05).all()
    assert (found.gap > -0.05).all() and (off < 1 or found.gap.mean() > 0.2)


def test_the_gap_shrinks_as_the_reverse_model_is_trained() -> None:
    model = objective(off=3.0)
    optimizer = torch.optim.Adam([p for p in model.terms.parameters() if p.requires_grad], lr=0.02)
    before = bayes.bound_gaps(model, 500)[0].gap.mean()
    for _ in range(300):
        optimizer.zero_grad()
        model.kl().sum().backward()
        optimizer.step()
    assert bayes.bound_gaps(model, 500)[0].gap.mean() < 0.3 * before


def test_a_blind_reverse_model_is_the_prior_of_the_latents() -> None:
    """Where the decoder ignores z it loses nothing."""
    model = objective()
    prior = model.terms[0].prior
    with torch.no_grad():
        prior.decoder.heads.weight.zero_()
        prior.encoder.heads.weight.zero_()
        prior.encoder.heads.bias.copy_(torch.tensor([2.0, 0.0]))
    (found,) = bayes.bound_gaps(model, 2000)
    torch.testing.assert_close(found.blind, found.tight, atol=0.05, rtol=0)
    assert found.gap.min() > 1


def test_the_semi_implicit_bounds_lie_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw of the encoder is Algorithm 1's bound, one of p(z) the blind one; many reach log p(w)."""
    monkeypatch.setattr(gap, "REPEATS", 400)
    model = objective(off=1.0)
    with torch.no_grad():
        model.terms[0].prior.decoder.heads.weight.mul_(5)
    (found,) = bayes.bound_gaps(model, 4000, generator=torch.Generator().manual_seed(0), draws=(1, 8, 200))
    assert list(found.semi_implicit) == [(part, draws) for part in ("encoder", "prior") for draws in (1, 8, 200)]
    for latents, one in (("encoder", found.auxiliary), ("prior", found.blind)):
        bounds = [found.semi_implicit[latents, draws].mean().item() for draws in (1, 8, 200)]
        assert bounds[0] == pytest.approx(one.mean().item(), abs=0.5)
        assert bounds[0] < bounds[1] - 2 and bounds[1] < bounds[2]
        assert -0.5 < bounds[2] - found.tight.mean().item() < 0.1


def test_a_few_kernels_stand_for_all() -> None:
    (found,) = bayes.bound_gaps(objective(), 10, kernels=2)
    assert len(found.gap) == 2 and found.total == 6
    (found,) = bayes.bound_gaps(objective(), 10, kernels=70)
    assert len(found.gap) == 6
    generators = [torch.Generator().manual_seed(seed) for seed in range(12)]
    seen = {bayes.bound_gaps(objective(), 1, 1, generator)[0].auxiliary.item() for generator in generators}
    assert len(seen) > 2
    with pytest.raises(ValueError, match="kernels must be a whole number from 1"):
        bayes.bound_gaps(objective(), 10, kernels=0)


def test_no_gap_where_nothing_is_bounded() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    bayes.bayesianize_(network)
    with pytest.raises(ValueError, match="layer '0' has the term NormalKL, which is not a bound, so it has no gap"):
        bayes.bound_gaps(bayes.Objective(network, bayes.NormalKL()))
    with pytest.raises(ValueError, match="samples must be a whole number from 1"):
        bayes.bound_gaps(objective(), 0)
    with pytest.raises(ValueError, match="draws must be a whole number from 1"):
        bayes.bound_gaps(objective(), 10, draws=(5, 0))


def test_a_prior_at_a_scale_has_the_gap_of_the_kernels_over_it() -> None:
    plain, (term,) = objective(off=2.0), objective(off=2.0).terms
    network = copy.deepcopy(plain.network)
    with torch.no_grad():
        network[0].weight.mul_(3.0)
        network[0].log_variance.add_(2 * math.log(3.0))
    models = (plain, bayes.Objective(network, bayes.ScaledKL(term, 3.0)))
    first, second = (bayes.bound_gaps(each, 50, generator=torch.Generator().manual_seed(0))[0] for each in models)
    torch.testing.assert_close(second.gap, first.gap, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(second.auxiliary, first.auxiliary, rtol=1e-3, atol=1e-3)
