import pytest
import torch
from torch import Tensor, nn

from training.networks.loop import Step, accuracy, batches, descend, scores, train


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


@pytest.mark.parametrize(
    ("decay", "warm_up", "rates"),
    [
        (False, 0.0, [2.0] * 4),
        (True, 0.0, [2.0, 1.5, 1.0, 0.5]),
        (False, 0.25, [1.0, 2.0, 2.0, 2.0]),
        (True, 0.25, [1.0, 2.0, 2 * (1 - 1 / 3), 2 * (1 - 2 / 3)]),
        (True, 0.75, [0.5, 1.0, 1.5, 2.0]),
    ],
)
def test_training_measures_at_the_marks(decay: bool, warm_up: float, rates: list[float]) -> None:
    seen: list[tuple[int, float]] = []
    reports: list[int] = []

    def step(batch: Tensor, lr: float) -> None:
        seen.append((int(batch), lr))

    found = train(
        step,
        torch.arange(4),
        2.0,
        decay=decay,
        warm_up=warm_up,
        progress=reports.append,
        marks=(1, 3),
        measure=lambda number: (number, len(seen)),
    )
    assert seen == list(zip(range(4), rates, strict=True))
    assert found == [(1, 1), (3, 3)] and reports == [1] * 4


@pytest.mark.parametrize("warm_up", [-0.1, 1.0])
def test_a_warm_up_is_a_share(warm_up: float) -> None:
    with pytest.raises(ValueError, match=f"share of the steps, from 0 to less than 1; got {warm_up}"):
        train(lambda batch, lr: None, torch.arange(4), 1.0, warm_up=warm_up)


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


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_scores_of_each_image(precision: str, tolerance: float) -> None:
    """They do not depend on the split into batches, and bfloat16 differs by its rounding alone."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    images, labels = torch.rand(1203, 3, 8, 8), torch.randint(5, (1203,))
    correct, nats = scores(network, images, labels, precision)
    logits = network.eval()(images)
    assert correct.dtype == torch.bool and correct.shape == nats.shape == (1203,) and nats.dtype == torch.float32
    assert not nats.requires_grad
    torch.testing.assert_close(nats, -logits.log_softmax(1)[range(1203), labels], rtol=0, atol=tolerance)
    assert (correct == (logits.argmax(1) == labels)).float().mean() >= 1 - tolerance
    assert torch.equal(nats, scores(network, images, labels)[1]) == (precision == "float32")
    assert accuracy(network, images, labels) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
