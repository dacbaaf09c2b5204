import pytest
import torch
from torch import Tensor, nn

from training.networks.loop import Step, accuracy, batches, descend, train


def test_a_step_goes_down_the_gradient_of_this_loss_alone() -> None:
    weight = nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    for expected in (3.0 - 0.5 * 6.0, 0.0):
        loss = descend(weight.square(), optimizer)
        assert weight.item() == expected and not loss.requires_grad
    descend(weight.add(1).square(), optimizer, lr=0.25)
    assert weight.item() == -0.5


def test_batches_pass_over_everything_again_and_again() -> None:
    found = batches(5, 2, 7, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    expected = torch.cat([torch.randperm(5, generator=generator) for _ in range(3)])
    assert found.shape == (7, 2) and torch.equal(found.flatten(), expected[:14])


@pytest.mark.parametrize(("decay", "rates"), [(False, [2.0] * 4), (True, [2.0, 1.5, 1.0, 0.5])])
def test_training_measures_at_the_marks(decay: bool, rates: list[float]) -> None:
    seen: list[tuple[int, float]] = []
    reports: list[int] = []

    def step(batch: Tensor, lr: float) -> None:
        seen.append((int(batch), lr))

    found = train(
        step,
        torch.arange(4),
        2.0,
        decay=decay,
        progress=reports.append,
        marks=(1, 3),
        measure=lambda number: (number, len(seen)),
    )
    assert seen == list(zip(range(4), rates, strict=True))
    assert found == [(1, 1), (3, 3)] and reports == [1] * 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_lowers_the_cross_entropy(precision: str) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(64, 3, 8, 8), torch.arange(64) % 2
    images[labels == 1] += 0.5
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    optimizer = torch.optim.Adam(network.parameters())
    step = Step(network, optimizer, lambda batch: (images[batch], labels[batch]), images.device, precision)
    losses = [float(step(torch.arange(64), 1e-2)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0] and optimizer.param_groups[0]["lr"] == 1e-2
    assert accuracy(network, images, labels) == 1.0


def test_accuracy_counts_every_image() -> None:
    images = nn.functional.one_hot(torch.arange(10)).repeat(70, 1)
    labels = torch.arange(10).repeat(70)
    labels[-7:] = (labels[-7:] + 1) % 10
    assert accuracy(nn.Identity(), images, labels) == pytest.approx(693 / 700)


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_is_that_of_evaluation_mode_and_keeps_the_mode(training: bool) -> None:
    """An offset that is the same in all images decides, but normalisation by the batch would take it away."""
    network = nn.Sequential(nn.BatchNorm1d(2)).train(training)
    images = torch.tensor([[0.0, 5.0], [1.0, 4.0]])
    assert accuracy(network, images, torch.tensor([1, 1])) == 1
    assert [module.training for module in network.modules()] == [training] * 2
    assert network[0].num_batches_tracked == 0
    assert accuracy(network.train(), images, torch.tensor([1, 0])) == 0.5
