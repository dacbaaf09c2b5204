import copy
import math

import pytest
import torch
from torch import nn

from dwp_init.priors.latent import Normal
from training.bayes import (
    BayesConv2d,
    RelativeBayesConv2d,
    TruncatedLogUniformKL,
    bayesian_layers,
    bayesianize_,
    posterior_mean_,
    sample_network,
)

KINDS = (BayesConv2d, RelativeBayesConv2d)
LAYERS = {
    "plain": nn.Conv2d(3, 4, 3),
    "strided": nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(3, 4, 3, dilation=2, bias=False),
    "same": nn.Conv2d(3, 4, 3, padding="same"),
    "reflecting": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4),
    "pointwise": nn.Conv2d(3, 4, 1),
}


def made(conv: nn.Conv2d, kind: type[BayesConv2d] = BayesConv2d, scale: float = 0.3) -> BayesConv2d:
    torch.manual_seed(0)
    layer = kind.of(copy.deepcopy(conv), scale)
    with torch.no_grad():
        layer.log_variance.add_(0.3 * torch.randn_like(layer.log_variance))
    return layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_local_reparametrisation_has_the_moments_of_sampled_weights(name: str, kind: type[BayesConv2d]) -> None:
    layer = made(LAYERS[name], kind).double().train()
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


def test_gradients_are_finite_where_the_image_is_black() -> None:
    layer = made(nn.Conv2d(1, 2, 3)).train()
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


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 2, 3)),
        nn.Flatten(),
        nn.Linear(32, 2),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_there_and_back(name: str, kind: type[BayesConv2d]) -> None:
    """The mean network computes what the network did, with the same parameters, settings and mode."""
    model = nn.Sequential(copy.deepcopy(LAYERS[name])).eval()
    images = torch.rand(2, LAYERS[name].in_channels, 8, 8)
    before, weight = model(images), model[0].weight
    assert bayesianize_(model, kind=kind) == ["0"] and type(model[0]) is kind
    assert model[0].weight is weight and not model[0].training
    torch.testing.assert_close(model(images), before)
    assert posterior_mean_(model) is model and type(model[0]) is nn.Conv2d and not model[0].training
    assert repr(model[0]) == repr(LAYERS[name])
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)


def test_only_the_chosen_layers_change() -> None:
    model = net()
    others = [model[1], model[2], model[4], model[5], model[0]]
    assert bayesianize_(model, "3.*", scale=0.5) == ["3.0"]
    assert [model[1], model[2], model[4], model[5], model[0]] == others
    assert list(bayesian_layers(model)) == ["3.0"]
    assert bayesianize_(model, ["0", "0"]) == ["0"] and model[0].log_variance.mean() == -10
    assert model[3][0].log_variance.mean().item() == pytest.approx(2 * math.log(0.5))


def test_a_layer_in_two_places_stays_one() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, conv)
    assert bayesianize_(model) == ["0"] and model[0] is model[1]
    assert posterior_mean_(model)[0] is model[1] and type(model[0]) is nn.Conv2d


def test_memory_format_and_dtype_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(torch.float64, memory_format=torch.channels_last)
    bayesianize_(model)
    for tensor in (model[0].weight, model[0].log_variance, sample_network(model)[0].weight):
        assert tensor.dtype == torch.float64 and tensor.is_contiguous(memory_format=torch.channels_last)


def test_sampled_networks_follow_the_posterior() -> None:
    model = net()
    bayesianize_(model, scale=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again, other = (sample_network(model, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0].weight, again[0].weight) and not torch.equal(first[0].weight, other[0].weight)
    assert not any(isinstance(module, BayesConv2d) for module in first.modules()) and not first.training
    assert model.training and all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    draws = torch.stack([sample_network(model)[0].weight for _ in range(400)])
    assert (draws.std(0).mean() - 0.1).abs() < 0.005 and (draws.mean(0) - model[0].weight).abs().max() < 0.03


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


def test_there_and_back_keeps_what_is_frozen_and_the_random_state() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    bayesianize_(model)
    before = torch.get_rng_state()
    sample_network(model, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    posterior_mean_(model)
    assert not model[0].weight.requires_grad and model[0].bias.requires_grad and model[3][0].weight.requires_grad


def test_helpful_errors() -> None:
    model = net()
    with pytest.raises(ValueError, match=r"layers='body\.\*' matches no Conv2d; the model has 0, 3\.0"):
        bayesianize_(model, ["0", "body.*"])
    with pytest.raises(ValueError, match="no Bayesian convolution; call bayesianize_"):
        posterior_mean_(model)
    with pytest.raises(ValueError, match="no Bayesian convolution"):
        sample_network(model)
    with pytest.raises(TypeError, match="got Conv2d: wrap it"):
        bayesianize_(nn.Conv2d(1, 1, 3))
    with pytest.raises(TypeError, match="got int"):
        bayesianize_(3)
    with pytest.raises(ValueError, match=r"layers=\[\] names no layer; give a pattern"):
        bayesianize_(model, [])
    with pytest.raises(TypeError, match=r"kind must be BayesConv2d or RelativeBayesConv2d; got .*Conv2d"):
        bayesianize_(model, kind=nn.Conv2d)
    with pytest.raises(TypeError, match=r"cannot be replaced in itself; use layer\.plain"):
        posterior_mean_(BayesConv2d(1, 1, 3))
    bayesianize_(model, "0")
    with pytest.raises(ValueError, match="0 cannot be made Bayesian: it is a BayesConv2d"):
        bayesianize_(model)
    assert list(bayesian_layers(model)) == ["0"]
    hooked = net()
    hooked[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="0 cannot be made Bayesian: it has hooks"):
        bayesianize_(hooked)
    normed = net()
    nn.utils.parametrizations.weight_norm(normed[0])
    with pytest.raises(ValueError, match="it is a ParametrizedConv2d"):
        bayesianize_(normed)
