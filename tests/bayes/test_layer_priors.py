import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, distributions, nn

import dwp_init
from dwp_init import Gaussian, GaussianMixture, KernelVAE, Prior, PriorSet
from dwp_init.bayes import BayesConv2d, Objective, bayesianize_, layer_priors
from dwp_init.bayes.layer_priors import LayerPrior
from dwp_init.convolutions import layer_of
from dwp_init.priors.latent import Normal


def correlated(channels: int = 1, k: int = 3) -> Gaussian:
    """A Gaussian whose covariance is full."""
    generator = torch.Generator().manual_seed(channels)
    dim = channels * k * k
    kernels = 0.3 + torch.randn(400, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)
    return Gaussian((channels, k, k)).fit_(kernels.view(-1, channels, k, k))


def law(prior: Gaussian, scale: float) -> distributions.MultivariateNormal:
    """Of ``scale`` times a kernel of the prior, written by hand."""
    basis = prior.whitening.basis * prior.whitening.scale
    return distributions.MultivariateNormal(scale * prior.whitening.loc, scale**2 * basis @ basis.T)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.Conv2d(8, 8, 7, padding=3, groups=8),
        nn.Conv2d(8, 8, (1, 3)),
        nn.Conv2d(8, 4, 1),
        nn.Conv2d(4, 4, 9, padding=4),
    )


LAYERS: dict[str, nn.Module] = {
    "dense": nn.Conv2d(4, 6, 3),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4),
    "transposed": nn.ConvTranspose2d(4, 6, 3, groups=2),
}


@pytest.mark.parametrize("scale", [1.0, 0.05])
@pytest.mark.parametrize("name", LAYERS)
def test_the_density_of_scaled_kernels_and_its_gradient(name: str, scale: float) -> None:
    """Against a Gaussian in closed form, of each kernel from one input to one output, and autograd of that density."""
    module, prior = LAYERS[name], correlated()
    weight = (scale * torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    value = LayerPrior(layer_of(module), prior, "mine", scale).log_prob(weight)
    by_hand = law(prior, scale).log_prob(weight.flatten(2).flatten(0, 1)).sum()
    torch.testing.assert_close(value, by_hand, rtol=1e-4, atol=1e-2)
    found, expected = (torch.autograd.grad(each, weight)[0] for each in (value, by_hand))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_channels_that_are_modelled_jointly() -> None:
    """The channels of one output make up one kernel, in a transposed layer too, where they come first."""
    prior = correlated(channels=2)
    plain, transposed = nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(2, 6, 3)
    of_plain, of_transposed = plain.weight.flatten(1), transposed.weight.transpose(0, 1).flatten(1)
    for module, kernels in ((plain, of_plain), (transposed, of_transposed)):
        value = LayerPrior(layer_of(module), prior, "mine", 0.2).log_prob(module.weight)
        torch.testing.assert_close(value, law(prior, 0.2).log_prob(kernels).sum(), rtol=1e-4, atol=1e-2)


def test_divergences_of_scaled_kernels_are_those_of_the_closed_form() -> None:
    model, prior = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2)), correlated()
    priors = bayesianize_(model, prior=prior, scale=0.03)
    scale = priors["0"].scale
    assert isinstance(model[0], BayesConv2d) and not 0.9 < scale < 1.1
    q = Normal(*(part.reshape(12, 9) for part in model[0].q))
    posteriors = distributions.MultivariateNormal(q.loc, torch.diag_embed(q.scale.square()))
    expected = distributions.kl_divergence(posteriors, law(prior, scale)).sum()
    torch.testing.assert_close(Objective(model, priors.terms()).kl(), expected[None], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", ["keep", "fan_in"])
def test_draws_at_the_scale_have_the_response_of_the_layer(scale: str) -> None:
    model = nn.Sequential(nn.Conv2d(8, 400, 3))
    layer, prior = layer_of(model[0]), correlated()
    found = layer_priors(model, prior, scale=scale)["0"]
    kernels = found.scale * prior.sample(3200, torch.Generator().manual_seed(3))
    wanted = layer.measure(model[0].weight).response if scale == "keep" else layer.he_rms
    assert layer.measure(layer.arrange(kernels)).response == pytest.approx(wanted, rel=0.03)
    assert layer_priors(model, prior, scale="prior")["0"].scale == 1


def test_a_layer_that_was_drawn_has_the_scale_of_its_draw() -> None:
    """So the present weights and the prior agree: the mean log p of the layer's kernels is that of draws."""
    torch.manual_seed(0)
    model, prior = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64)), correlated()
    dwp_init.apply_(model, prior, seed=0)
    priors = layer_priors(model, prior)
    scale, n = priors["0"].scale, 16 * 64
    drawn = law(prior, scale).sample((4000,))
    expected = law(prior, scale).log_prob(drawn).mean()
    assert priors.log_prob(model).item() / n == pytest.approx(expected.item(), abs=0.5)


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    widths = (3, 16, 32, 64, 128)
    parts = [(nn.Conv2d(*pair, 3), nn.BatchNorm2d(pair[1]), nn.ReLU()) for pair in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*parts))


