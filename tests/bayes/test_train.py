import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset

from dwp_init.bayes import NormalKL, Objective, Terms, bayesianize_, predict, spreads, train_
from tests.bayes.small import images, network


def loader(batch_size: int = 5) -> DataLoader:
    pictures, labels = images()
    return DataLoader(TensorDataset(pictures[0], labels[0]), batch_size, shuffle=True)


def test_a_network_learns_its_images() -> None:
    model, (pictures, labels) = network(norm=True), images()
    seen: list[Terms] = []
    torch.manual_seed(1)
    train_(Objective(model, NormalKL(0.1)), loader(), steps=200, lr=1e-2, temperature=0.1, progress=seen.append)
    first, last = (sum(terms.nll.item() for terms in part) for part in (seen[:20], seen[-20:]))
    assert len(seen) == 200 and last < 0.5 * first and not seen[0].nll.requires_grad
    assert not model.training and (predict(model, pictures[0]).argmax(1) == labels[0]).all()


def test_the_posterior_of_a_mean_is_the_conjugate_one() -> None:
    """With y = w · x + N(0, 1) and a normal prior the best factorised posterior of one weight is the exact one."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 1, 1, 1), torch.randn(40)

    class Regression(Objective):
        def nll(self, images: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
            layer = self.network[0]
            loc, variance = layer.weight.flatten(), layer.q.scale.square().flatten()
            squares = (labels - images.flatten() * loc).square() + images.flatten().square() * variance
            return 0.5 * squares.mean() * count

    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    bayesianize_(model, scale=0.3)
    train_(Regression(model, NormalKL(0.5)), [(x, y)], 40, steps=800, lr=2e-2)
    precision = 1 / 0.5**2 + x.square().sum().item()
    assert model[0].weight.item() == pytest.approx((x.flatten() * y).sum().item() / precision, abs=1e-3)
    assert spreads(model)[0].scale == pytest.approx(1 / math.sqrt(precision), rel=1e-2)


def test_the_count_weighs_the_data() -> None:
    model, seen = network(), []
    for count in (None, 120):
        torch.manual_seed(2)
        train_(Objective(model, NormalKL()), loader(12), count, steps=1, lr=1e-9, progress=seen.append)
    assert seen[1].nll.item() == pytest.approx(10 * seen[0].nll.item(), rel=1e-3)


def test_a_bound_that_is_not_finite_spoils_no_parameter() -> None:
    objective, (pictures, labels) = Objective(network(), NormalKL()), images()
    before = [value.clone() for value in objective.parameters()]
    with pytest.raises(ValueError, match="the network diverged by step 0: nll nan"):
        train_(objective, [(pictures[0] * math.nan, labels[0])], 12, steps=1)
    assert all(map(torch.equal, objective.parameters(), before)) and not objective.training


def test_parameters_that_became_nan_are_an_error() -> None:
    """In the last step too, whose loss was still finite."""
    objective, (pictures, labels) = Objective(network(), NormalKL()), images()
    objective.network[5].bias.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(ValueError, match=r"the network diverged by step 1: .*NaN or infinite in network\.5\.bias"):
        train_(objective, [(pictures[0], labels[0])], 12, steps=1)


def counted(**options: Any) -> float:
    """The count that train_ finds for a loader of 12 images, by the loss of all of them in one batch."""
    torch.manual_seed(2)
    model, seen = network(), []
    train_(Objective(model, NormalKL()), DataLoader(loader().dataset, **options), steps=1, progress=seen.append)
    return seen[0].nll.item()


def test_the_count_of_a_loader_with_batches_of_its_own() -> None:
    every = BatchSampler(RandomSampler(range(12)), 12, False)
    assert counted(batch_sampler=every) == pytest.approx(counted(batch_size=12), rel=0.05)
    with pytest.raises(ValueError, match=r"the loader draws 3 of 12 images in a pass; give count="):
        counted(batch_sampler=BatchSampler(SubsetRandomSampler(range(3)), 3, False))
    with pytest.raises(ValueError, match="count, the number of training images, is not known from a list of batches"):
        counted(batch_sampler=[[0, 1], [2, 3]])


def test_helpful_errors() -> None:
    objective, (pictures, labels) = Objective(network(), NormalKL()), images()
    with pytest.raises(ValueError, match="the number of training images, is not known from a list; give it"):
        train_(objective, [(pictures[0], labels[0])], steps=1)
    with pytest.raises(ValueError, match="the batches ended: generator cannot be iterated again; give a DataLoader"):
        train_(objective, ((pictures[0], labels[0]) for _ in range(2)), 12, steps=3)
    with pytest.raises(ValueError, match="count must be a whole number of images, 1 or more; got nan"):
        train_(objective, loader(), math.nan, steps=1)
    some = DataLoader(loader().dataset, 5, sampler=range(3))
    with pytest.raises(ValueError, match=r"the loader draws 3 of 12 images in a pass; give count="):
        train_(objective, some, steps=1)
    with pytest.raises(ValueError, match=r"labels are one class for each image, \(batch,\); got \(12, 2\)"):
        train_(objective, [(pictures[0], labels[0][:, None].expand(-1, 2))], 12, steps=1)
    for wrong, error, message in (
        (labels[0].float(), ValueError, r"labels are class numbers from 0 on; got torch.float32: convert them with"),
        (labels[0] - 100, ValueError, "labels must be from 0 to 1, .* got labels from -100 to -99"),
        (labels[0] + 7, ValueError, "labels must be from 0 to 1, as the network returns 2 logits; got labels from 7"),
        (labels[0].tolist(), TypeError, r"labels must be a tensor \(batch,\) of class numbers; got list"),
    ):
        with pytest.raises(error, match=message):
            objective(pictures[0], wrong, 12)
    torch.manual_seed(0)
    expected = objective.eval()(pictures[0], labels[0], 12).nll
    torch.manual_seed(0)
    assert objective(pictures[0], labels[0].to(torch.uint8), 12).nll == expected
    with pytest.raises(ValueError, match="warm_up must be from 0 to the 1 steps"):
        train_(objective, loader(), steps=1, warm_up=2)


def test_scales_in_half_precision_are_refused() -> None:
    model = network().bfloat16()
    with pytest.raises(
        ValueError, match=r"network.0.log_variance is torch.bfloat16, in which steps of Adam are rounded"
    ):
        train_(Objective(model, NormalKL()), [(images()[0][0].bfloat16(), images()[1][0])], 12, steps=1)


@pytest.mark.parametrize("wrap", [lambda module: module, nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_only_the_posteriors_scales_have_their_own_rate(wrap: Any) -> None:
    """Adam's first step is the learning rate."""
    model = network()
    model[-1].register_parameter("log_variance", nn.Parameter(torch.zeros(())))
    model[-1].register_forward_hook(lambda module, inputs, output: output * module.log_variance.exp())
    scales = [model[0].log_variance, model[3].log_variance, model[-1].log_variance]
    before = [each.detach().clone() for each in scales]
    train_(
        wrap(Objective(model, NormalKL())), [tuple(part[0] for part in images())], 12, steps=1, lr=1e-3, scale_lr=0.5
    )
    moved = [(now - then).abs().max().item() for now, then in zip(scales, before, strict=True)]
    assert moved == pytest.approx([0.5, 0.5, 1e-3], rel=1e-2)
