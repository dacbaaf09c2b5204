import copy
import math

import pytest
import torch
from torch import nn

from dwp_init.bayes import (
    BayesConv2d,
    Estimator,
    NormalKL,
    Objective,
    RelativeBayesConv2d,
    TruncatedLogUniformKL,
    bayesianize_,
    sample_network,
)
from dwp_init.priors.latent import Normal
from tests.bayes.small import KINDS, LAYERS

ESTIMATORS: tuple[Estimator, ...] = ("flipout", "local")


def made(
    conv: nn.Conv2d,
    kind: type[BayesConv2d] = BayesConv2d,
    scale: float = 0.3,
    estimator: Estimator = "local",
) -> BayesConv2d:
    torch.manual_seed(0)
    layer = kind.of(copy.deepcopy(conv), scale, estimator)
    with torch.no_grad():
        layer.log_variance.add_(0.3 * torch.randn_like(layer.log_variance))
    return layer


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_have_the_moments_of_sampled_weights(name: str, kind: type[BayesConv2d], estimator: Estimator) -> None:
    layer = made(LAYERS[name], kind, estimator=estimator).double().train()
    images = torch.rand(2, layer.in_channels, 7, 8, dtype=torch.float64)
    draws = 20_000
    with torch.no_grad():
        local = torch.stack([layer(images) for _ in range(2000)])
        sampled = torch.stack(
            [layer._conv_forward(images, layer.draw_weight(), layer.bias) for _ in range(draws // 10)]
        )
        mean = layer.eval()(images)
    spread = local.std(0)
    assert local.shape == sampled.shape and (local.mean(0) - mean).abs().max() < 6 * spread.max() / math.sqrt(2000)
    assert (sampled.mean(0) - mean).abs().max() < 6 * spread.max() / math.sqrt(2000)
    ratio = sampled.std(0) / spread
    assert (ratio - 1).abs().max() < 0.12 and (ratio.mean() - 1).abs() < 0.02


def test_noise_is_independent_over_places_only_in_training_outputs() -> None:
    """Sampled weights share their noise over places; local reparametrisation does not."""
    layer = made(nn.Conv2d(1, 1, 3)).train()
    images = torch.ones(1, 1, 3, 4)
    with torch.no_grad():
        local = torch.stack([layer(images).flatten() for _ in range(2000)])
        sampled = torch.stack([layer.plain(layer.draw_weight())(images).flatten() for _ in range(2000)])
    assert torch.corrcoef(local.T)[0, 1].abs() < 0.1 and torch.corrcoef(sampled.T)[0, 1] > 0.99


@pytest.mark.parametrize("name", LAYERS)
def test_flipout_draws_the_outputs_of_an_image_together_and_those_of_two_images_apart(name: str) -> None:
    layer, draws = made(LAYERS[name], estimator="flipout").train(), 4000
    images = torch.rand(2, layer.in_channels, 6, 5)
    with torch.no_grad():
        flipout = torch.stack([layer(images).flatten(1) for _ in range(draws)])
        sampled = torch.stack([layer.plain(layer.draw_weight())(images).flatten(1) for _ in range(draws)])
    of_one, truth = (torch.corrcoef(each[:, 0].T) for each in (flipout, sampled))
    assert truth.fill_diagonal_(0).abs().max() > 0.5 and (of_one.fill_diagonal_(0) - truth).abs().max() < 0.12
    count = flipout.shape[2]
    between = [torch.corrcoef(each.flatten(1).T)[:count, count:].abs().max() for each in (flipout, sampled)]
    assert between[0] < 0.1 and between[1] > 0.5


@pytest.mark.parametrize("shape", [(3, 7, 7), (1, 3, 7, 7), (0, 3, 7, 7)])
def test_flipout_takes_what_a_convolution_takes(shape: tuple[int, ...]) -> None:
    layer = made(nn.Conv2d(3, 4, 3, padding=1), estimator="flipout").train()
    assert layer(torch.rand(shape)).shape == (*shape[:-3], 4, 7, 7)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_objective_of_a_network_with_global_pooling(estimator: Estimator) -> None:
    """Flipout's is that of drawn networks; local reparametrisation averages its noise away."""
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1))
    network = nn.Sequential(convolutions, nn.Flatten(), nn.Linear(8, 4)).train()
    network[2].weight.data.mul_(8)
    bayesianize_(network, scale=0.5, estimator=estimator)
    objective, images, labels = Objective(network, NormalKL()), torch.rand(8, 1, 12, 12), torch.arange(8) % 4
    with torch.no_grad():
        trained = torch.stack([objective.nll(images, labels, 8) for _ in range(1500)])
        drawn = torch.stack([Objective(sample_network(network)).nll(images, labels, 8) for _ in range(1500)])
    error = (trained.var() / 1500 + drawn.var() / 1500).sqrt()
    if estimator == "flipout":
        assert (trained.mean() - drawn.mean()).abs() < 4 * error
    else:
        assert trained.mean() < 0.7 * drawn.mean()