@pytest.mark.parametrize("seed", [0, 1])
def test_draws_of_natural_have_the_scale_of_their_prior(seed: int) -> None:
    """Orthogonal channels have the root mean square of the prior, and filters of a stem a typical density."""
    model = dense()
    dwp_init.apply_(model, "natural", scale="keep", seed=seed)  # by default most layers pass their inputs on
    priors = layer_priors(model, "natural")
    for given in priors.values():
        weight = given.layer.weight.read()
        typical = given.prior.sample(4000, torch.Generator().manual_seed(seed))
        density = given.log_prob(weight).item() / given.layer.filters(weight).reshape(-1, given.prior.dim).shape[0]
        expected = (given.prior.log_prob(typical).mean() - given.prior.dim * math.log(given.scale)).item()
        if given.prior.joint:
            assert density == pytest.approx(expected, abs=0.5)
            continue
        rms = (given.scale * typical).square().mean().sqrt().item()
        assert weight.square().mean().sqrt().item() == pytest.approx(rms, rel=0.06)
        assert expected - 10 < density < expected + 1
    assert len(priors) == 4


def test_a_sharded_model_has_the_density_of_the_whole(alone: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3))
    model = copy.deepcopy(plain)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    for each in (plain, model):
        priors = layer_priors(each, correlated())
        priors.log_prob(each).backward()
    torch.testing.assert_close(priors.log_prob(model), priors.log_prob(plain))
    for ours, theirs in zip(model, plain, strict=True):
        torch.testing.assert_close(ours.weight.grad.full_tensor(), theirs.weight.grad)


def test_natural_by_kind_and_depth() -> None:
    model = network()
    priors = layer_priors(model, "natural")
    assert {name: given.name for name, given in priors.items()} == {
        "0": "natural-stem",
        "3": "tinyimagenet-3x3",
        "4": "natural-dw7x7",
    }
    assert priors["0"].prior.kernel_shape == (3, 3, 3) and priors["3"].layer.depth == 0.25
    depth = dwp_init.load_prior("tinyimagenet-3x3").at(0.25)
    kernels = model[3].weight.detach().reshape(-1, 1, 3, 3) / priors["3"].scale
    torch.testing.assert_close(priors["3"].prior.log_prob(kernels), depth.log_prob(kernels))
    assert set(priors.skipped) == {"5", "6", "7"}
    assert "middle row of 3×3 of tinyimagenet-3x3 is not known" in priors.skipped["5"]
    assert priors.skipped["7"] == "no prior given fits 9×9 dense kernels here"
    text = str(priors)
    assert "4" in text and "natural-dw7x7" in text and "6: no prior given fits 1×1 dense kernels here" in text


