import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from dwp_init import Gaussian, GaussianMixture
from dwp_init.bayes import (
    KL,
    BayesConv2d,
    Estimator,
    GaussianKL,
    MonteCarloKL,
    NormalKL,
    Objective,
    RelativeBayesConv2d,
    ScaledKL,
    TruncatedLogUniformKL,
    bayesianize_,
    kl_from,
    posterior_mean_,
    predict,
)
from dwp_init.priors.latent import Normal
from tests.bayes.small import gaussian, images, network, objective, vae


def test_the_parts_of_the_bound() -> None:
    """The minibatch is scaled up to the data, the divergence is summed over all kernels, once."""
    model = objective([GaussianKL(gaussian(3)), GaussianKL(gaussian(5))]).eval()
    pictures, labels = (part[0] for part in images())
    terms = model(pictures[:4], labels[:4], 12)
    loss = nn.functional.cross_entropy(model.network(pictures[:4]), labels[:4], reduction="sum")
    torch.testing.assert_close(terms.nll, loss * 3)
    for layer, kl, k in zip((model.network[0], model.network[3]), terms.kl, (3, 5), strict=True):
        each = [GaussianKL(gaussian(k))(Normal(*(part[o, i][None, None] for part in layer.q)))
                for o in range(layer.out_channels) for i in range(layer.in_channels)]  # fmt: skip
        torch.testing.assert_close(kl, torch.cat(each).sum())


