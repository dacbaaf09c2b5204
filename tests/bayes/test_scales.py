import copy
import itertools
import math

import pytest
import torch
from torch import Tensor

from dwp_init import Gaussian, KernelVAE
from dwp_init.bayes import (
    SCALE,
    AuxiliaryKL,
    Estimator,
    GaussianKL,
    NormalKL,
    Objective,
    RelativeBayesConv2d,
    TruncatedLogUniformKL,
    bayesian_layers,
    bayesianize_,
    kl_from,
    optimal_scale,
    spreads,
    start_at_optimal_scales_,
)
from tests.bayes.small import gaussian, images, network, vae


def conditional_scale(prior: Gaussian) -> Tensor:
    """σᵢ of a value given all others: the root of 1 / (Σ⁻¹)ᵢᵢ."""
    factor = prior.whitening.basis * prior.whitening.scale
    return (factor @ factor.T).inverse().diagonal().rsqrt().view(prior.kernel_shape)


def test_a_gaussian_in_closed_form() -> None:
    prior = gaussian(3).double()
    kernels = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(optimal_scale(GaussianKL(prior), kernels), conditional_scale(prior), rtol=1e-6, atol=0)
    assert conditional_scale(prior).max() > 1.1 * conditional_scale(prior).min()


def test_one_step_is_enough_where_it_is_not_cut() -> None:
    term = NormalKL(1.5 * SCALE)
    torch.testing.assert_close(optimal_scale(term, torch.zeros(2, 1, 3, 3), 1), torch.full((1, 3, 3), 1.5 * SCALE))


def test_a_prior_with_latents() -> None:
    """A VAE with a decoder that ignores z is a Gaussian of the decoder's variance."""
    prior: KernelVAE = vae(3)
    with torch.no_grad():
        prior.decoder.heads.weight.zero_()
    expected = prior.decode(torch.zeros(1, 2)).scale.view(1, 3, 3)
    torch.manual_seed(0)
    found = optimal_scale(AuxiliaryKL(prior), torch.zeros(500, 1, 3, 3))
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0)


def objective(prior_scale: float = 0.5, estimator: Estimator = "local") -> tuple[Objective, Tensor, Tensor]:
    """Local reparametrisation has less noise in so small a network."""
    (pictures, labels), model = images(), network(bayesian=False)
    bayesianize_(model, scale=0.05, estimator=estimator)
    return Objective(model, NormalKL(prior_scale)), pictures[0], labels[0]


def scales(model: Objective) -> list[float]:
    return [spread.scale for spread in spreads(model.network)]


def test_without_curvature_of_the_likelihood_the_start_is_the_prior() -> None:
    """At a high temperature the divergence alone counts."""
    prior = [gaussian(3), gaussian(5)]
    model = Objective(network(), [kl_from(each) for each in prior])
    torch.manual_seed(0)
    start_at_optimal_scales_(model, *(part[0] for part in images()), temperature=1e4)
    for layer, each in zip(bayesian_layers(model.network).values(), prior, strict=True):
        scale = (0.5 * layer.log_variance).exp()
        torch.testing.assert_close(scale, conditional_scale(each).expand_as(scale), rtol=0.01, atol=0)


def test_the_start_is_the_optimum_of_the_bound() -> None:
    """By the bound at half and at twice the scales of each layer, on 400 draws of the same noise."""
    model, pictures, labels = objective(prior_scale=2.0)
    torch.manual_seed(0)
    weights = [parameter.clone() for parameter in model.network.parameters() if parameter.dim() != 4]
    start_at_optimal_scales_(model, pictures, labels, steps=40)
    assert all(map(torch.equal, weights, [p for p in model.network.parameters() if p.dim() != 4]))
    many, answers = pictures.repeat(400, 1, 1, 1), labels.repeat(400)

    def bound() -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            terms = model(many, answers, len(labels))
        return (terms.nll + terms.kl.sum()).item()

    best = bound()
    assert min(scales(model)) < 1  # half the prior's: the likelihood has its say
    for layer in bayesian_layers(model.network).values():
        for factor in (0.5, 2.0):
            layer.log_variance.data += 2 * math.log(factor)
            assert bound() > best
            layer.log_variance.data -= 2 * math.log(factor)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_more_images_make_the_start_narrower_by_both_estimators(estimator: Estimator) -> None:
    model, pictures, labels = objective(estimator=estimator)
    torch.manual_seed(0)
    start_at_optimal_scales_(model, pictures, labels)
    few = scales(model)
    start_at_optimal_scales_(model, pictures.repeat(30, 1, 1, 1), labels.repeat(30))
    assert 0.4 < few[0] < 0.65 and 0.1 < scales(model)[0] < 0.3