def test_layers_without_a_prior_take_a_normal_one_or_stay() -> None:
    model = network()
    priors = bayesianize_(copy.deepcopy(model), prior="natural", without="normal")
    assert {name for name, given in priors.items() if given.name == "normal"} == {"6", "7"}
    weight, scale = model[6].weight, priors["6"].scale
    assert scale == pytest.approx(weight.square().mean().sqrt().item() * layer_of(model[6]).measure(weight).gain)
    expected = distributions.Normal(0.0, scale).log_prob(weight).sum()
    torch.testing.assert_close(priors["6"].log_prob(weight), expected)
    assert list(bayesianize_(model, prior="natural")) == ["0", "3", "4"]
    assert [type(layer).__name__ for layer in model] == [
        *("BayesConv2d", "BatchNorm2d", "ReLU", "BayesConv2d", "BayesConv2d", "Conv2d", "Conv2d", "Conv2d")
    ]


def test_in_plain_chains_a_layer_takes_no_prior_that_does_not_fit() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 5), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 32, 3))
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    assert list(layer_priors(model, "natural")) == ["0", "6"]
    assert list(layer_priors(model, "natural", without="normal")) == ["0", "2", "4", "6"]


def test_a_pattern_without_a_layer_is_refused_also_where_normal_priors_stand_in() -> None:
    with pytest.raises(ValueError, match="the pattern 'stem' of prior= matches no convolution"):
        layer_priors(network(), {"stem": "natural", "*": "natural"}, without="normal")


def test_normal_priors_have_the_dtype_of_the_weights() -> None:
    weight = torch.randn(4, 1, 9, 9, dtype=torch.float64)
    model = nn.Sequential(nn.Conv2d(1, 4, 9, dtype=torch.float64), nn.Conv2d(4, 4, 3, dtype=torch.float64))
    given = layer_priors(model, "tinyimagenet-3x3", without="normal")["0"]
    expected = distributions.Normal(0.0, torch.tensor(given.scale, dtype=torch.float64)).log_prob(weight).sum()
    torch.testing.assert_close(given.log_prob(weight), expected, rtol=1e-14, atol=0)


def test_what_cannot_be_bayesian_stays_and_says_why() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    model[2].weight.requires_grad_(False)
    priors = bayesianize_(model, prior=correlated())
    assert list(priors) == ["0"] and "frozen" in priors.skipped["2"]
    assert priors.skipped["1"] == "cannot be made Bayesian: it is a ConvTranspose2d, not a plain Conv2d"
    with pytest.raises(ValueError, match="no layer with a prior can be made Bayesian: 1 cannot be made Bayesian"):
        bayesianize_(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(4, 4, 3)), prior=correlated())