def test_an_estimator_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"estimator must be one of 'flipout', 'local'; got 'reparam'"):
        BayesConv2d(1, 1, 3, estimator="reparam")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_finite_where_the_image_is_black(estimator: Estimator) -> None:
    layer = made(nn.Conv2d(1, 2, 3), estimator=estimator).train()
    layer(torch.zeros(1, 1, 5, 5)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize(("kind", "scale"), [(BayesConv2d, 0.0067), (BayesConv2d, 2.0), (RelativeBayesConv2d, 0.345)])
def test_the_scale_at_the_start(kind: type[BayesConv2d], scale: float) -> None:
    conv = nn.Conv2d(3, 4, 3)
    q = kind.of(conv, scale).q
    part = conv.weight.abs() + 1e-6 if kind is RelativeBayesConv2d else torch.ones_like(conv.weight)
    assert q.loc is conv.weight
    torch.testing.assert_close(q.scale, scale * part, atol=1e-5, rtol=1e-4)


def test_the_relative_posterior_starts_as_the_authors_did() -> None:
    assert RelativeBayesConv2d(1, 1, 3).log_variance.sigmoid().mean().item() == pytest.approx(0.119, abs=1e-3)
    assert BayesConv2d(1, 1, 3).log_variance.mean().item() == -10


@pytest.mark.parametrize(
    ("kind", "scale", "message"),
    [
        (BayesConv2d, 0.0, "must be a number above 0; got 0.0"),
        (BayesConv2d, math.inf, "must be a number above 0; got inf"),
        (BayesConv2d, "1", "must be a number above 0; got '1'"),
        (RelativeBayesConv2d, 1.0, "must be below 1; got 1.0"),
    ],
)
def test_wrong_scales(kind: type[BayesConv2d], scale: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.of(nn.Conv2d(1, 1, 3), scale)


def test_the_relative_posterior_near_zero() -> None:
    """α stays at most 1 and its divergence flat in the weight, down to 0."""
    layer = RelativeBayesConv2d(1, 1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0, 1e-20, 1e-10, 1e-8, 1e-7, 1e-6, 1e-4, -1e-8, 0.1]).view(1, 1, 3, 3))
        layer.log_variance.fill_(30.0)
    each = TruncatedLogUniformKL()(Normal(*(part.view(-1, 1, 1, 1) for part in layer.q)))
    torch.testing.assert_close(each, each[-1:].expand(9), rtol=1e-3, atol=1e-4)
    each.sum().backward()
    assert layer.weight.grad.abs().max() < 1 and layer.log_variance.grad.isfinite().all()
    assert (layer.q.scale <= layer.weight.abs() + 1.1e-6).all()


def test_small_images_have_noise_in_proportion() -> None:
    layer, images = BayesConv2d(1, 8, 3, scale=0.01, bias=False, estimator="local"), torch.rand(4, 1, 9, 9)
    spread = [((layer(by * images) - layer.eval()(by * images)).std() / by).item() for by in (1, 1e-6) if layer.train()]
    assert spread[1] == pytest.approx(spread[0], rel=0.1)