def test_copies_of_an_image_count_once_by_their_mean_likelihood() -> None:
    model, (pictures, labels) = objective(NormalKL()).eval(), images()
    augmented = Objective(model.network, NormalKL(), augmented=True).eval()
    pictures, labels = pictures[0, :4], labels[0, :4]
    copies = pictures[:, None] + 0.5 * torch.randn(4, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    likelihood = model.network(copies.flatten(0, 1)).softmax(1).view(4, 3, 2)[range(4), :, labels].mean(1)
    torch.testing.assert_close(augmented.nll(copies, labels, 40), -10 * likelihood.log().sum())
    same = pictures[:, None].expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(augmented.nll(same, labels, 40), model.nll(pictures, labels, 40))
    mean_of_logs = torch.stack([model.nll(copies[:, k], labels, 40) for k in range(3)]).mean()
    assert augmented.nll(copies, labels, 40) < mean_of_logs
    torch.testing.assert_close(augmented.nll(copies[:, :1], labels, 40), model.nll(copies[:, 0], labels, 40))
    with pytest.raises(ValueError, match=r"\(batch, copies, c, h, w\) for 4 labels; got \(4, 1, 8, 8\)"):
        augmented.nll(pictures, labels, 40)


def test_a_network_of_videos_takes_batches_of_five_dimensions() -> None:
    model = nn.Sequential(
        nn.Flatten(0, 1),
        nn.Conv2d(1, 2, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Unflatten(0, (2, 3)),
        nn.Flatten(),
    )
    bayesianize_(model)
    videos, labels = torch.rand(2, 3, 1, 5, 5), torch.tensor([0, 1])
    loss = nn.functional.cross_entropy(model.eval()(videos), labels)
    torch.testing.assert_close(Objective(model, NormalKL()).eval().nll(videos, labels, 2), 2 * loss)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": torch.compile,
    "DataParallel": nn.DataParallel,
    "two": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_do_not_change_the_names_of_layers(wrap: Callable[[nn.Module], nn.Module], first: bool) -> None:
    model = network(bayesian=False)
    wrapped = wrap(model) if first else model
    priors = bayesianize_(wrapped, prior=["notmnist-5x5", gaussian(3)])
    wrapped = wrapped if first else wrap(model)
    found, plain = (Objective(each, priors.terms()) for each in (wrapped, model))
    assert found.layers == plain.layers == list(priors)
    torch.manual_seed(0)
    expected = plain.kl()
    torch.manual_seed(0)
    assert torch.equal(found.kl(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_train(dtype: torch.dtype) -> None:
    """Divergences are in float32 at least, and so is the noise of outputs whose variance is 0."""
    expected = Objective(network(), [GaussianKL(gaussian(3)), GaussianKL(gaussian(5))]).kl()
    model = Objective(network().to(dtype), [GaussianKL(gaussian(3)), GaussianKL(gaussian(5))])
    torch.testing.assert_close(model.kl().float(), expected, rtol=2e-2, atol=0)
    assert model.kl().dtype is torch.promote_types(dtype, torch.float32)
    terms = model(torch.zeros(4, 1, 8, 8, dtype=dtype), torch.arange(4) % 2, 12)
    (terms.nll + terms.kl.sum()).backward()
    assert all(value.grad.isfinite().all() for value in model.network.parameters())


def test_half_precision_is_as_single_precision() -> None:
    """Scales that float16 cannot square, losses of large data, and variances near 0."""
    single, half = (Objective(network().to(dtype), NormalKL()) for dtype in (torch.float32, torch.float16))
    for model in (single, half):
        with torch.no_grad():
            for layer, _ in model.pairs():
                layer.log_variance.fill_(-24)
    pictures, labels = torch.rand(4, 1, 8, 8), torch.arange(4) % 2
    found = [model.eval()(pictures.to(model.network[0].weight.dtype), labels, 100_000) for model in (single, half)]
    torch.testing.assert_close(found[1], found[0], rtol=5e-3, atol=0)
    for model in (single, half):
        model.kl().sum().backward()
    ours, theirs = (model.network[3].log_variance.grad.float() for model in (half, single))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0)


@pytest.mark.parametrize("estimator", ["flipout", "local"])
def test_the_noise_of_outputs_in_half_precision(estimator: Estimator) -> None:
    torch.manual_seed(0)
    layer = BayesConv2d(1, 800, 3, scale=1e-4, estimator=estimator).half()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    noise = layer(torch.ones(64, 1, 4, 4, dtype=torch.float16)).float().std().item()
    assert noise == pytest.approx(3e-4, rel=0.05)
    assert layer(torch.full((1, 1, 8, 8), 300.0, dtype=torch.float16)).isfinite().all()


def test_an_output_that_is_no_tensor_is_refused() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.inner(x)}

    model, (pictures, labels) = Objective(Named(), NormalKL()), images()
    for call in (lambda: model.nll(pictures[0], labels[0], 12), lambda: predict(model.network, pictures[0])):
        with pytest.raises(ValueError, match=r"returns a dict, and logits must be a tensor .* or add objective\.kl"):
            call()


def test_a_network_that_lost_its_layers_is_refused() -> None:
    model = objective(NormalKL())
    posterior_mean_(model.network)
    with pytest.raises(ValueError, match="had the Bayesian layers 0, 3, and has none now"):
        model.kl()


@pytest.mark.parametrize("kernels", [1, 5, 11])
def test_a_random_subset_of_kernels_is_unbiased(kernels: int) -> None:
    whole, part = (objective([NormalKL(0.3)], kernels=count) for count in (None, kernels))
    torch.manual_seed(0)
    draws = torch.stack([part.kl().detach() for _ in range(3000)])
    error = draws.std(0) / math.sqrt(3000)
    assert (error[1] > 0) and ((draws.mean(0) - whole.kl()).abs() < 4 * error + 1e-3).all()


def test_gradients_of_a_subset_are_unbiased() -> None:
    whole, part = (objective([NormalKL(0.3)], kernels=count) for count in (None, 3))
    whole.kl().sum().backward()
    torch.manual_seed(0)
    for _ in range(2000):
        (part.kl().sum() / 2000).backward()
    for ours, theirs in zip(part.network.parameters(), whole.network.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=0.2, atol=0.1 * theirs.grad.abs().max().item())


def test_kernels_of_several_channels() -> None:
    prior = Gaussian((3, 5, 5)).fit_(torch.randn(300, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    model = objective([NormalKL(kernel_shape=(1, 3, 3)), GaussianKL(prior)])
    layer = model.network[3]
    torch.testing.assert_close(model.kl()[1], GaussianKL(prior)(Normal(*layer.q)).sum())


def test_kernels_of_several_channels_are_for_layers_of_so_many() -> None:
    """Unless the layer is named: three channels of an image are not any three of six."""
    prior = Gaussian((3, 5, 5))
    named = Objective(network(channels=6), {"0": NormalKL(), "3": GaussianKL(prior)})
    assert named.terms[1].kernel_shape == (3, 5, 5)
    with pytest.raises(ValueError, match=r"layer '3'.* has no divergence .*GaussianKL of 3×5×5 kernels"):
        Objective(network(channels=6), [NormalKL(kernel_shape=(1, 3, 3)), GaussianKL(prior)])


TERMS: dict[str, Callable[[], KL]] = {
    "gaussian": lambda: GaussianKL(gaussian(3)),
    "mixture": lambda: MonteCarloKL(GaussianMixture((1, 3, 3), 2)),
    "vae": lambda: kl_from(vae(3)),
    "several draws": lambda: kl_from(vae(3), draws=3),
    "scaled": lambda: ScaledKL(GaussianKL(gaussian(3)), 0.01),
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_reach_divergences(dtype: torch.dtype, name: str) -> None:
    model = Objective(network(), [TERMS[name](), NormalKL()])
    torch.manual_seed(0)
    expected = model.kl()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype):
        found = model.kl()
    assert torch.equal(found, expected) and found.isfinite().all()


def test_bounds_are_in_full_precision_too() -> None:
    prior, kernels = vae(3), torch.randn(4, 1, 3, 3)
    for bound in (prior.elbo, prior.blind_elbo, partial(prior.importance_bound, samples=2)):
        with torch.autocast("cpu", torch.bfloat16):
            found = bound(kernels, generator=torch.Generator().manual_seed(0))
        assert torch.equal(found, bound(kernels, generator=torch.Generator().manual_seed(0)))


def test_a_prior_without_a_layer_and_a_layer_without_a_prior() -> None:
    with pytest.raises(ValueError, match=r"layer '3', a BayesConv2d of 4×3×5×5, has no .*1×3×3.*KL would be 0"):
        objective([GaussianKL(gaussian(3))])
    with pytest.raises(ValueError, match=r"layer '0'.*fits \(none\)"):
        objective([])
    with pytest.raises(ValueError, match="takes GaussianKL of 1×7×7 kernels; the network has 0 3×1×3×3, which takes N"):
        objective([NormalKL(), GaussianKL(gaussian(7))])
    with pytest.raises(ValueError, match="no Bayesian layer takes NormalKL; the network has none"):
        Objective(network(bayesian=False), NormalKL())
    with pytest.raises(ValueError, match=r"layer '0'.*TruncatedLogUniformKL"):
        objective(TruncatedLogUniformKL())
    with pytest.raises(ValueError, match="kernels must be a whole number from 1"):
        objective(NormalKL(), kernels=0)
    with pytest.raises(ValueError, match="a Flatten, has no parameters to train"):
        Objective(nn.Flatten())
    relative = network(bayesian=False)
    bayesianize_(relative, kind=RelativeBayesConv2d)
    assert Objective(relative, TruncatedLogUniformKL()).kl().shape == (2,)


def test_each_layer_has_a_reverse_model_of_its_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    bayesianize_(model)
    first, second = Objective(model, kl_from(vae(3))).terms
    assert first is not second and first.prior.encoder is not second.prior.encoder


def test_what_is_no_divergence_is_refused() -> None:
    model = network(bayesian=False)
    for wrong in (bayesianize_(model), [gaussian(3)]):
        with pytest.raises(TypeError, match=r"terms are divergences; got a .*: give priors.terms\(\) of what"):
            Objective(model, wrong)
    reduced = nn.Module()
    reduced.__class__ = type("Wrapped", (nn.parallel.DistributedDataParallel,), {"__init__": nn.Module.__init__})
    model.add_module("wrapped", reduced)
    with pytest.raises(ValueError, match="does not reduce their gradients: wrap the Objective instead"):
        Objective(model, NormalKL(learn=True))