def test_the_mode_of_a_regression_by_log_prob_is_the_closed_form() -> None:
    """Images of one impulse make a convolution linear in its weight: the MAP estimate is a ridge solution."""
    torch.manual_seed(0)
    prior = correlated().double()
    model = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False)).double()
    x, y = torch.randn(30, 1, 3, 3, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    priors = layer_priors(model, prior)
    assert priors["0"].prior.dtype == torch.float64
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * (model(x).flatten() - y).square().sum() - priors.log_prob(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    p, design = law(prior, priors["0"].scale), x.flatten(1)
    mode = torch.linalg.solve(design.T @ design + p.precision_matrix, design.T @ y + p.precision_matrix @ p.loc)
    torch.testing.assert_close(model[0].weight.detach().flatten(), mode, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prior", [correlated(), GaussianMixture((1, 3, 3), 2), dwp_init.load_prior("natural-dw3x3")])
def test_every_exact_prior_regularises(prior: Prior) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    before = copy.deepcopy(prior.state_dict())
    (-layer_priors(model, {"0": prior}).log_prob(model)).backward()
    assert model[0].weight.grad.abs().sum() > 0 and not any(each.requires_grad for each in prior.buffers())
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())


def test_a_bound_must_be_asked_for_by_name() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    priors = layer_priors(model, KernelVAE((1, 3, 3), latent_dim=2, hidden=8))
    with pytest.raises(ValueError, match="'KernelVAE' in layer '0' has a lower bound on log p, not log p itself"):
        priors.log_prob(model)
    (-priors.log_prob(model, bound=True)).backward()
    assert model[0].weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="bound=True has no effect"):
        layer_priors(model, correlated()).log_prob(model, bound=True)
    assert priors.terms(draws=3)["0"].term.draws == 3
    with pytest.raises(ValueError, match="draws=3 has no effect"):
        layer_priors(model, correlated()).terms(draws=3)


def test_wrappers_and_other_models() -> None:
    model = network()
    priors = layer_priors(model, "natural")
    expected = priors.log_prob(model)
    torch.testing.assert_close(priors.log_prob(nn.DataParallel(model)), expected)
    with pytest.raises(ValueError, match="the model has no layer 4; choose its priors again with layer_priors"):
        priors.log_prob(model[:4])


def test_layers_that_pass_their_inputs_on_have_no_density() -> None:
    """Also in part; before apply_ they have that of draws at He's scale, and a note says so."""
    widths = [(16, 16), (16, 32), (32, 8)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *(part for pair in widths for part in (nn.ReLU(), nn.Conv2d(*pair, 3))))
    (note,) = layer_priors(model, "natural").notes
    assert note.startswith("layers 0, 2, 4 have PyTorch's default scale in a chain without normalisation")
    dwp_init.apply_(again := copy.deepcopy(model), "natural", seed=0, scale="fan_in")  # the way out that it names
    found = layer_priors(again, "natural")
    assert "scale='fan_in'" in note and list(found) == ["0", "2", "4", "6"] and found.notes == ()
    dwp_init.apply_(model, "natural", seed=0)
    found = layer_priors(model, "natural")
    assert list(found) == ["0", "6"] and set(found.skipped) == {"2", "4"} and found.notes == ()
    why = "its first output channels are copies of its inputs, which tinyimagenet-3x3 does not draw; in a new model, "
    assert found.skipped["2"] == f"{why}scale='fan_in' of apply_ draws all channels"


def test_a_weight_that_hooks_make_has_no_prior() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), torch.nn.utils.weight_norm(nn.Conv2d(4, 4, 3)))
    found = layer_priors(model, Gaussian((1, 3, 3)))
    assert list(found) == ["0"] and found.skipped["1"].startswith("hooks make its weight in each forward pass")
    model[0] = nn.Conv2d(1, 5, 3)
    with pytest.raises(ValueError, match=r"layer '0' has 5×1×3×3, but its prior is for 4×1×3×3; choose"):
        found.log_prob(model)


def test_helpful_errors() -> None:
    model = network()
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module; got int"):
        layer_priors(3, "natural")
    with pytest.raises(ValueError, match="without must be one of 'fixed', 'normal'; got 'none'"):
        layer_priors(model, "natural", without="none")
    with pytest.raises(ValueError, match="scale must be one of"):
        layer_priors(model, "natural", scale="big")
    with pytest.raises(ValueError, match="no layer can be initialised"):
        layer_priors(nn.Sequential(nn.Conv2d(4, 4, 9)), "natural")
    with pytest.raises(ValueError, match="no layer can have a prior: 0: the density of the middle row of 3×3"):
        layer_priors(nn.Sequential(nn.Conv2d(8, 8, (1, 3))), PriorSet(dense=("tinyimagenet-3x3",)))
    with pytest.raises(ValueError, match=r"layers='x\.\*' matches no convolution"):
        bayesianize_(model, "x.*", prior="natural")
    priors = bayesianize_(model, prior="natural")
    terms = priors.terms()
    with pytest.raises(ValueError, match="divergence for 'x', which is no Bayesian layer; there are 0, 3, 4"):
        Objective(model, {**terms, "x": terms["0"]})
    with pytest.raises(ValueError, match="layer '4', a BayesConv2d of 8×1×7×7, has no divergence"):
        Objective(model, {name: terms[name] for name in ("0", "3")})
    with pytest.raises(ValueError, match="layer '0', a BayesConv2d of 8×3×3×3, has no divergence from a prior"):
        Objective(model, {**terms, "0": terms["4"]})
    assert Objective(model, terms).kl().isfinite().all()