def test_a_colder_objective_has_smaller_scales() -> None:
    found = []
    for temperature in (1.0, 0.1, 0.01):
        model, pictures, labels = objective()
        torch.manual_seed(0)
        start_at_optimal_scales_(model, pictures, labels, temperature=temperature, steps=40)
        assert model.training and {
            layer.log_variance.flatten(0, 1).std(0).max().item() for layer in bayesian_layers(model.network).values()
        } == {0.0}
        found.append(scales(model))
    assert all(
        warm > cold for first, second in itertools.pairwise(found) for warm, cold in zip(first, second, strict=True)
    )


def test_what_has_no_scale_of_its_own_stays() -> None:
    relative = network(bayesian=False)
    bayesianize_(relative, kind=RelativeBayesConv2d)
    for model in (Objective(relative, NormalKL()), Objective(network(bayesian=False))):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        start_at_optimal_scales_(model.eval(), *(part[0] for part in images()))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not model.training


def test_spreads() -> None:
    model = network()
    expected = math.log(0.05) + 0.5 * math.log(2 * math.pi * math.e)
    found = spreads(model)
    assert [spread.layer for spread in found] == list(bayesian_layers(model)) and len(found) == 2
    for spread in found:
        assert spread.scale == pytest.approx(0.05, rel=1e-5) and spread.entropy == pytest.approx(expected, rel=1e-5)
    assert spreads(network(bayesian=False)) == []


def test_spreads_in_half_precision_are_those_in_single() -> None:
    model = network()
    bayesian_layers(model)["0"].log_variance.data.fill_(-40)
    for ours, theirs in zip(spreads(copy.deepcopy(model).half()), spreads(model), strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], rel=1e-2)


def test_helpful_errors() -> None:
    with pytest.raises(ValueError, match="steps must be a whole number from 1"):
        optimal_scale(NormalKL(), torch.zeros(1, 1, 3, 3), 0)
    model, pictures, labels = objective()
    with pytest.raises(ValueError, match="steps must be a whole number from 1"):
        start_at_optimal_scales_(model, pictures, labels, steps=0)
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        start_at_optimal_scales_(model, pictures, labels, temperature=0.0)


def test_nothing_but_scales_changes() -> None:
    """Not the averages of batch norm either, though the images pass through the network in training mode."""
    model, (pictures, labels) = Objective(network(norm=True), NormalKL()), (part[0] for part in images())
    model.network.register_buffer("five", torch.zeros(1).expand(5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_at_optimal_scales_(model, pictures, labels, steps=2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.0.log_variance", "network.3.log_variance"}


def test_a_buffer_that_a_forward_pass_replaces_is_restored() -> None:
    class Averages(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
            return x

    plain = network()
    plain.insert(0, Averages())
    start_at_optimal_scales_(Objective(plain, NormalKL()), *(part[0] for part in images()), steps=2)
    assert plain[0].mean == 0


def test_an_augmented_objective_starts_from_the_images_as_they_are() -> None:
    pictures, labels = (part[0] for part in images())
    plain, augmented = (Objective(network(), NormalKL(), augmented=augmented) for augmented in (False, True))
    for model in (plain, augmented):
        torch.manual_seed(0)
        start_at_optimal_scales_(model, pictures, labels, steps=2)
    assert all(map(torch.equal, plain.state_dict().values(), augmented.state_dict().values()))


def test_scales_stay_where_the_bound_is_nan_and_where_they_are_frozen() -> None:
    model = network()
    kept = [layer.log_variance.clone() for layer in (model[0], model[3])]
    model[3].log_variance.requires_grad_(False)
    pictures, labels = (part[0] for part in images())
    with pytest.raises(ValueError, match="the bound or its slope in a scale is infinite or NaN: look at the images"):
        start_at_optimal_scales_(Objective(model, NormalKL()), pictures / 0, labels)
    assert torch.equal(model[0].log_variance, kept[0])
    with torch.no_grad():
        start_at_optimal_scales_(Objective(model, NormalKL()), pictures, labels)
    assert [torch.equal(model[i].log_variance, kept[i // 3]) for i in (0, 3)] == [False, True]
    with pytest.raises(ValueError, match="as log-uniform ones may have none"):
        optimal_scale(TruncatedLogUniformKL(), torch.ones(4, 1, 1, 1), steps=80)
