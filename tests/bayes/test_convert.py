import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dwp_init.bayes import (
    BayesConv2d,
    RelativeBayesConv2d,
    bayesian_layers,
    bayesianize_,
    posterior_mean_,
    sample_network,
)
from tests.bayes.small import KINDS, LAYERS


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
    assert list(bayesianize_(model, kind=kind)) == ["0"] and type(model[0]) is kind
    assert model[0].weight is weight and not model[0].training
    torch.testing.assert_close(model(images), before)
    assert posterior_mean_(model) is model and type(model[0]) is nn.Conv2d and not model[0].training
    assert repr(model[0]) == repr(LAYERS[name])
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)


def test_only_the_chosen_layers_change() -> None:
    model = net()
    others = [model[1], model[2], model[4], model[5], model[0]]
    assert list(bayesianize_(model, "3.*", scale=0.5)) == ["3.0"]
    assert [model[1], model[2], model[4], model[5], model[0]] == others
    assert list(bayesian_layers(model)) == ["3.0"]
    assert list(bayesianize_(model, ["0", "0"])) == ["0"] and model[0].log_variance.mean() == -10
    assert model[3][0].log_variance.mean().item() == pytest.approx(2 * math.log(0.5))


def test_a_layer_in_two_places_stays_one() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, conv)
    assert list(bayesianize_(model)) == ["0"] and model[0] is model[1]
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


def test_there_and_back_keeps_what_is_frozen_and_the_random_state() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    bayesianize_(model)
    before = torch.get_rng_state()
    sample_network(model, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    posterior_mean_(model)
    assert not model[0].weight.requires_grad and model[0].bias.requires_grad and model[3][0].weight.requires_grad


def test_tied_weights_and_options_without_effect_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match="prior_scale='keep', without='fixed' have no effect without prior"):
        bayesianize_(model, prior_scale="keep")
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="0 cannot be made Bayesian: it shares its weight with 1; leave it out"):
        bayesianize_(model)


def test_weights_that_other_modules_hold_are_refused() -> None:
    for other in (nn.Conv2d(4, 4, 3), nn.Linear(3, 3)):
        model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), other)
        other.weight = model[0].weight
        for prior in (None, "natural"):
            with pytest.raises(ValueError, match="0 cannot be made Bayesian: it shares its weight with 2"):
                bayesianize_(model, "0", prior=prior)
        assert type(model[0]) is nn.Conv2d


OWN: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "forward": (lambda conv: setattr(conv, "forward", lambda x: 2 * x), "it has a forward of its own, which would"),
    "inner": (lambda conv: setattr(conv, "_conv_forward", lambda *x: 2 * x[0]), "it has a _conv_forward of its own"),
    "compiled": (lambda conv: conv.compile(), "it has a _compiled_call_impl of its own"),
    "buffer": (lambda conv: conv.register_buffer("mask", torch.ones(1)), "it has a mask of its own"),
    "module": (lambda conv: conv.add_module("norm", nn.Identity()), "it has a norm of its own"),
    "state hook": (lambda conv: conv.register_state_dict_pre_hook(lambda *_: None), "it has hooks"),
    "forward hook": (lambda conv: conv.register_forward_hook(lambda *_: None), "it has hooks, which would be lost"),
}


@pytest.mark.parametrize("name", OWN)
def test_what_a_layer_has_of_its_own_is_kept_or_refused(name: str) -> None:
    change, message = OWN[name]
    model = net()
    model[0].index = 3
    bayesianize_(model)
    assert model[0].index == 3 and posterior_mean_(model)[0].index == 3
    change(model[0])
    with pytest.raises(ValueError, match=f"0 cannot be made Bayesian: {message}"):
        bayesianize_(model)


def test_parallel_wrappers_come_after(alone: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    wrapped = nn.parallel.DistributedDataParallel(net())
    with pytest.raises(ValueError, match="DistributedDataParallel would not see the gradients of new parameters: call"):
        bayesianize_(wrapped)
    model = net()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="0 cannot be made Bayesian: its weight is sharded: call bayesianize_ first"):
        bayesianize_(model)


def test_normal_priors_know_the_depth_of_their_layers() -> None:
    assert [given.layer.depth for given in bayesianize_(net()).values()] == [0.0, 1.0]


def test_helpful_errors() -> None:
    model = net()
    with pytest.raises(ValueError, match=r"layers='body\.\*' matches no Conv2d; the model has 0, 3\.0"):
        bayesianize_(model, ["0", "body.*"])
    with pytest.raises(ValueError, match=r"layers='natural' matches no Conv2d; did you mean prior='natural'\?"):
        bayesianize_(model, "natural")
    with pytest.raises(TypeError, match=r"layers are patterns of names, .*; got a Sequential: give the names of a"):
        bayesianize_(model, model[3])
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


def test_layers_that_start_as_noise_are_noted() -> None:
    """PyTorch's default weights of 1,280 inputs and 3×3 taps have a root mean square of 1 / √(3 · 11,520) = 0.0054."""
    model = nn.Sequential(nn.Conv2d(1280, 4, 3), nn.Conv2d(4, 4, 3))
    (note,) = bayesianize_(copy.deepcopy(model)).notes
    assert note.startswith("layers 0 start as noise: the root mean square of their weights is 0.0054 or more,")
    assert bayesianize_(copy.deepcopy(model), scale=1e-3).notes == ()
    assert bayesianize_(model, kind=RelativeBayesConv2d).notes == ()


def test_conversion_draws_nothing() -> None:
    model, before = net(), torch.get_rng_state()
    bayesianize_(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_that_stay_have_a_reason() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    model[2].weight.requires_grad_(False)
    named = "its weight is frozen; give its exact name in layers= to make it Bayesian"
    reasons = {"1": "it is a ConvTranspose2d, not a plain Conv2d", "2": named}
    assert bayesianize_(copy.deepcopy(model)).skipped == reasons
    found = bayesianize_(copy.deepcopy(model), ["2"])
    assert list(found) == ["2"] and found.skipped == {"0": "not asked for", "1": reasons["1"]}
    with pytest.raises(ValueError, match=r"^the weights of 0 are frozen; give its exact name"):
        bayesianize_(nn.Sequential(nn.Conv2d(1, 1, 1)).requires_grad_(False))


def test_hooks_stay_and_a_wrapped_forward_is_refused() -> None:
    model, images = net().eval(), torch.rand(2, 1, 8, 8)
    bayesianize_(model, scale=0.3)
    model[0].register_forward_hook(lambda module, inputs, output: output * 0)
    assert torch.equal(sample_network(model)(images)[0], model(images)[0])
    assert not sample_network(model[0])(images).any() and type(sample_network(model[0])) is nn.Conv2d
    model[0].compile(backend="eager")
    assert sample_network(model)[0]._compiled_call_impl is None
    model[0].forward = model[0].forward
    for change in (sample_network, posterior_mean_):
        with pytest.raises(ValueError, match="0 has a forward of its own, which would be lost: take it off first"):
            change(model)


def test_scales_made_in_inference_mode_can_be_trained() -> None:
    model = net()
    with torch.inference_mode():
        bayesianize_(model)
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    torch.optim.Adam(model.parameters()).step()
    with pytest.raises(ValueError, match="the scale of a posterior must be a number above 0; got 'x'"):
        bayesianize_(net(), scale="x")  # type: ignore[arg-type]
